# %% [markdown]
# # 04 · A model that hears and speaks
#
# **The paper:** A²-LLM, Sec. 3.3 and 5.1 (audio tokens at 25 Hz), Sec. 5.3 (the backbone is Step-Audio-2-mini).
#
# Before a face can move with an answer, somebody has to give the answer. In A²-LLM that is a *large audio language
# model*: it hears a question as sound and writes its reply as words and sound in one go. This notebook builds one.
#
# - **Part 1** turns speech into a row of numbers, 25 a second, and turns the numbers back into speech.
# - **Part 2** builds the language model that reads and writes them between its words.
#
# | profile | time | what runs |
# |---|---|---|
# | tiny | 25 s on one core | a few training steps beside the shipped curves; the shipped models for everything else |
# | laptop | 40 min on one core | the training of both parts, on the world that notebook 02 generated |
# | a100 | hours | the sizes of Step-Audio 2 |
#
# **You should know:** what a sample is (notebook 02), and the idea of a codebook and of a causal decoder (notebook
# 03). What a spectrum is helps; a Fourier transform is used here as a black box.

# %% tags=["parameters"]
profile = "tiny"  # tiny | laptop | a100
seed = 0  # of the training runs
shown = 1  # which test sample is looked at

# %%
import matplotlib.pyplot as plt
import torch
from IPython.display import Audio

from a2lite import audio, course, fit, speech
from a2lite.config import load_config
from a2lite.flame_qa import load_samples

config = load_config(profile)
torch.set_num_threads(1)
torch.manual_seed(seed)
sample = load_samples(profile, "test_sentence")[shown]
wave = torch.from_numpy(sample.answer_audio)[None]  # (1, samples)

# %% [markdown]
# # Part 1 · Speech in 25 numbers a second
#
# Step-Audio 2 has two networks for this. Its *S3 tokenizer* writes one number out of 6561 for every 40 ms of
# speech; its *detokenizer* (115 million parameters, and a vocoder behind it) makes speech of the numbers. Ours play
# the same roles with 2.8 million, one number out of 1000, and voices that are synthetic. In one line:
#
# ```text
# wave --> log-mel --> convolutions --> FSQ --> TOKENS --> convolutions --> spectrum --> wave
# 16 kHz   100 Hz      100 -> 25 Hz             25 Hz      25 -> 100 Hz     100 Hz       16 kHz
# ```
#
# ## 1.1 · Look and listen
#
# An answer of the synthetic world, from a sentence that no training sample says.

# %% tags=["nbval-ignore-output"]
print(sample.answer_text)

# %%
def picture(axis, spectrum, title):
    """(T, bins) on a time axis in seconds."""
    axis.imshow(spectrum.T, origin="lower", aspect="auto",
                cmap=plt.get_cmap("magma", 12), interpolation="nearest",
                extent=(0, len(spectrum) / 100, 0, spectrum.shape[1]))
    axis.set(title=title, ylabel="bin")

fig, axes = plt.subplots(2, 1, figsize=(9.5, 3.4), sharex=True,
                         layout="constrained")
shown_wave = wave[0, : 2 * 16000]
axes[0].plot(torch.arange(len(shown_wave)) / 16000, shown_wave, lw=0.4)
axes[0].set(title="wave", xlim=(0, 2))
mel = audio.log_mel(wave, 80, 640, 640)[0]
picture(axes[1], mel[:200], "log-mel, 80 bands at 100 Hz")
axes[1].set_xlabel("seconds");

# %% [markdown]
# *Figure: above, 32,000 numbers in which the eye finds syllables at best. Below, the same two seconds as a log-mel
# spectrogram: low notes at the bottom, loud ones bright. The stripes are the voice's harmonics, the bright bands
# that wander are its formants (they make the vowels), the hiss at the top is an "s".*
#
# How is it made? Cut the wave into overlapping windows of 40 ms, one every 10 ms. Take each one's spectrum, forget
# the phases, and add up neighbouring frequencies into 80 bands that are narrow below and wide above, as in the ear.
# Take the logarithm, since loudness is felt that way. In code that is shorter than in words:

# %%
hop, window = 160, 640
padded = torch.nn.functional.pad(wave, (240, 240))
frames = padded.unfold(1, window, hop)  # (1, T, 640)
magnitudes = torch.fft.rfft(frames * torch.hann_window(window)).abs()
bands = magnitudes @ audio.mel_filters(80, window)  # (1, T, 321) @ (321, 80)
by_hand = bands.clamp(min=1e-5).log()
torch.testing.assert_close(by_hand[0], mel, atol=1e-3, rtol=1e-3)

# %% [markdown]
# The encoder's convolutions make one vector of four such frames. A token then lasts 640 samples, which is 40 ms,
# which is one frame of the face: that is where the 25 Hz of the motion come from.
#
# ## 1.2 · FSQ: a codebook that nobody has to learn
#
# In notebook 03 a codebook was a list of learned vectors, and keeping its entries alive took three tricks. Speech
# tokenizers of today use something simpler, **finite scalar quantization** (Mentzer et al., 2023). The encoder's
# vector has only four numbers. Squeeze each of them between two bounds (`tanh`), and *round*. If the first may take
# 8 values and the others 5 each, there are $8 \cdot 5 \cdot 5 \cdot 5 = 1000$ possible results, and that is the
# codebook: a grid. An entry cannot die, because nobody owns it.

# %%
def round_to(z, levels):
    """z (...) -> one of ``levels`` (odd) whole numbers around 0."""
    half = (levels - 1) / 2
    return torch.round(torch.tanh(z) * half)

z = torch.linspace(-3, 3, 601)
fig, axis = plt.subplots(figsize=(9.5, 2.4))
axis.plot(z, torch.tanh(z) * 2, color="0.7", lw=3, label="squeezed")
axis.plot(z, round_to(z, 5), label="rounded: 5 levels")
axis.set(xlabel="what the encoder says", ylabel="level")
axis.legend();

# %% [markdown]
# *Figure: the staircase of one dimension with five levels. However far the encoder shouts, it ends on one of five
# steps. (An even number of levels has no step in the middle; the library moves the curve by half a step.)*
#
# The staircase is flat, so its gradient is zero; training uses the straight-through trick of notebook 03. What
# remains is bookkeeping: four small numbers have to become one token.
#
# ### Exercise 1: four digits, one number
#
# The levels are the digits of a number in a mixed system, like hours, minutes and seconds. With digits
# $d_i \in 0 \dots L_i - 1$, the first one being the smallest unit,
#
# $$k = d_1 + L_1 d_2 + L_1 L_2 d_3 + L_1 L_2 L_3 d_4 .$$

# %% tags=["exercise"]
def to_token(digits, levels):
    """digits (..., n) int64, levels n integers -> tokens (...)."""
    ### BEGIN SOLUTION
    token, unit = 0, 1
    for i, size in enumerate(levels):
        token = token + unit * digits[..., i]
        unit = unit * size
    return token
    ### END SOLUTION

# %% tags=["check"]
levels = (8, 5, 5, 5)
ends = torch.tensor([[0, 0, 0, 0], [7, 4, 4, 4], [1, 0, 0, 0], [0, 1, 0, 0]])
assert to_token(ends, levels).tolist() == [0, 999, 1, 8], (
    "0, the last token, one small unit, one unit of the second digit")
fsq = speech.FSQ(levels)
grid = fsq(torch.randn(50, 4))  # on the grid, scaled to -1 .. 1
digits = torch.round((grid + 1) * torch.tensor([4, 2, 2, 2])).long()
assert torch.equal(to_token(digits, levels), fsq.indices(grid))
print("your tokens are the library's")

# %% [markdown]
# Two things to take along: the library's `FSQ` has **no parameters**, and every one of the 1000 numbers leads back
# to its place on the grid.

# %% tags=["nbval-check-output"]
everything = torch.arange(1000)
assert torch.equal(fsq.indices(fsq.grid(everything)), everything)
print(sum(p.numel() for p in fsq.parameters()), "parameters")
print("token 777 stands at", fsq.grid(everything)[777].tolist())

# %% [markdown]
# ## 1.3 · Train it
#
# Encoder, FSQ, decoder; the target is the input. The loss compares log-mels (what the ear groups) and, more finely,
# log spectra (321 frequencies: the harmonics). No adversary and no flow matching: a synthetic voice says a thing
# the same way each time, so a plain regression has an answer to aim for. Real voices do not, and a regression
# answers them with their average; that is why Step-Audio's detokenizer is a generative model.
#
# It learns from answers, from sentences that are read aloud, and from some questions, which add other voices. The
# avatar voice that is held out is in none of them.

# %% tags=["nbval-ignore-output"]
def waves_of(split, count, what="answer_audio"):
    samples = load_samples(profile, split)
    chosen = samples.select(range(min(count, len(samples))))
    return [getattr(sample, what) for sample in chosen]

waves = (waves_of("train", 700) + waves_of("train_read", 350)
         + waves_of("train", 250, "question_audio"))
save = fit.artefact_path("speech.safetensors", profile)
_, trace = speech.train(
    config.speech, waves, None if profile == "tiny" else save, seed=seed)
path = fit.find_artefact("speech.safetensors", profile)
reference = fit.Trace(**fit.load_checkpoint(path)[1]["trace"])

# %%
fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.6), layout="constrained")
for axis, name in zip(axes, ("loss", "mel", "spectrum"), strict=True):
    axis.plot(reference.steps[name], reference.values[name], color="0.7",
              lw=3, label="checkpoint")
    axis.plot(trace.steps[name], trace.values[name], label="yours")
    axis.set(ylim=(0, None), title=name, xlabel="step")
axes[0].legend();

# %% [markdown]
# *Figure: the run behind the checkpoint that is used below (grey) and yours. At `tiny` yours is a short hook at the
# upper left: a few steps, to see the machine move.*
#
# ## 1.4 · What comes back
#
# From here on with the trained tokenizer: yours if you have run this at `laptop`, else the shipped one.

# %% tags=["nbval-check-output"]
tokenizer = speech.load(path)
tokens = tokenizer.encode(wave)
print(wave.shape[1], "samples =", wave.shape[1] // 640, "x 640")
print("tokens", tuple(tokens.shape), tokens.dtype)
print("bits a second: wave", 16000 * 16, "tokens", round(25 * 9.966))
again = tokenizer.decode(tokens)
print("back:", tuple(again.shape))

# %% tags=["nbval-ignore-output"]
Audio(data=audio.encode_flac(again[0, :22400]))

# %%
seen = tokenizer.spectrum(tokenizer.grid(tokens)).detach()
fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.8), sharey=True,
                         layout="constrained")
pictures = dict(original=speech.log_spectrum(wave), decoder=seen,
                sound=speech.log_spectrum(again))
for axis, (title, spectrum) in zip(axes, pictures.items(), strict=True):
    picture(axis, spectrum[0, 30:130, :160].clamp(min=-6), title)

# %% [markdown]
# *Figure: one second up to 4 kHz. The original, the spectrum that the decoder makes from the tokens, and the
# spectrum of the sound in the end. Formants, pauses and hisses are where they were. The fine stripes are lost higher up: 250 bits a second
# suffice for what is said and for roughly how, not for every harmonic.*
#
# How far off is it, and how much of the codebook does it take? The error is in *nats*, the unit of a natural
# logarithm: 0.5 nats is a factor of 1.6 in loudness. `dev` is spoken by voices and in sentences like those of the
# training, `test_sentence` says new sentences, and the voice of `test_avatar` was never heard.

# %%
scores = {}
for split in ("dev", "test_sentence", "test_avatar"):
    scores[split] = speech.evaluate(tokenizer, waves_of(split, 20))
    print(f"{split:14} log-mel off by {scores[split]['mel_l1']:.2f} nats,",
          f"{scores[split]['codes_used']} codes used,",
          f"perplexity {scores[split]['perplexity']:.0f}")

spoken = [tokenizer.encode(torch.from_numpy(w)[None])[0] for w in waves[:40]]
counts = torch.bincount(torch.cat(spoken), minlength=1000)
fig, axis = plt.subplots(figsize=(9.5, 2.2))
axis.bar(range(1000), counts.sort(descending=True).values, width=1)
axis.set(yscale="log", xlabel="code, by rank", ylabel="times used");

# %% [markdown]
# *Figure: how often each code occurs in forty clips. The tall one at the left is silence. Behind it the use falls
# slowly, without a cliff and without tricks: compare the dead codebook of notebook 03.*
#
# A new sentence costs little, a new voice more: the tokens were learned from a handful of voices, and what they have
# no word for is spoken as the nearest thing that they have. Does the listener still understand? An independent
# one does: a speech recogniser that has to choose among a hundred answers is right as often after the round trip as
# before (`benchmarks/speech.py`).
#
# ## 1.5 · From magnitudes to sound
#
# The decoder gives *magnitudes*. A wave also has phases, and they were thrown away in 1.1. Any phases make *some*
# sound, but the windows overlap: most choices contradict each other. The classic way out, by Griffin and Lim, goes
# back and forth: make a wave, look at its true spectrum, **keep its phases and put the wanted magnitudes back in**,
# make a wave again. Each round contradicts itself less.
#
# ### Exercise 2: keep the phases
#
# `spectrum` is complex. Return the complex spectrum with the phases of `spectrum` and the magnitudes `wanted`. What
# should happen where `spectrum` is exactly zero? Anything that is not NaN.

# %% tags=["exercise"]
def with_magnitudes(spectrum, wanted):
    """complex (..., bins), real (..., bins) -> complex (..., bins)."""
    ### BEGIN SOLUTION
    return torch.sgn(spectrum) * wanted
    ### END SOLUTION

# %% tags=["check"]
test = torch.tensor([3 + 4j, -2j, 0j])
fixed = with_magnitudes(test, torch.tensor([10.0, 1.0, 1.0]))
assert torch.isfinite(torch.view_as_real(fixed)).all(), "mind 0 / 0"
assert torch.allclose(fixed[:2], torch.tensor([6 + 8j, -1j])), (
    "same direction in the complex plane, new length")

# %% [markdown]
# Around it goes the loop. `torch.stft` and `torch.istft` do the cutting and the adding up. We measure how far the
# spectrum of the result is from the wanted one, in decibels (-20 dB: a tenth).

# %%
hann = torch.hann_window(640)
wanted = torch.stft(wave, 640, 160, 640, hann, return_complex=True).abs()

def miss(sound):
    spectrum = torch.stft(sound, 640, 160, 640, hann, return_complex=True)
    error = (spectrum.abs() - wanted).norm() / wanted.norm()
    return round(20 * torch.log10(error).item(), 1), spectrum

guess = torch.polar(wanted, 6.28 * torch.rand(wanted.shape))
for turn in range(31):
    sound = torch.istft(guess, 640, 160, 640, hann, length=wave.shape[1])
    decibel, spectrum = miss(sound)
    guess = with_magnitudes(spectrum, wanted)
    if turn in (0, 1, 3, 10, 30):
        print(f"after {turn:2} rounds: {decibel} dB")

# %% [markdown]
# It works, and it cannot be used here: every round runs over the *whole* answer, and our answer is still being
# spoken. **RTISI-LA** (Zhu, Beauregard and Wyse, 2007) does the rounds in a small sliding group instead. A new frame
# comes in, and the last three frames are iterated together. Then the oldest one is frozen, for good, and its
# samples may be played. `speech.invert` is that walk over the frames:

# %%
magnitudes = speech.log_spectrum(wave).exp()  # (1, T, 321)
for ahead in (0, 1, 2, 6):
    sound = speech.invert(magnitudes, ahead=ahead)
    print(f"{ahead} frames of look-ahead: {miss(sound)[0]} dB")

# %% [markdown]
# Each frame starts with phases that fit the sound before it, since most of its window is already filled. That is a
# far better start than random phases, so six rounds at each frame are enough. We take two frames of look-ahead.
#
# ## 1.6 · Look-ahead, stated and kept
#
# Now count how long sound waits for tokens. The inversion needs two frames more, and two because windows overlap:
# together one token. The decoder may see two tokens into the future. So the sound of token $j$ is final when token
# $j + 3$ is there, 120 ms later; Step-Audio 2 waits for three tokens as well.
#
# `tokenizer.stream()` works like the stream of the motion decoder. Here it gets the tokens of one second, ten at a
# time:

# %% tags=["nbval-check-output"]
stream = tokenizer.stream()
pieces = [stream.step(chunk) for chunk in tokens[:, :25].split(10, 1)]
print("tokens", [10, 10, 5], "-> samples", [p.shape[1] for p in pieces])
rest = stream.flush()
print("and at the end", rest.shape[1], "in all", 25 * 640)
streamed = torch.cat([*pieces, rest], 1)
offline = tokenizer.decode(tokens[:, :25])
print("equals offline:", torch.allclose(streamed, offline, atol=1e-4))

# %% [markdown]
# That last line was harder to get than it looks. Phases where the spectrum is nearly zero hang by a thread. Change
# the magnitudes in their seventh digit, as a convolution does when it is computed in chunks of another length:

# %%
nudged = magnitudes * (1 + 1e-7 * torch.randn_like(magnitudes))
before, after = speech.invert(magnitudes), speech.invert(nudged)
print(f"the wave moves by up to {(after - before).abs().max():.0e},",
      f"its spectrum misses by {miss(before)[0]} and {miss(after)[0]} dB")

# %% [markdown]
# A grain of noise becomes a difference as large as the sound itself. Both sounds are equally good, but they are not
# the *same*, and a test that streamed equals offline would fail. So the stream computes its decoder in
# double precision and rounds to a thousandth of a nat, where no chunking can reach.
#
# ## 1.7 · Break it
#
# Two cuts. First, coarser levels: push every digit of the trained tokenizer to -1, 0 or 1, which leaves 81 codes.
# Second, no look-ahead: let the decoder finish each token without having seen the next ones.

# %%
def off_by(grid_or_spectrum):
    spectrum = grid_or_spectrum
    if spectrum.shape[-1] == 4:
        spectrum = tokenizer.spectrum(spectrum).detach()
    return (tokenizer.to_mel(spectrum)[0] - mel).abs().mean().item()

grid = tokenizer.grid(tokens)
blind = [tokenizer.spectrum(grid[:, :j + 1])[:, -4:].detach()
         for j in range(tokens.shape[1])]
print(f"as trained       {off_by(grid):.2f} nats")
print(f"81 codes         {off_by(grid.round()):.2f} nats")
print(f"no look-ahead    {off_by(torch.cat(blind, 1)):.2f} nats")

# %% [markdown]
# Both hurt, and for different reasons. A coarse grid has no words for fine differences: the decoder is told less. A
# blind decoder has been told everything, too late: a token is made from the sound around it, and the next tokens
# say how this one ends. Eighty milliseconds of patience buy that back.
#
# So speech is a row of integers now, and the row can be turned into sound while it is being written. Who writes it?

# %% [markdown]
# # Part 2 · One sequence for words and sound
#
# **The paper:** A²-LLM, Sec. 3.3 (*"the LALM backbone autoregressively generates interleaved text and audio
# tokens"*) and Sec. 5.3 (the backbone is Step-Audio-2-mini).
#
# Speech is a row of numbers now, 25 a second, and text has been a row of numbers for years. So nothing keeps one
# language model from writing both, and one does: Step-Audio-2-mini hears a question as it was spoken, and
# answers with text and sound in turns, in a single sequence. A²-LLM leaves that model almost as it is and reads
# its **hidden states H** while it speaks. That is all the face will ever be told.
#
# You will build the sequence, the ears, the cache and the pretraining; the network in the middle is a plain
# `Qwen2ForCausalLM`. The real one has 8.3 billion parameters, ours six million, in the same shape and with
# the same names.

# %%
from a2lite import backbone
from a2lite.backbone import Backbone, Dialogue
from a2lite.backbone.tasks import converse, listen, prepare, silence

path = fit.find_artefact("backbone.safetensors", profile)
model = Backbone.load(path)
v = model.vocabulary
small = model.config
questions = load_samples(profile, "dev")
items = prepare(questions.select(range(4)), tokenizer, small)

# %% [markdown]
# ## 2.1 · Three kinds of tokens, one list of ids
#
# The vocabulary holds pieces of words (byte pair encoding: frequent words whole, rare ones in pieces, and since
# it falls back to single bytes, any text at all), then the control tokens under their real names, then one
# token for every code of the speech tokenizer and one more that only pads.

# %% tags=["nbval-check-output"]
print(v.decode(v.encode("請 and naïve come back whole")))
names = ["<|EOT|>", "<|BOT|>", "<audio_patch>", "<tts_start>", "<tts_pad>"]
first = v.encode("".join(names))
print([token - v.texts for token in first], "after the last text token")
print(v.encode("<audio_0>")[0] == v.audio0, v.audio_pad - v.audio0, "codes")

# %% [markdown]
# ## 2.2 · TA4: one word, four sounds
#
# Text runs ahead of speech: saying *"violin"* takes half a second, writing it one token. If the model wrote the
# whole text first you would wait for the sound; if it wrote the sound first it would have to improvise. So
# Step-Audio takes turns: **1 text token, 4 audio tokens**, and again. Where the text is over, `<tts_pad>` fills
# its slot; where the sound is over, `<audio_K>` does. Here it is by hand.

# %%
def interleave_by_hand(text, codes):
    groups = max(-(-len(codes) // 4), len(text))
    text = text + [v.tts_pad] * (groups - len(text))
    audio = [v.audio0 + code for code in codes]
    audio += [v.audio_pad] * (4 * groups - len(audio))
    turn = [v.tts_start]
    for i in range(groups):
        turn += [text[i]] + audio[4 * i:4 * i + 4]
    return turn + [v.tts_end]

# %% [markdown]
# An answer of the synthetic world, group by group. Count how early the text is through: the model knows
# what it is going to say long before it has said it. That look-ahead is in H too.

# %% tags=["nbval-ignore-output"]
said = items[0].last
ids = interleave_by_hand(v.encode(said.answer), said.codes.tolist())
assert ids == v.interleave(v.encode(said.answer), said.codes)
for i in range(1, 46, 5):
    text, *four = [v.decode([token]) for token in ids[i:i + 5]]
    print(f"{text!r:14}", *four)
print(f"... {len(ids)} positions for {len(said.codes) / 25:.1f} s")

# %% [markdown]
# 25 audio tokens and 6.25 text slots make 31.25 positions for every second of speech, so a network that speaks
# in real time has 32 ms for each of them. Is a text slot in four enough for the words?

# %%
rate = [25 * len(v.encode(i.last.answer)) / len(i.last.codes) for i in items]
print("text tokens per second:", [round(r, 1) for r in rate], "room for 6.25")
assert max(rate) <= 6.25

# %% [markdown]
# ## 2.3 · The prompt
#
# A conversation is one long string with control tokens between the turns. What was heard stands between
# `<audio_start>` and `<audio_end>` as a row of `<audio_patch>`, empty seats which the ears will fill. The last
# token is `<tts_start>`, and from there on it is the model's turn.

# %% tags=["nbval-check-output"]
asked_now = fit.ROOT / "data_samples/questions/happy_violin_plan.wav"
mels = listen(audio.load_wav(asked_now)[:32000], small)  # two seconds
by_hand = ("<|BOT|>system\nYou are a helpful assistant.<|EOT|>"
           "<|BOT|>human\n<audio_start>" + "<audio_patch>" * 25
           + "<audio_end><|EOT|><|BOT|>assistant\n<tts_start>")
dialogue = Dialogue(v, small.system["AQAA"]).hear(*mels).open()
assert dialogue.ids == v.encode(by_hand)
row = "<audio_patch>" * 25
print(v.decode(dialogue.ids).replace(row, " 25 x <audio_patch> "))

# %% [markdown]
# In a second turn the first one is simply still there, with every audio token that was said:
# `dialogue.hear(...).say(...).hear(...).open()`. And other system texts make other tasks of the same model.
# Sec. 4 trains four, so that the avatar does not forget how to listen.

# %%
for task, text in small.system.items():
    example = converse(task, items[0], v, small)
    heard = sum(token == v.audio_patch for token in example.ids)
    learnt = sum(label != backbone.IGNORE for label in example.labels)
    print(f"{task:7} hears {heard:3}, learns {learnt:3} tokens: {text}")

# %% [markdown]
# ## 2.4 · The ears
#
# Why 25 patches for two seconds? Follow the rates: the mel has 100 frames a second; `conv2` strides by two, and
# the transformer blocks see 50; a pooling leaves 25, the adapter's convolution 12.5. The adapter ends in the
# width of the language model, so that its vectors can sit down where embeddings sit.

# %% tags=["nbval-check-output"]
mel = mels[0]
x = model.encoder(mel[None], torch.tensor([len(mel)]))
print("mel", tuple(mel.shape), "at 100 Hz")
print("encoder", tuple(x.shape), "at 25 Hz")
print("adapter", tuple(model.adapter(x).shape), "at 12.5 Hz")
print("patches in the prompt:", int(backbone.patch_count(len(mel))))
heard = model.hear(mel[None], torch.tensor([len(mel)]))

# %% [markdown]
# Seating them is one line of PyTorch: look up all embeddings, then overwrite those of `<audio_patch>`.

# %%
batch = backbone.collate([dialogue])
table = model.lm.get_input_embeddings()
seats = (batch.ids == v.audio_patch)[:, :, None]
seated = table(batch.ids).masked_scatter(seats, heard)
torch.testing.assert_close(seated, model.embed(batch))

for name, part in model.named_children():
    count = sum(p.numel() for p in part.parameters())
    print(f"{name:8} {count / 1e6:5.2f} M parameters")

# %% [markdown]
# ## 2.5 · A forward pass, and what H is
#
# Now the whole dialogue, question and answer, goes through in one pass. At every position come out logits (what
# comes next?) and a hidden state. The **H** of Eq. 2 are the states of the audio tokens only: one for each 40 ms
# of sound, none for text slots and pads.
#
# Which position belongs to audio token $t$? The paper does not say. There are two readings: the state **at** the
# token, which has already seen it, and the state **before** it, which has just predicted it. We read *at* unless
# told otherwise, because it knows the sound which it belongs to; the price is that the last token of an answer
# must go through the network as well. It is one field of the configuration, `backbone.hidden_state`.

# %%
whole = backbone.collate([converse("AQAA", items[0], v, small)])
with torch.no_grad():
    logits, hidden = model(whole)
places = v.is_code(whole.labels)[0].nonzero()[:, 0]
at, before = hidden[0, places], hidden[0, places - 1]
(H,) = model.audio_hidden(whole, hidden)
torch.testing.assert_close(H, at)
print("states", tuple(hidden.shape), "-> H", tuple(H.shape))

# %%
kinds = [v.kind(t) for t in whole.ids[0].tolist()]
colour = {"text": "#4878a8", "code": "#d98032", "audio_patch": "#6aa56a"}
fig, axis = plt.subplots(figsize=(9, 1.5))
axis.bar(range(len(kinds)), 1, 1, color=[colour.get(k, "0.8") for k in kinds])
axis.plot(places, [1.15] * len(places), ".", ms=3, color="#b03030")
axis.set(yticks=[], xlabel="position", xlim=(-1, len(kinds)), ylim=(0, 1.3));

# %% [markdown]
# *Figure: one dialogue, this one of two turns. Green is the question that was heard, blue is text, orange is sound, grey are control
# tokens and pads. The red dots are the positions of the last answer whose state becomes H. See how the blue stripes of the answer
# give out long before the orange does: from there on the sound only works off what the text has decided.*
#
# An answer is rarely a multiple of five audio tokens long, but a motion token stands for five of them. We repeat
# the last state (`tail="repeat"`), so that the face moves as long as the voice; `"drop"` is the other way out.

# %% tags=["nbval-check-output"]
for length in (10, 11, 14):
    kept = [len(backbone.align_tail(torch.zeros(length, 1), 5, tail))
            for tail in ("repeat", "drop")]
    print(length, "audio tokens ->", kept, "states (repeat, drop)")

# %% [markdown]
# ## 2.6 · Token by token: the KV cache
#
# Speaking means asking for the next token a hundred times. Running the whole sequence every time would cost a
# hundred full passes; keeping the keys and values of all earlier positions makes each step one position wide.
# It is the same arithmetic, and it had better be: H is *read* in generation and was *learned* in full passes.

# %%
lm, embedded = model.lm, model.embed(whole)
cut = len(dialogue.ids)
with torch.no_grad():
    out = lm(inputs_embeds=embedded[:, :cut], use_cache=True)
    states = []
    for i in range(cut, embedded.shape[1]):
        out = lm(inputs_embeds=embedded[:, i:i + 1], use_cache=True,
                 past_key_values=out.past_key_values,
                 output_hidden_states=True)
        states.append(out.hidden_states[-1][0, 0])
gap = (torch.stack(states) - hidden[0, cut:]).abs().max()
print(f"cached against full: {gap:.0e}")
assert gap < 1e-3

# %% [markdown]
# ## 2.7 · Every slot has its grammar
#
# A language model picks whatever is likeliest, and nothing in the network knows that a text slot is no place for
# a sound. Rather than hope, we mask: each state of a small machine allows some kinds of token and no others.
# These are all its states, and this is what happens to a model that has learned nothing at all.

# %% tags=["nbval-check-output"]
for state, allowed in backbone.SLOTS.items():
    print(f"{state:20} {', '.join(allowed)}")

# %%
torch.manual_seed(seed)
newborn = Backbone(small, v).eval()
(babble,) = backbone.answer(newborn, [dialogue], limit=60)
text, codes = v.deinterleave(babble.ids)
print(len(text), "text tokens,", len(codes), "codes, ended:", babble.ended)
assert codes == babble.codes.tolist()

# %% [markdown]
# Nonsense, but well-formed nonsense: it can be decoded, and the limit of 60 tokens cut it short without losing
# what was said. The library yields the tokens as they come (`backbone.generate`), each with its H, which is what
# notebook 08 streams. Greedy choice is `temperature=0`; the real model speaks at 0.7.
#
# ## 2.8 · Ask it something
#
# Now the trained one. A question in a voice that it has never met goes in as sound; text and sound come out.

# %% tags=["nbval-ignore-output"]
import time

prompt = converse("AQAA", items[1], v, small, answered=False)
started = time.perf_counter()
(reply,) = backbone.answer(model, [prompt])
took = time.perf_counter() - started
print("asked:   ", items[1].last.question)
print("answered:", reply.text)
print(f"{len(reply.codes) / 25:.1f} s of speech in {took:.2f} s")

# %% tags=["nbval-ignore-output"]
sound = tokenizer.decode(reply.codes[None])[0]
Audio(data=audio.encode_flac(sound[:16000]))

# %% [markdown]
# ## 2.9 · How it learned: one thing at a time
#
# Start with everything random, show it questions and answers, and wait: you would wait long. The answers' shape
# is learned in minutes, the link from *this* question to *this* answer not at all, because at first the ears
# deliver noise and the cheapest thing to do with noise is to ignore it. The real model did not begin that way
# either. It was a text model first (Qwen2.5); an adapter was trained on speech recognition; then it learned to
# speak. Ours takes four steps:
#
# 1. **Text.** The language model answers written questions, spelled out on the seats where patches will sit.
# 2. **Voice.** The same questions, answered aloud in TA4. No encoder yet, so this is cheap.
# 3. **Ears.** Encoder and adapter learn by CTC which word is being said, *with the language model's own
#    embeddings as the output layer*. A patch in which "violin" is heard then points where the token "violin"
#    points, and the language model understands it before it has ever met a sound.
# 4. **Speech.** Spoken questions, spoken answers, 15 % speech recognition, a little repeating and reading.
#
# Text tokens weigh four times as much as sounds, which outnumber them seven to one.

# %% tags=["nbval-ignore-output"]
import tempfile
from pathlib import Path

from a2lite.backbone.pretraining import pretrain

own = fit.artefact_path("backbone.safetensors", profile)
if profile == "tiny":  # a handful of steps, to see it start
    own = Path(tempfile.mkdtemp()) / "backbone.safetensors"
if not own.exists():
    splits = ("train", "train_read")
    train = items if profile == "tiny" else prepare(
        [s for split in splits for s in load_samples(profile, split)],
        tokenizer, config.backbone)
    pretrain(config.backbone, train, own, dev=items, seed=seed)

# %%
def curves(traces, style, axes):
    for axis, step in zip(axes, ("text", "voice", "ears", "speech")):
        figure = "errors" if step == "ears" else "exact"
        trace = traces[step]
        axis.plot(trace["steps"][figure], trace["values"][figure], style)
        axis.set(title=step, xlabel="step", ylim=(0, 1.05), ylabel=figure)

shipped = fit.load_checkpoint(path)[1]["traces"]
fig, axes = plt.subplots(1, 4, figsize=(9, 1.9))
curves(shipped, "-", axes)
curves(fit.load_checkpoint(own)[1]["traces"], "o:", axes)
fig.tight_layout()

# %% [markdown]
# *Figure: the four steps, measured on questions of the dev split: the share of answers whose text is right from
# the first token to the last, and for the ears the errors per token in what is read from the sound. Lines are
# the shipped run, dots your own (at `tiny` they have barely begun). Watch the left curve: nothing, for a long
# time, and then everything at once. That is the moment in which the model finds out that the answer's topic
# stands in the question.*
#
# ## 2.10 · Break it: no question, no order
#
# How much of a right answer is hearing, and how much is knowing how this small world usually answers? Take the
# question away: the same prompt with 25 patches that all hold the same. Nothing is left but the most usual answer.
# Below, both ways, on questions in voices, words and combinations that training never had.

# %%
splits = ("test_voice", "test_paraphrase", "test_combination")
few = 4 if profile == "tiny" else 40
asked = [item for split in splits for item in prepare(
    load_samples(profile, split).select(range(few)), tokenizer, small)]
prompts = [converse("AQAA", i, v, small, answered=False) for i in asked]
replies = backbone.answer(model, prompts)
(deaf,) = backbone.answer(model, [silence(v, small).open()])

# %% tags=["nbval-ignore-output"]
wanted = [item.last.answer for item in asked]
right = [reply.text == text for reply, text in zip(replies, wanted)]
guessed = [deaf.text == text for text in wanted]
print(f"hearing: {sum(right)} of {len(right)} answers are right word for word")
print(f"deaf:    {sum(guessed)} of {len(right)}, always {deaf.text!r}")
print("cut short by the limit:", sum(not reply.ended for reply in replies))
for reply, text in zip(replies, wanted):
    if reply.text != text:
        print(f"  wanted {text!r}\n  said   {reply.text!r}")

# %% [markdown]
# And the order? Here is a run of ours that left out the second step. Its ears misread one token
# in four, its text model answered 98 % of the written questions; but the first sound it ever had to say came together with the first sound
# it ever heard. The 1001 new audio tokens and the new places of the words shook the language model so much
# that it forgot how to look into the question, and five hundred steps did not bring that back.

# %%
import json

broken = json.loads(Path("drafts/04_without_voice_step.json").read_text())
fig, axes = plt.subplots(1, 2, figsize=(7, 2))
for trace, label in ((shipped["speech"], "four steps"),
                     (broken["speech"], "without voice")):
    steps, values = trace["steps"], trace["values"]
    axes[0].plot(steps["audio"], values["audio"], label=label, lw=0.8)
    axes[1].plot(steps["exact"], values["exact"], ".-", label=label)
axes[0].set(title="loss on audio tokens", xlabel="step of speech")
axes[1].set(title="answers right", ylim=(0, 1.05), xlabel="step of speech")
axes[1].legend()
fig.tight_layout()

# %% [markdown]
# *Figure: the last step, after the other three (blue) and after two of them (orange). Left, both learn to make
# sound (zeros are batches of speech recognition, which has none); right, only one of them answers. A curve of
# token accuracy would have fooled you: a wrong topic is one wrong token in fifteen. Look at whole answers.*
#
# ## Exercise 2.1 · Take it apart
#
# Write the way back: from the ids of an answer to its text ids and its codes. Drop both kinds of pads and the two
# ends. It must also work on an answer that the limit cut short, so do not count on finding `<tts_end>`.

# %% tags=["exercise"]
def take_apart(ids):
    """Ids of a TA4 answer -> (text ids, audio codes 0..K-1)."""
    ### BEGIN SOLUTION
    text = [token for token in ids if token < v.texts]
    codes = [token - v.audio0 for token in ids
             if v.audio0 <= token < v.audio_pad]
    return text, codes
    ### END SOLUTION

# %% tags=["check"]
for reply in replies[:3]:
    text, codes = take_apart(reply.ids)
    assert codes == reply.codes.tolist(), "codes count from <audio_0> on"
    assert v.decode(text) == reply.text, "pads and ends are not text"
    assert take_apart(reply.ids[:9]) == v.deinterleave(reply.ids[:9]), \
        "an answer may be cut short"
assert take_apart(v.interleave([5], [0])) == ([5], [0])
print("whole answers and cut ones: right")

# %% [markdown]
# ## Exercise 2.2 · The other reading of H
#
# Take the states *before* the audio tokens: for each code of the answer, the state that predicted it. Careful with
# the first one: what stands before it?

# %% tags=["exercise"]
def states_before(hidden, labels):
    """hidden (L, d), labels (L,) -> (A, d), one per audio code."""
    ### BEGIN SOLUTION
    places = v.is_code(labels).nonzero()[:, 0]
    return hidden[places - 1]
    ### END SOLUTION

# %% tags=["check"]
from dataclasses import replace

other = Backbone(replace(small, hidden_state="before"), v)
(expected,) = other.audio_hidden(whole, hidden)
mine = states_before(hidden[0], whole.labels[0])
assert mine.shape == expected.shape, "one state for every code"
assert mine.equal(expected), "the state one position earlier"
print("the first one stands on a", v.kind(int(whole.ids[0, places[0] - 1])))

# %% [markdown]
# ## Paper map
#
# | paper | here | symbol | status |
# |---|---|---|---|
# | Sec. 5.1, audio tokens at 25 Hz (S3 tokenizer of Step-Audio 2) | 1.2-1.4 | `a2lite.speech.SpeechTokenizer` | simplified: 1000 codes instead of 6561, 2.8 M parameters, synthetic voices |
# | FSQ, inside Step-Audio 2's tokenizer | 1.2 | `a2lite.speech.FSQ` | reproduced |
# | detokenizer of Step-Audio 2: flow matching and HiFT, 25 + 3 tokens | 1.5-1.6 | `a2lite.speech.Stream` | simplified: regression and spectrogram inversion; the look-ahead of 3 tokens is kept |
# | Sec. 3.3, interleaved text and audio | 2.2 | `a2lite.backbone.Vocabulary.interleave` | reproduced: TA4 of Step-Audio 2 |
# | Sec. 3.3, hidden states H of Eq. 2 | 2.5 | `a2lite.backbone.Backbone.audio_hidden` | reproduced; the paper leaves the position open, both readings are there |
# | Sec. 5.3, Step-Audio-2-mini | 2.4, 2.5 | `a2lite.backbone.Backbone` | simplified: the same modules at 6 M parameters instead of 8.3 B |
# | Sec. 5.4, L_seq of Eq. 6 | 2.9 | `a2lite.backbone.Backbone.sequence_loss` | reproduced; text weighs 4 at the small sizes only |
# | Sec. 4, AQAA, Repeat, TTS, ASR | 2.3 | `a2lite.backbone.tasks.converse` | reproduced; the prompts of Repeat and TTS are ours |
# | Sec. 6.1, token by token | 2.6, 2.7 | `a2lite.backbone.stream` | simplified: KV cache, no graph compilation |
# | pretraining of the backbone | 2.9 | `a2lite.backbone.pretraining.pretrain` | simplified: four steps on a synthetic world; the paper starts from published weights |

# %%
figures = {
    "speech tokenizer: log-mel L1 on new sentences, nats":
        scores["test_sentence"]["mel_l1"],
    "answers right, three held-out axes": sum(right) / len(right),
    "answers right without the question": sum(guessed) / len(right),
    "text tokens per second": sum(rate) / len(rate),
    "seconds to say one second": took / (len(reply.codes) / 25),
}
course.report("04_audio_language_model", profile, figures)
assert scores["test_sentence"]["mel_l1"] < 0.7
assert all(reply.ended for reply in replies)
assert sum(right) > len(right) / 2 > sum(guessed)
