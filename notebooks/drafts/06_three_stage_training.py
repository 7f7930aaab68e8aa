# %% [markdown]
# # 06 · Three-stage training: the face follows the conversation
#
# **The paper:** A²-LLM, Sec. 5.3 and 5.4 (Eq. 6), App. B, Table 6.
#
# **You will build** LoRA in six lines, the joint loss, the LoRA reset; you will run the three stages; and then put the
# paper's central claim on trial: let one voice say one sentence after six different questions, and look at the faces.
#
# **Time:** tiny 25 s, laptop 25 min, a100 about a day on eight of them.
#
# **Know first:** notebook 04 (the language model) and 05 (the connector); what fine-tuning is.

# %% tags=["parameters"]
profile = "tiny"  # tiny | laptop | a100
seed = 0  # of LoRA's and the connector's first weights
few = 12  # answers to train on at tiny; elsewhere all of them
topic = "violin"  # what the sentence of section 5 is about

# %% tags=["nbval-ignore-output"]
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from torch import nn

from a2lite import config, course
from a2lite.a2llm import A2LLM, examples_of
from a2lite.backbone import Backbone
from a2lite.backbone.tasks import Item, prepare
from a2lite.fit import artefact_path, find_artefact, load_checkpoint
from a2lite.flame_qa import load_samples
from a2lite.rvq import load as load_rvq
from a2lite.speech import load as load_speech
from a2lite.training import predict, three_stages, train

torch.set_num_threads(1)
plt.rcParams["figure.dpi"] = 80
settings = config.load_config(profile)
rvq = load_rvq(find_artefact("rvq.safetensors", profile))
speech = load_speech(find_artefact("speech.safetensors", profile))
base = find_artefact("backbone.safetensors", profile)

# %% [markdown]
# ## 1 · Look first: the same words, the same voice, another face
#
# About half of the answers in the synthetic world are **ambiguous**. Their words and their prosody are the same whatever
# the emotion; only the question tells what the face should do. For a model that hears nothing but the answer, such a
# face is a matter of guessing. Three of them from the shipped samples:

# %% tags=["nbval-check-output"]
shipped_samples = load_samples("tiny", "train")
ambiguous = shipped_samples.where(style="ambiguous")
print(len(ambiguous), "of", len(shipped_samples), "are ambiguous")
for sample in ambiguous.select(range(3)):
    print(f"\nasked:    {sample.dialogue}\nanswered: {sample.answer_text}")
    print(f"face:     {sample.emotion}")

# %% [markdown]
# ## 2 · LoRA by hand
#
# The language model is large and good at what it does. To teach it something new without spoiling that, **LoRA** leaves
# each matrix $W$ as it is and adds a detour of low rank beside it (App. B: $r = 64$, $\alpha = 32$):
#
# $$W x + \frac{\alpha}{r}\, B A\, x, \qquad A: r \times d_{\text{in}},\; B: d_{\text{out}} \times r.$$
#
# $A$ starts random and $B$ at zero, so that at the first step the detour adds exactly nothing. (Why not both at zero?
# Then neither would ever get a gradient.)

# %% tags=["nbval-check-output"]
class LoRALinear(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear, self.scale = linear, alpha / rank
        self.A = nn.Parameter(0.02 * torch.randn(rank, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T) @ self.B.T


torch.manual_seed(seed)
x, linear = torch.randn(3, 8), nn.Linear(8, 6)
mine = LoRALinear(linear, rank=2, alpha=4)
print("adds nothing at first:", torch.equal(mine(x), linear(x)))
nn.init.normal_(mine.B);

# %% [markdown]
# The library leaves this to `peft`, which puts the detour into every layer of a given name. Give it our $A$ and $B$ and
# it must say what we say:

# %%
from peft import LoraConfig, inject_adapter_in_model

layer = nn.ModuleDict({"q_proj": linear})
inject_adapter_in_model(LoraConfig(
    r=2, lora_alpha=4, lora_dropout=0.0, target_modules=["q_proj"]), layer)
with torch.no_grad():
    layer["q_proj"].lora_A["default"].weight.copy_(mine.A)
    layer["q_proj"].lora_B["default"].weight.copy_(mine.B)
torch.testing.assert_close(layer["q_proj"](x), mine(x))

# %% [markdown]
# A²-LLM puts it on all seven projections of each of the 28 layers. How many parameters is that? A detour beside an
# $o \times i$ matrix has $r\,(o + i)$. The paper says 0.16 B (Sec. 6.2):

# %% tags=["nbval-check-output"]
paper = config.load_config("a100")
b, r = paper.backbone, paper.lora.rank
kv = b.hidden // b.heads * b.kv_heads  # keys and values have fewer heads
shapes = [(b.hidden, b.hidden), (kv, b.hidden), (kv, b.hidden),
          (b.hidden, b.hidden), (b.intermediate, b.hidden),
          (b.intermediate, b.hidden), (b.hidden, b.intermediate)]
lora_billions = b.layers * sum(r * (o + i) for o, i in shapes) / 1e9
print(f"LoRA on {len(paper.lora.targets)} projections x {b.layers} layers:"
      f" {lora_billions:.3f} B")

# %% [markdown]
# ## 3 · One loss for both
#
# $$\mathcal{L} = \mathcal{L}_{\text{seq}} + \lambda\,\mathcal{L}_{\text{motion}} \qquad\text{(Eq. 6)}$$
#
# The first term keeps the language model speaking: cross-entropy of its text and audio tokens. The second is notebook
# 05's. One forward pass serves both, its logits the one, its hidden states the other. And here is the point: the
# gradient of $\mathcal{L}_{\text{motion}}$ flows *through the hidden states into LoRA*. The language model is taught to
# keep, at every audio token, what a face needs to know. For $\lambda$ the paper gives no value; we take 1.

# %% tags=["nbval-ignore-output"]
samples = load_samples(profile, "train")
if profile == "tiny":
    samples = samples.select(range(few))
items = prepare(samples, speech, settings.backbone)
examples = examples_of(items, [s.motion for s in samples], rvq)
torch.manual_seed(seed)
model = A2LLM(settings, Backbone.load(base), rvq)
batch = model.eval().collate(examples[:4])
logits, hidden = model.hidden(batch.sequence)
seq = model.backbone.sequence_loss(batch.sequence, logits)["loss"]
terms = model.loss(batch)
torch.testing.assert_close(terms["loss"], seq + terms["motion"])
print(f"L_seq {seq.item():.2f}, L_motion {terms['motion'].item():.2f}")

# %% [markdown]
# $\mathcal{L}_{\text{motion}}$ stands where knowing nothing puts it, near $6 \ln 256 = 33.3$. Who gets a gradient?

# %% tags=["nbval-check-output"]
terms["loss"].backward()
owners = {
    "LoRA's B": [p for n, p in model.named_parameters() if "lora_B" in n],
    "connector": model.connector.parameters(),
    "language model": model.backbone.lm.model.norm.parameters(),
    "motion tokenizer": model.rvq.parameters(),
}
for name, parameters in owners.items():
    moved = any(p.grad is not None and p.grad.any() for p in parameters)
    print(f"{name:17}", "learns" if moved else "is frozen")
model.zero_grad()

# %% [markdown]
# ## 4 · Three stages
#
# 1. **Connector pre-training.** Connector and LoRA train together, each at its rate (Sec. 5.3: $10^{-5}$ and $10^{-4}$).
#    A new connector needs many steps. By then LoRA has had too many of them, and has bent the language model to a
#    connector that was, at first, noise.
# 2. **LoRA reset.** So LoRA is thrown away, weights *and* optimiser state. The connector stays with both. Training goes
#    on for "significantly fewer steps", and the fresh LoRA adapts to a connector that is already good.
# 3. **Affective tuning.** A short stage on the high-dynamic subset: laughter, gasps, contempt.
#
# Note what stage 1 is *not*: a training of the connector beside a frozen language model. That is Table 6's ablation,
# *Adapter-Only*. In `a2lite.training` the three stages are one run over one count of steps, so that a run killed in
# stage 2 resumes in stage 2.

# %% tags=["nbval-ignore-output"]
lively = [e for e, high in zip(examples, samples.column("high_dynamic"))
          if high]
stages = three_stages(settings.training, examples, lively)
for stage in stages:
    first = ", LoRA thrown away first" if stage.reset_lora else ""
    print(f"{stage.name}: {stage.steps} steps on {len(stage.examples)}"
          f" answers{first}")
path = artefact_path("a2llm.safetensors", profile)
trace = train(model, stages, None if profile == "tiny" else path, seed=seed)
if profile != "tiny":
    model.save(path, trace=trace)

# %% tags=["nbval-ignore-output"]
shipped = find_artefact("a2llm.safetensors", "tiny")
reference = load_checkpoint(shipped)[1]["trace"]
fig, axes = plt.subplots(1, 2, figsize=(9, 2.9))
for axis, key in zip(axes, ("motion", "seq")):
    if key in reference["steps"]:
        axis.plot(reference["steps"][key], reference["values"][key],
                  color="0.7", lw=2, label="shipped run")
    axis.plot(trace.steps[key], trace.values[key], "C1o-", ms=3,
              label="yours")
    axis.set(title=f"L_{key}", xlabel="step", ylim=(0, None))
axes[0].axhline(33.27, color="black", lw=0.8, ls=":")
axes[0].legend()
fig.tight_layout()

# %% [markdown]
# *Figure: the two terms of Eq. 6; dotted is knowing nothing. Yours is short at `tiny`: five steps a stage show that the
# machinery runs, not more. Grey is the run behind the shipped checkpoint; LOG.md says what it started from. Where LoRA
# is thrown away, L_seq makes a small step back.*
#
# ## 5 · One voice, six questions
#
# From here on we look at a trained model: at `tiny` the shipped one, elsewhere yours. We take **one** ambiguous answer,
# its true audio tokens down to the last, and put different questions before it. Nothing that can be heard in the answer
# changes. First, find the questions: for each emotion one, if possible about the same thing, closed by the same
# request, and asked in one turn.

# %% tags=["nbval-check-output"]
def closing(question):
    return question.split(". ")[-1]


pool = list(load_samples("tiny", "train"))
if profile != "tiny":
    pool = list(samples.where(style="ambiguous", topic=topic))
said = next(s for s in pool if s.style == "ambiguous" and s.topic == topic)
questions = {}
for sample in sorted(pool, key=lambda s: (
        s.topic == topic, closing(s.question_text) == closing(
            said.question_text), not s.history)):
    questions[sample.emotion] = sample  # the best one comes last
for emotion in sorted(questions):
    print(f"{emotion:10}{questions[emotion].dialogue}")
print(f"\nanswer:   {said.answer_text}")

# %% tags=["nbval-ignore-output"]
own = model.eval()  # the one that you have just trained
model = A2LLM.load(find_artefact("a2llm.safetensors", profile), settings,
                   Backbone.load(base), rvq)
(spoken,) = examples_of(prepare([said], speech, settings.backbone),
                        [said.motion], rvq)
order = sorted(questions)
asked = prepare([questions[e] for e in order], speech, settings.backbone)
dialogues = []
for emotion, item in zip(order, asked):
    turn = replace(spoken.item.last, question=item.last.question,
                   question_mels=item.last.question_mels)
    item = Item(emotion, "AQAA", [*item.exchanges[:-1], turn])
    dialogues.append(replace(spoken, item=item))
faces = [model.motion(codes[None])[0] for codes in predict(model, dialogues)]

# %% [markdown]
# To compare expressions we want a moment at which the sound has little to say about the face: the one in which the
# true lips are closed most firmly, in the middle of the answer. And we take the head's rotation out.

# %%
from a2lite import metrics
from a2lite.flame import Flame, load_head
from a2lite.player import portraits

head = load_head()
flame = Flame(head)
true = flame(torch.from_numpy(said.motion), zero_pose=True)
quarter = len(true) // 4
opening = metrics.mouth_opening(true, head.landmarks)[quarter:-quarter]
moment = quarter + int(opening.argmin())
shapes = torch.stack([flame(f[moment], zero_pose=True) for f in faces])
portraits(shapes, head.faces, head.colours, order, width=144, height=180)

# %% [markdown]
# *Figure: the same instant of the same recording, after six different questions. The audio tokens are identical in all
# of them. Compare brows, lids and the corners of the mouth; the lips are at the same sound.*
#
# A model driven by sound cannot draw this row, whatever it has learned. Here is one, with the same connector on top of
# the audio tokens and a recurrent net: six times the same input, so six times the same face. (It is not trained; that
# would change nothing about it. At `laptop` it is trained below, and judged.)

# %% tags=["nbval-check-output"]
from a2lite.baselines import audio_only

torch.manual_seed(seed)
rival = audio_only.AudioOnly(settings, settings.backbone.audio_codes)
codes = audio_only.predict(rival, dialogues)
print("audio only, all the same face:",
      all(torch.equal(codes[0], other) for other in codes))
print("our model, all different faces:",
      all(not torch.equal(faces[0], other) for other in faces[1:]))

# %% [markdown]
# ## 6 · Measure it
#
# One row of pictures proves little. The judge of notebook 07 has learned what each emotion looks like from *true
# training* motion, and is now asked about predictions: true audio tokens, predicted faces, the model's own motion as
# history. Its first line is its score on the true faces, the ceiling. Beside ours stands the same model **deaf** (the
# question's sound replaced by silence) and, from `laptop` on, the audio-only rival, trained on the same answers for as
# many steps.
#
# At `tiny` there are four shipped answers for each of the five ways of being new (see notebook 02), twenty in all; the
# intervals say how little that is. `benchmarks/chain.py` asks 320 of each.

# %% tags=["nbval-ignore-output"]
from a2lite.judge import Judge

kinds = ("voice", "paraphrase", "combination", "avatar", "sentence")
test = [s for kind in kinds for s in load_samples(profile, f"test_{kind}")]
truth = [torch.from_numpy(s.motion) for s in test]
tests = examples_of(prepare(test, speech, settings.backbone), truth, rvq)
learn = load_samples(profile, "train")
judge = Judge(flame, head.landmarks, head.regions["upper_face"],
              [s.motion for s in learn], learn.column("emotion"))

# %%
def deaf(example):
    """The same dialogue, with silence in the place of every question."""
    mute = [replace(e, question_mels=[
        torch.full_like(mel, float(mel.min())) for mel in e.question_mels])
        for e in example.item.exchanges]
    return replace(example, item=replace(example.item, exchanges=mute))


def motions(codes):
    return [model.motion(c[None])[0] for c in codes]


found = {"true faces": truth, "our model": motions(predict(model, tests)),
         "our model, deaf": motions(predict(model, [deaf(e) for e in tests]))}
if profile != "tiny":
    audio_only.train(rival, examples, trace.steps["loss"][-1] + 1, seed=seed)
    found["audio only"] = motions(audio_only.predict(rival, tests))

# %% tags=["nbval-ignore-output"]
unclear = [i for i, s in enumerate(test) if s.style == "ambiguous"]
emotions = [s.emotion for s in test]
verdicts, on_unclear = {}, {}
print(f"{'':16} emotion, ambiguous answers  temporal  width  lively  UFD")
for name, moved in found.items():
    verdicts[name] = v = judge(moved, truth, emotions)
    on_unclear[name] = judge(*[[each[i] for i in unclear]
                               for each in (moved, truth, emotions)]).emotion
    row = [v.measures[m].mean for m in ("temporal", "width", "liveliness")]
    print(f"{name:16} {str(on_unclear[name]):27}",
          "".join(f"{value:8.2f}" for value in [*row, v.ufd_ratio]))

# %% [markdown]
# Read two columns together. **Temporal** (correlation of the mouth's opening, Eq. 13) is nearly the same for the model
# that hears the question and for the deaf one: lips follow the voice, and the voice has been given to both. **Emotion**
# on ambiguous answers is not: without the question there is nothing to know it from. That is the paper's thesis, and
# the reason for training a language model and a face as one.
#
# The last column is the movement of the upper face over that of the true one (UFD, Eq. 12). Where it exceeds 1 the face
# trembles more than it should: deep levels of codes, chosen without knowledge of each other (notebook 05, exercise C).
#
# ## 7 · Break it: never reset
#
# What does the reset do? Look at both moments of it with the model that *you* have trained in section 4 (at `tiny`,
# fifteen steps old). Before: LoRA and connector have grown used to each other. After: LoRA is fresh and adds nothing,
# the language model is the pretrained one again, to the last digit, and the connector meets hidden states that are new
# to it. This is the first moment of a stage 2.

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    some = own.collate(examples[:4])
    before = own.loss(some)
    own.reset_lora()
    after = own.loss(some)
    logits, _ = Backbone.load(base)(some.sequence)
    pretrained = own.backbone.sequence_loss(some.sequence, logits)["loss"]
for key in ("motion", "seq"):
    print(f"L_{key:7} with its LoRA {before[key]:.3f}, "
          f"after the reset {after[key]:.3f}")
torch.testing.assert_close(after["seq"], pretrained)

# %% [markdown]
# What stage 1 did to the language model, for better or worse, is gone; what the connector has learned is kept, and pays
# for the reset with a step in $\mathcal{L}_{\text{motion}}$ that the fresh LoRA soon makes up for. Never reset, and the
# language model you end with is the one that thousands of steps beside a half-trained connector have bent.
#
# ## 8 · See the face
#
# One of the faces from section 5 in motion: the sound is the world's, and it is the same for all six.

# %% tags=["nbval-ignore-output"]
from a2lite.player import Clip, show

picked = order.index("happy") if "happy" in order else 0
clip = Clip(flame(faces[picked]), head.faces, head.colours,
            audio=said.answer_audio, title=f"asked: {order[picked]}",
            caption=said.answer_text)
show(clip, save=f"{profile}/06_three_stage_training")

# %% [markdown]
# *Figure: the answer of section 5 after a happy question, first frame to last; a player where scripts run. The mouth
# opens and closes with the words, the expression stays.*
#
# ## 9 · Exercises
#
# **A (★).** At inference the detour can be added into the matrix, and LoRA costs nothing. Return the weight of a plain
# linear layer that does the same as `W` with its detour.

# %% tags=["exercise"]
def merge(weight, A, B, alpha):
    """weight (o, i), A (r, i), B (o, r) -> (o, i)."""
    ### BEGIN SOLUTION
    return weight + alpha / len(A) * B @ A
    ### END SOLUTION

# %% tags=["check"]
merged = merge(linear.weight, mine.A, mine.B, alpha=4)
assert merged.shape == linear.weight.shape, "the shape of the weight"
plain = nn.functional.linear(x, merged, linear.bias)
torch.testing.assert_close(plain, mine(x), msg="scale is alpha / r")

# %% [markdown]
# **B (★★).** Write the LoRA reset: for pairs `(A, B)` and an optimiser that also trains other things. Draw `A` anew, set
# `B` to zero, and leave nothing of either in the optimiser's `state`. (Why the last? Adam's moments would push the fresh
# weights where the old ones were heading.)

# %% tags=["exercise"]
def reset_pairs(pairs, optimizer):
    ### BEGIN SOLUTION
    for A, B in pairs:
        nn.init.normal_(A, std=0.02)
        nn.init.zeros_(B)
        optimizer.state.pop(A, None)
        optimizer.state.pop(B, None)
    ### END SOLUTION

# %% tags=["check"]
A, B, kept = (nn.Parameter(torch.ones(n, 3)) for n in (2, 4, 5))
optimizer = torch.optim.AdamW([A, B, kept], lr=0.1)
(A.sum() + B.sum() + kept.sum()).backward()
optimizer.step()
before = A.detach().clone()
reset_pairs([(A, B)], optimizer)
assert not torch.equal(A, before), "A must be drawn anew"
assert A.std() > 0, "A must be random: equal rows learn the same"
assert not B.any(), "B must be zero, so that the detour adds nothing"
assert A not in optimizer.state and B not in optimizer.state, "moments!"
assert kept in optimizer.state, "the connector's moments must stay"

# %% [markdown]
# **C (★★).** Eq. 6 adds two terms of different nature. The paper leaves $\lambda$ open. Suppose that you want both terms
# to weigh the same at the start of training, when the pretrained language model has `seq` and the connector knows
# nothing. Which $\lambda$ is that, for `levels` levels of `codes` codes?

# %% tags=["exercise"]
def even_weight(seq, levels=6, codes=256):
    """The lambda for which both terms of Eq. 6 are equal at the start."""
    ### BEGIN SOLUTION
    return seq / (levels * torch.tensor(float(codes)).log().item())
    ### END SOLUTION

# %% tags=["check"]
assert abs(even_weight(33.271) - 1) < 1e-3, "6 ln 256 = 33.27 weighs as much"
assert abs(even_weight(1.0, levels=1, codes=2) - 1.4427) < 1e-3
print(f"here: {even_weight(seq.item()):.3f}, and we take 1: motion leads")

# %% [markdown]
# ## What was left out
#
# Table 6 says that with a frozen language model the lips fall apart (temporal correlation .028, against .464). At this
# size they do not; what joint training buys here is emotion. `benchmarks/chain.py` measures both side by side, and
# LOG.md holds the figures as they came.
#
# ## Paper map
#
# | paper | here | symbol | status |
# |---|---|---|---|
# | Sec. 5.3: LoRA | §2 | `a2lite.a2llm.A2LLM.lora_parameters` | reproduced |
# | App. B: $r = 64$, $\alpha = 32$ | §2 | `a2lite.config.LoRAConfig` | simplified: $r = \alpha = 16$ at tiny and laptop, whose matrices are 256 wide |
# | Eq. 6 | §3 | `a2lite.a2llm.A2LLM.loss` | reproduced; $\lambda = 1$, the paper gives none |
# | Sec. 5.3: stages 1 to 3 | §4 | `a2lite.training.three_stages` | reproduced; rates of the small sizes are their own |
# | Sec. 5.3: LoRA reset | §4, §7 | `a2lite.training.reset_lora` | reproduced |
# | Sec. 6.3: audio-driven rivals | §5, §6 | `a2lite.baselines.audio_only.AudioOnly` | simplified: one fair rival of our own, on the same tokens |
# | Table 6: Adapter-Only | notebook 05 | `a2lite.a2llm.A2LLM.hidden` | reproduced as a run; its collapse of the lips did not appear |
#
# **Next:** notebook 07 says what these numbers are worth, notebook 08 lets the model answer while it speaks.

# %% tags=["nbval-ignore-output"]
v = verdicts["our model"]
figures = {
    "LoRA, billions of parameters": (lora_billions, 0.16, "Sec. 6.2"),
    "temporal correlation": (v.measures["temporal"].mean, 0.464, "Table 6"),
    "liveliness": (v.measures["liveliness"].mean, 1.087, "Table 6"),
    "UFD over the truth's": v.ufd_ratio,
    "emotion on ambiguous answers": on_unclear["our model"].value,
    "the same, deaf": on_unclear["our model, deaf"].value,
    "answers judged": len(test),
}
course.report("06_three_stage_training", profile, figures)
assert 0.155 < lora_billions < 0.165
assert v.measures["temporal"].mean > 0.5
assert on_unclear["our model"].hits >= on_unclear["our model, deaf"].hits
