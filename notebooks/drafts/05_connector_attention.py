# %% [markdown]
# # 05 · The motion connector: from hidden states to a face
#
# **The paper:** A²-LLM, Sec. 5.2 (Eq. 2 and 5), App. B; the right half of its Figure 1.
#
# **You will build** the four pieces of the motion connector, each by hand and each held against `a2lite.connector`:
# the downsampling from 25 Hz to 5 Hz, the attention to the face of a moment ago, the six heads, and their loss. You
# will train a connector, stream it, and then take its memory away.
#
# **Time:** tiny 15 s, laptop 6 min, a100 hours.
#
# **Know first:** what attention is; notebook 03 (a fifth of a second of motion is six codes) and notebook 04 (at every
# audio token the language model leaves a hidden state $H_t$).

# %% tags=["parameters"]
profile = "tiny"  # tiny | laptop | a100
seed = 0  # of first weights and of what is drawn in training
few = 12  # answers to train on at tiny; elsewhere all of them
few_steps = 40  # training steps at tiny; elsewhere as many as stage 1 has

# %% tags=["nbval-ignore-output"]
import matplotlib.pyplot as plt
import torch
from torch import nn

from a2lite import config, course
from a2lite.a2llm import A2LLM, examples_of
from a2lite.backbone import Backbone
from a2lite.backbone.tasks import prepare
from a2lite.connector import MotionConnector, motion_loss
from a2lite.course import diagram
from a2lite.fit import find_artefact
from a2lite.flame_qa import load_samples
from a2lite.rvq import load as load_rvq
from a2lite.speech import load as load_speech

torch.set_num_threads(1)
plt.rcParams["figure.dpi"] = 80
settings = config.load_config(profile)
rvq = load_rvq(find_artefact("rvq.safetensors", profile))
speech = load_speech(find_artefact("speech.safetensors", profile))
backbone = Backbone.load(find_artefact("backbone.safetensors", profile))

# %% [markdown]
# ## 1 · Look first: what goes in, what must come out
#
# A few dialogues of the synthetic world. The language model reads question *and* answer, both the true ones (that is
# **teacher forcing**), and at the answer's audio tokens we keep its hidden states. The motion tokenizer of notebook 03
# turns the answer's true face into codes. So there are two clocks: 25 states a second on one side, 5 motion tokens on
# the other.

# %% tags=["nbval-ignore-output"]
samples = load_samples(profile, "train")
if profile == "tiny":
    samples = samples.select(range(min(few, len(samples))))
items = prepare(samples, speech, backbone.config)
examples = examples_of(items, [s.motion for s in samples], rvq)
frozen = A2LLM(settings, backbone, rvq, lora=False).eval()

# %% tags=["nbval-check-output"]
batch = frozen.collate(examples[:8])
_, hidden = frozen.hidden(batch.sequence)
codes, lengths = batch.codes, batch.lengths
print("hidden states", tuple(hidden.shape))
print("motion codes ", tuple(codes.shape))
assert hidden.shape[1] == 5 * codes.shape[1]

# %% [markdown]
# Eight answers side by side, padded to the longest; `lengths` says where each one really ends. Here is the one that
# takes longest to say:

# %%
one = int(lengths.argmax())
seconds = int(lengths[one]) / 5
shown = hidden[one] - hidden[one].mean(0)
fig, rows = plt.subplots(2, 1, figsize=(9, 3.4), sharex=True)
rows[0].imshow(shown.T[:24] / shown.std(), cmap="PuOr", vmin=-2, vmax=2,
               aspect="auto", extent=(0, seconds, 0, 1))
rows[1].imshow(codes[one].T, cmap="Greens", aspect="auto",
               extent=(0, seconds, 0, 1))
rows[0].set(ylabel="$H_t$", yticks=[])
rows[1].set(ylabel="six levels", yticks=[], xlabel="seconds")
fig.tight_layout()

# %% [markdown]
# *Figure: one answer as the connector meets it. Above, 24 of the numbers in each hidden state, 25 columns a second;
# below, the codes to be predicted, five columns a second, the coarse level on top. Wherever the states hold still, a
# sound is being held or there is silence.*
#
# And this is the whole way from one to the other, for the second second of that answer. The paper calls a stretch that
# is made at once a **segment**; it does not say how long one is. Ours are five motion tokens, one second.

# %%
diagram.connector(hidden[one, 25:50].numpy(), codes[one, :5].numpy(),
                  codes[one, 5:10].numpy(), settings.connector.layers);

# %% [markdown]
# *Figure: the motion connector, with the real numbers of one segment. Read it from the bottom: 25 states become five
# queries; the queries look at each other and at the face of the segment before (left); six heads name six codes for
# each. What is predicted on the right is, one round later, what stands on the left.*
#
# ## 2 · From 25 Hz to 5 Hz
#
# "Feature-level downsampling via a 1D convolution layer, followed by a linear projection" is how Sec. 5.2 begins. With
# kernel and stride both $G = 5$ the convolution takes five neighbouring states, mixes them, and moves on by five. No
# state is seen twice, so it is nothing but a matrix product on five states laid end to end, and we can write it so:

# %% tags=["nbval-check-output"]
torch.manual_seed(seed)
width_in, group = hidden.shape[-1], settings.rvq.group
conv = nn.Conv1d(width_in, width_in, kernel_size=5, stride=5)
blocks = hidden.unflatten(1, (-1, group))  # (B, N, G, d)
by_hand = torch.einsum("bngi,oig->bno", blocks, conv.weight) + conv.bias
print(tuple(blocks.shape), "->", tuple(by_hand.shape))
as_layer = conv(hidden.transpose(1, 2)).transpose(1, 2)
torch.testing.assert_close(by_hand, as_layer, atol=1e-4, rtol=1e-4)

# %% [markdown]
# The library does the same and projects the result to the connector's own width. From here on we have one connector,
# untrained, to take apart:

# %% tags=["nbval-check-output"]
torch.manual_seed(seed)
net = MotionConnector(settings.connector, settings.rvq, width_in).eval()
net.downsample.load_state_dict(conv.state_dict())
queries = net.queries(hidden)
torch.testing.assert_close(queries, net.project(by_hand),
                           atol=1e-4, rtol=1e-4)
print("queries", tuple(queries.shape))

# %% [markdown]
# ## 3 · A look back: attention to the face of a moment ago
#
# Inside a segment all tokens are predicted at once. What ties a segment to the one before is **cross-attention**: the
# queries come from the voice, keys and values from the face. And what is "the face", for a network? The codes of the
# previous segment: each level has an embedding table of its own, and the six vectors are added. Five motion tokens
# become five vectors to look at.

# %% tags=["nbval-check-output"]
before = codes[:, :5]  # (B, 5, 6)
embedded = torch.stack(
    [net.history[level](before[..., level]) for level in range(6)])
by_hand = embedded.sum(0) + net.memory_position
memory = net.memory(before, len(before))
torch.testing.assert_close(by_hand, memory)
print("what there is to look at:", tuple(memory.shape))
print("in the first segment:    ", tuple(net.memory(None, 8).shape))

# %% [markdown]
# The first segment has no past. It is given one learned vector in the place of a memory, so that the layers need not
# know about beginnings.
#
# Now the attention itself. Every query asks every memory vector "how much do you concern me?" by a scaled dot product;
# a softmax makes shares of the answers; the values are mixed in these shares. In PyTorch's packed form the three
# matrices lie in one, and `chunk` gets them out:

# %%
def attend(queries, memory, wq, wk, wv):
    """(B, n, W), (B, m, W) -> mixed values (B, n, W), shares (B, n, m)."""
    q, k, v = queries @ wq.T, memory @ wk.T, memory @ wv.T
    shares = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
    return shares @ v, shares


one_head = nn.MultiheadAttention(
    settings.connector.width, 1, bias=False, batch_first=True)
mixed, shares = attend(queries[:, 5:10], memory,
                       *one_head.in_proj_weight.chunk(3))
theirs = one_head(queries[:, 5:10], memory, memory)
torch.testing.assert_close(mixed @ one_head.out_proj.weight.T, theirs[0])
torch.testing.assert_close(shares, theirs[1])
assert torch.allclose(shares.sum(-1), torch.ones(8, 5))

# %% [markdown]
# Several heads do this side by side on slices of the width; around it stand residual connections, layer norms and a
# small feed-forward net. That is a decoder layer of the original Transformer, PyTorch's `nn.TransformerDecoderLayer`,
# and such a layer also has *self*-attention, by which the queries of a segment see each other. The paper does not
# mention it. Why do we think that it is there? Because of a number. Sec. 6.2 says that the connector has 0.12 B
# parameters, and App. B gives width, depth and heads. So count:

# %% tags=["nbval-check-output"]
paper = config.load_config("a100")


def billions(**changes):
    changed = paper.override(connector=changes).connector
    with torch.device("meta"):  # shapes only, no memory
        net = MotionConnector(changed, paper.rvq, paper.backbone.hidden)
    return sum(p.numel() for p in net.parameters()) / 1e9


print(f"whole decoder layers, as PyTorch's  {billions():.3f} B")
print(f"cross-attention only                "
      f"{billions(self_attention=False):.3f} B")

# %% [markdown]
# One of the two rounds to 0.12. It is a guess from a number, and so it is a field, `self_attention`, that you can turn
# off. Where do most of these parameters sit, by the way? In the convolution: $5 \cdot 3584^2$ are 0.064 B.
#
# ## 4 · Six heads, one loss
#
# "We utilize $N_q$ layer-specific prediction heads": one linear map per level, from the query to 256 logits. All six
# look at the same vector and none looks at another's result. Eq. 5 adds their cross-entropies,
#
# $$\mathcal{L}_{\text{motion}} = -\sum_{k=1}^{N_q} \log p\big(c^k \mid \mathbf{H}, \mathbf{Y}^m_{<t}\big),$$
#
# averaged over the motion tokens that are real, not padding. By hand: take log-probabilities and pick out those of the
# true codes.

# %% tags=["nbval-check-output"]
logits = net(hidden, codes, lengths)  # (B, N, 6, 256)
real = torch.arange(codes.shape[1]) < lengths[:, None]  # (B, N)
log_p = logits[real].log_softmax(-1)  # (tokens, 6, 256)
picked = log_p.gather(-1, codes[real][..., None])[..., 0]
eq5 = -picked.mean(0).sum()
torch.testing.assert_close(eq5, motion_loss(logits, codes, lengths)["motion"])
print("logits", tuple(logits.shape), "of which real:", int(real.sum()))
blind = torch.zeros_like(logits)
ignorance = motion_loss(blind, codes, lengths)["motion"]
print(f"knowing nothing costs {ignorance:.2f} = 6 ln 256")

# %% [markdown]
# Keep that 33.27 in mind, it is where every training curve starts. Here it is for ours, which is untrained and has
# opinions nevertheless:

# %% tags=["nbval-ignore-output"]
print(f"Eq. 5, untrained: {eq5.item():.2f}")

# %% [markdown]
# ## 5 · Train it
#
# In this notebook the language model stays frozen, which is Table 6's *Adapter-Only*; in notebook 06 it learns along.
# Frozen has a practical side: $H$ of an answer never changes, so we compute it once and then train the small connector
# alone, which takes a fiftieth of the time.

# %%
from torch.nn.utils.rnn import pad_sequence

from a2lite.fit import fit, load_checkpoint, shuffled

states = []
for start in range(0, len(examples), 8):
    some = frozen.collate(examples[start : start + 8])
    rows = frozen.hidden(some.sequence)[1].half()
    states += [h[: group * n] for h, n in zip(rows, some.lengths)]

# %% [markdown]
# One trick matters, and it is easy to overlook since it is not in the paper. In training the connector sees the *true*
# previous segment, at inference its *own*. A network that leans on a perfect past stumbles when the past is its own
# work, and every stumble is the next segment's past: **exposure bias**. So the history is spoiled now and then: hidden
# altogether (`memory_dropout`), or with random codes in its deep levels (`code_replacement`). Segments of one, two and
# five tokens are drawn, so that the connector gets used to any.

# %% tags=["nbval-ignore-output"]
training = settings.training
steps = few_steps if profile == "tiny" else training.stage1_steps
pick = shuffled([len(h) for h in states], training.batch, seed)


def padded(step):
    chosen = pick(step)
    lists = [[states[i].float() for i in chosen],
             [examples[i].codes for i in chosen]]
    return *(pad_sequence(rows, True) for rows in lists), torch.tensor(
        [len(row) for row in lists[1]])


def loss(model, batch):
    terms = motion_loss(model(*batch), *batch[1:])
    return dict(terms, loss=terms["motion"])


rate = training.connector_lr
if training.lite_connector_lr is not None:
    rate = training.lite_connector_lr
trace = fit(net, loss, padded, steps=steps, lr=rate, name="connector",
            log_every=2 if profile == "tiny" else 10, seed=seed)

# %% tags=["nbval-ignore-output"]
shipped = find_artefact("a2llm.safetensors", "tiny")
meta = load_checkpoint(shipped)[1]  # its connector was trained like yours
reference = meta.get("adapter_trace", meta["trace"])
fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.8), sharey=True)
for axis, level in zip(axes, (1, 2, 6)):
    key = f"level{level}"
    axis.plot(reference["steps"][key], reference["values"][key],
              color="0.75", lw=3, label="shipped run")
    axis.plot(trace.steps[key], trace.values[key], "C2", label="yours")
    axis.axhline(5.545, color="black", lw=0.8, ls=":")
    axis.set(title=f"level {level}", xlabel="step", ylim=(0, 6))
axes[0].set_ylabel("cross-entropy")
axes[0].legend()
fig.tight_layout()

# %% [markdown]
# *Figure: cross-entropy of three of the six levels; dotted is knowing nothing, ln 256. Yours ends early at `tiny`. The
# coarse level, which says where jaw and lips are, falls deep; level 6 hardly leaves the dotted line. What it codes is
# the last fraction of a millimetre, and no voice tells that. (At `tiny` your deep levels fall as well: twelve answers
# can be learned by heart.)*
#
# ## 6 · Streaming, and what it has to do with teacher forcing
#
# At inference the connector goes segment by segment and feeds on what it has just said (Eq. 2 reads its own
# $\mathbf{Y}^m_{<t}$). That is `generate`. Is it the same network as the one that was trained all segments at once?
# There is a neat test. Show the parallel version, as "true" history, the very codes that the streaming one produced.
# Since a segment sees the one before and nothing else, it must then choose the same codes again.

# %% tags=["nbval-check-output"]
if profile == "tiny":  # your few steps make no face; take the shipped one
    model = A2LLM.load(shipped, settings, Backbone.load(
        find_artefact("backbone.safetensors", profile)), rvq)
else:
    model, frozen.connector = frozen, net
with torch.no_grad():
    _, hidden = model.hidden(batch.sequence)
    own = model.connector.generate(hidden, lengths=lengths)
    again = model.connector(hidden, own, lengths).argmax(-1)
same = (own == again)[real].float().mean()
print("the same codes again:", bool(same > 0.999))

# %% [markdown]
# ## 7 · Break it: a connector without a past
#
# Give every segment the learned memory of the first, as if the answer began anew each second. Nothing is wrong *inside*
# a segment. But at the seam the frame before and the frame after do not know of each other. To see it, look at how
# fast the face moves (the norm of the change of its 50 expression numbers), averaged over answers, by the place of the
# frame within its segment:

# %%
def speed_by_place(codes):
    """Mean speed of the expression at the 25 places of a segment."""
    moved = model.motion(codes)[..., :50].diff(dim=1).norm(dim=-1)
    moved = nn.functional.pad(moved, (1, 0))  # (B, T), 0 at first frames
    inside = torch.arange(moved.shape[1]) < group * lengths[:, None]
    inside[:, :25] = False  # the first segment has no seam before it
    place = torch.arange(moved.shape[1]) % 25
    return torch.stack([moved[inside & (place == p)].mean()
                        for p in range(25)])


forgetful = torch.cat([
    model.connector.generate(piece, lengths=(lengths - 5 * i).clamp(min=0))
    for i, piece in enumerate(hidden.split(25, dim=1))], 1)
speeds = {"the world's own face": speed_by_place(codes),
          "with history": speed_by_place(own),
          "without": speed_by_place(forgetful)}

# %% tags=["nbval-ignore-output"]
fig, axis = plt.subplots(figsize=(8, 2.8))
for (name, speed), colour in zip(speeds.items(), ("0.7", "C2", "C3")):
    axis.plot(range(25), speed, "o-", ms=3, color=colour, label=name)
axis.set(xlabel="frame of the segment; 0 stands right after the seam",
         ylabel="change per frame", ylim=(0, None))
axis.legend()
seam = {name: float(speed[0] / speed[5:].mean())
        for name, speed in speeds.items()}
print({name: round(value, 2) for name, value in seam.items()})

# %% [markdown]
# *Figure: how fast the face moves at each place of a segment. Compare the first frames: without a past (red) a segment
# starts with a jerk that neither the true face nor the connector with its memory has. The causal decoder of notebook 03
# still smooths a little, since it remembers frames of its own. The numbers are speed at the seam over speed elsewhere.*
#
# ## 8 · See the face
#
# True audio tokens, predicted motion: the sound is the world's, the face is the connector's.

# %% tags=["nbval-ignore-output"]
from a2lite.flame import Flame, load_head
from a2lite.player import Clip, show

head = load_head()
face = model.motion(own[one : one + 1, : int(lengths[one])])[0]
clip = Clip(Flame(head)(face), head.faces, head.colours,
            audio=samples[one].answer_audio, title="The connector's face",
            caption=samples[one].answer_text)
show(clip, save=f"{profile}/05_connector")

# %% [markdown]
# *Figure: the connector's face for the longest of the answers, from first frame to last; a player where scripts run.
# The mouth follows the words. Whether the expression is the right one is the subject of notebook 06.*
#
# ## 9 · Exercises
#
# **A (★).** An answer need not have a multiple of five audio tokens. One way out is to repeat the last state until it
# has. Write it without looking at `a2lite.backbone.align_tail`.

# %% tags=["exercise"]
def repeat_tail(states, group):
    """(T, d) -> (T', d), T' the next multiple of ``group``."""
    ### BEGIN SOLUTION
    missing = -len(states) % group
    return torch.cat([states, states[-1:].expand(missing, -1)])
    ### END SOLUTION

# %% tags=["check"]
from a2lite.backbone import align_tail

for count in (1, 4, 5, 7, 25, 26):
    x = torch.randn(count, 3)
    padded_x = repeat_tail(x, 5)
    assert len(padded_x) % 5 == 0, f"{count} states: no multiple of 5"
    assert len(padded_x) - count < 5, f"{count} states: more than needed"
    torch.testing.assert_close(padded_x, align_tail(x, 5, "repeat"))

# %% [markdown]
# **B (★★).** Suppose that in the true history one motion token is changed, the one at place `n` (counted from 0). With
# segments of `s` tokens, which tokens' logits may change under teacher forcing? Return the range of places as
# `(first, one past the last)`. The check asks the network.

# %% tags=["exercise"]
def touched(n, s):
    """The places that see token ``n``: (first, one past the last)."""
    ### BEGIN SOLUTION
    first = (n // s + 1) * s
    return first, first + s
    ### END SOLUTION

# %% tags=["check"]
h, c = torch.randn(1, 75, width_in), torch.zeros(1, 15, 6, dtype=torch.long)
for n, s in ((0, 5), (4, 5), (7, 5), (3, 2), (6, 1)):
    changed = c.clone()
    changed[0, n] = 9
    a, b = (net(h, x, torch.tensor([15]), s) for x in (c, changed))
    moved = (a != b).flatten(2).any(-1)[0].nonzero()[:, 0]
    seen = (int(moved.min()), int(moved.max()) + 1)
    assert touched(n, s) == seen, f"token {n}, segments of {s}: {seen}"

# %% [markdown]
# **C (★★).** How many logits would a *single* head need that names all codes of a motion token at once, and how many do
# parallel heads need? Then finish the sentence: "what parallel heads cannot say is …"

# %% tags=["exercise"]
def head_sizes(codes, levels):
    """(logits of one joint head, logits of all parallel heads)."""
    ### BEGIN SOLUTION
    return codes**levels, codes * levels
    ### END SOLUTION

# %% tags=["check"]
assert head_sizes(2, 3) == (8, 6), "two codes, three levels: 8 and 6"
joint, parallel = head_sizes(256, 6)
assert parallel == logits.shape[-2:].numel(), "as many as we have above"
print(f"{joint:.1e} against {parallel}")

# %% [markdown]
# *… "if level 1 is this code, then level 2 is that one". Each level is chosen as if the others were not there, so the
# deep levels, which correct what the coarse ones chose, correct something that they have not seen. The face gets
# livelier than it should be. Two named options answer this: `heads_kind="depth"` lets each level see those above it,
# `decode_levels` leaves the deepest ones out.*
#
# ## Paper map
#
# | paper | here | symbol | status |
# |---|---|---|---|
# | Sec. 5.2: downsampling and alignment | §2 | `a2lite.connector.MotionConnector.queries` | reproduced |
# | Sec. 5.2: history-conditioned attention | §3 | `a2lite.connector.MotionConnector.memory` | reproduced; segment of 1 s is our choice |
# | Sec. 6.2: 0.12 B parameters | §3 | `a2lite.config.ConnectorConfig.self_attention` | reproduced; whole decoder layers, inferred from the count |
# | App. B: 6 layers of 768, 12 heads | §3 | `a2lite.config.ConnectorConfig` | simplified: 3 layers of 192, 6 heads at tiny and laptop, for two CPU cores |
# | Sec. 5.2: $N_q$ heads | §4 | `a2lite.connector.MotionConnector.logits` | reproduced |
# | Eq. 5 | §4 | `a2lite.connector.motion_loss` | reproduced |
# | Eq. 2 | §6 | `a2lite.connector.MotionConnector.generate` | reproduced; greedy |
# | exposure bias | §5 | `a2lite.config.ConnectorConfig.memory_dropout` | not attempted in the paper's text (it is silent); ours |
#
# **Next:** in notebook 06 the language model learns along, and the face begins to follow the question.

# %% tags=["nbval-ignore-output"]
figures = {
    "connector, billions of parameters": (billions(), 0.12, "Sec. 6.2"),
    "motion loss at the end of training": trace.values["motion"][-1],
    "seam over elsewhere, true": seam["the world's own face"],
    "seam over elsewhere, with history": seam["with history"],
    "seam over elsewhere, without": seam["without"],
}
course.report("05_connector_attention", profile, figures)
assert abs(billions() - 0.12) < 0.005
assert trace.values["motion"][-1] < trace.values["motion"][0]
