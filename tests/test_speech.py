"""Speech tokens: FSQ against an independent one, the token rate, the stream and its look-ahead, the sound."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from vector_quantize_pytorch import FSQ as OtherFSQ

from a2lite import ROOT, audio, fit
from a2lite.config import load_config
from a2lite.flame_qa import load_samples
from a2lite.speech import (
    FSQ,
    SpectrogramInversion,
    SpeechTokenizer,
    evaluate,
    invert,
    load,
    log_spectrum,
    speech_loss,
    train,
)
from a2lite.speech.training import Crops, set_scales
from a2lite.workplace import Workplace

sys.path.insert(0, str(ROOT / "benchmarks"))
from sentences import SentenceRecogniser  # noqa: E402

NANO = load_config("laptop", size="nano").speech


def sound(samples: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """(batch, samples): a buzz with a gliding pitch under a changing filter, silent now and then; like a voice."""
    draw = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16000
    pitch = 150 + 60 * torch.rand(batch, 1, generator=draw) + 40 * torch.sin(2 * torch.pi * 1.5 * time)
    phase = 2 * torch.pi * (pitch / 16000).cumsum(1)
    harmonics = torch.arange(1, 24)[:, None, None]
    formant = 6 + 5 * torch.sin(2 * torch.pi * 2.3 * time)
    tones = torch.exp(-((harmonics - formant) ** 2) / 18) * torch.sin(harmonics * phase)
    loudness = torch.sin(2 * torch.pi * 3 * time).clamp(min=0)
    return 0.2 * loudness * tones.sum(0)


@pytest.fixture(scope="module")
def tokenizer() -> SpeechTokenizer:
    torch.manual_seed(0)
    tokenizer = SpeechTokenizer(NANO).eval()
    set_scales(tokenizer, sound(64000))
    return tokenizer


@pytest.fixture(scope="module")
def tokens(tokenizer) -> torch.Tensor:
    return torch.randint(tokenizer.codes, (2, 24), generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- finite scalar quantization


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3,) * 8, (4, 4, 4), (7, 6)])
def test_fsq_agrees_with_an_independent_implementation(levels):
    ours, other = FSQ(levels), OtherFSQ(list(levels))
    z = 3 * torch.randn(4, 50, len(levels), generator=torch.Generator().manual_seed(0))
    grid, indices = other(z)
    torch.testing.assert_close(ours(z), grid)
    assert torch.equal(ours.indices(ours(z)), indices.long())
    assert ours.codes == other.codebook_size


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3,) * 8, (4, 4, 4)])
def test_every_index_survives_the_way_to_the_grid_and_back(levels):
    fsq = FSQ(levels)
    indices = torch.arange(fsq.codes)
    grid = fsq.grid(indices)
    assert torch.equal(fsq.indices(grid), indices)
    assert len(torch.unique(grid, dim=0)) == fsq.codes
    assert grid.abs().max() <= 1


def test_every_level_can_be_reached():
    fsq = FSQ((8, 5, 5, 5))
    z = torch.linspace(-8, 8, 2001)[:, None].expand(-1, 4)
    assert [len(torch.unique(column)) for column in fsq(z).unbind(-1)] == [8, 5, 5, 5]


def test_fsq_passes_gradients_straight_through_the_rounding():
    z = torch.zeros(1, 4, requires_grad=True)
    FSQ((8, 5, 5, 5))(z).sum().backward()
    assert (z.grad > 0.5).all()


# ---------------------------------------------------------------- waveform to tokens


@pytest.mark.parametrize("samples", [1, 160, 639, 640, 641, 1280, 3200, 16000, 16001])
def test_there_is_one_token_for_every_640_samples_begun(tokenizer, samples):
    tokens = tokenizer.encode(sound(samples))
    count = -(-samples // 640)
    assert tokens.shape == (1, count) and tokens.dtype == torch.int64
    assert tokenizer.decode(tokens).shape == (1, 640 * count)
    assert tokenizer.decode_mel(tokens).shape == (1, 4 * count, NANO.n_mels)


def test_a_length_that_is_no_multiple_is_padded_with_silence(tokenizer):
    wave = sound(3000)
    padded = torch.nn.functional.pad(wave, (0, 200))
    assert torch.equal(tokenizer.encode(wave), tokenizer.encode(padded))


def test_a_token_hears_its_neighbourhood_only(tokenizer):
    """The encoder reaches 51 frames either way, so what is said a second later changes nothing."""
    wave = sound(640 * 100)
    changed = wave.clone()
    changed[:, 640 * 50 :] = sound(640 * 50, seed=5)
    same = (tokenizer.encode(wave) == tokenizer.encode(changed))[0]
    assert same[: 50 - 14].all()
    assert not same[50:].all()


def test_waves_of_a_batch_do_not_touch(tokenizer):
    waves = sound(6400, batch=3)
    alone = torch.cat([tokenizer.encode(wave[None]) for wave in waves])
    assert (tokenizer.encode(waves) == alone).float().mean() > 0.99


@pytest.mark.parametrize(
    ("wave", "complaint"),
    [
        (torch.zeros(1, 0), "has no samples"),
        (torch.full((1, 6400), torch.nan), "NaN"),
        (torch.tensor([[0.1, torch.inf]]), "infinite"),
        (torch.zeros(6400), "expected .batch, samples."),
        (torch.zeros(1, 6400, dtype=torch.int16), "expected .batch, samples."),
    ],
)
def test_an_unusable_wave_is_refused_in_one_line(tokenizer, wave, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        tokenizer.encode(wave)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- tokens to waveform


@pytest.mark.parametrize("seed", range(6))
def test_streamed_equals_offline_whatever_the_chunks(tokenizer, tokens, seed):
    offline, draw, stream, wave, at = tokenizer.decode(tokens), np.random.default_rng(seed), None, [], 0
    stream = tokenizer.stream()
    while at < tokens.shape[1]:
        size = int(draw.integers(1, 7 if seed else 2))
        wave.append(stream.step(tokens[:, at : at + size]))
        at += size
    wave.append(stream.flush())
    torch.testing.assert_close(torch.cat(wave, 1), offline, atol=1e-6, rtol=0)


def test_each_token_settles_640_samples_once_the_lookahead_is_full(tokenizer, tokens):
    stream = tokenizer.stream()
    sizes = [stream.step(token[:, None]).shape[1] for token in tokens.unbind(1)]
    assert sum(sizes[: NANO.lookahead]) < 640
    assert sum(sizes[: NANO.lookahead + 1]) >= 640
    assert set(sizes[NANO.lookahead :]) == {640}


@pytest.mark.parametrize("lookahead", [1, 2, 3, 5])
def test_the_lookahead_is_exactly_what_is_stated(lookahead):
    torch.manual_seed(0)
    tokenizer = SpeechTokenizer(replace(NANO, lookahead=lookahead)).eval()
    set_scales(tokenizer, sound(64000))
    tokens = torch.randint(tokenizer.codes, (1, 24))
    before = tokenizer.decode(tokens)[0]
    for token in (8, 13, 23):
        other = tokens.clone()
        other[0, token] = (other[0, token] + 31) % tokenizer.codes
        changed = (tokenizer.decode(other)[0] != before).nonzero()[:, 0]
        assert changed.min() // 640 == token - lookahead


def test_a_lookahead_without_room_for_the_inversion_is_refused():
    with pytest.raises(ValueError, match="lookahead"):
        SpeechTokenizer(replace(NANO, lookahead=0))


def test_tokens_out_of_range_or_missing_are_refused_in_one_line(tokenizer):
    for bad in (torch.tensor([[0, 64]]), torch.tensor([[-1, 3]]), torch.zeros(1, 0, dtype=torch.long)):
        with pytest.raises(ValueError, match="^tokens .*expected"):
            tokenizer.decode(bad)
    with pytest.raises(ValueError, match="no token was given"):
        tokenizer.stream().flush()


# ---------------------------------------------------------------- spectra and their inversion


def test_the_fine_spectrum_makes_the_mel_that_audio_makes(tokenizer):
    wave = sound(16000)
    ours = tokenizer.to_mel(log_spectrum(wave))
    torch.testing.assert_close(ours, tokenizer.log_mel(wave), atol=0.7, rtol=0)  # the floors differ
    loud = tokenizer.log_mel(wave) > -8
    torch.testing.assert_close(ours[loud], tokenizer.log_mel(wave)[loud], atol=0.02, rtol=0)


def test_inversion_finds_a_sound_with_the_wanted_magnitudes():
    wanted = log_spectrum(sound(32000)).exp()
    wave = invert(wanted)
    assert wave.shape == (1, 32000)
    error = (log_spectrum(wave).exp() - wanted).norm() / wanted.norm()
    assert 20 * torch.log10(error) < -18  # spectral convergence in dB


def test_more_rounds_bring_the_magnitudes_nearer():
    wanted = log_spectrum(sound(16000)).exp()
    error = [(log_spectrum(invert(wanted, rounds=n)).exp() - wanted).norm() for n in (1, 3, 12)]
    assert error[0] > error[1] > error[2]


def test_inversion_of_silence_is_silence():
    assert invert(torch.zeros(1, 50, 321)).abs().max() == 0


def test_inversion_in_pieces_is_inversion_at_once():
    magnitudes = log_spectrum(sound(16000, batch=2)).exp()
    inversion = SpectrogramInversion()
    pieces = [inversion.step(piece) for piece in magnitudes.split([1, 30, 7, 62], 1)]
    assert torch.equal(torch.cat([*pieces, inversion.flush()], 1), invert(magnitudes))


# ---------------------------------------------------------------- training and files


def test_crops_are_a_pure_function_of_the_step():
    waves = [sound(5000)[0].numpy(), sound(30000, seed=2)[0].numpy(), sound(700)[0].numpy()]
    crops = Crops(waves, NANO, seed=3)
    assert crops(7).shape == (NANO.batch, 640 * NANO.crop)
    assert torch.equal(crops(7), Crops(waves, NANO, seed=3)(7))
    assert not torch.equal(crops(7), crops(8))


def test_training_learns_and_its_checkpoint_gives_the_same_tokenizer(tmp_path):
    waves = [sound(16000, seed=seed)[0].numpy() for seed in range(4)]
    config = replace(NANO, steps=40, lr=3e-3)
    trained, trace = train(config, waves, tmp_path / "speech.safetensors")
    assert trace.values["loss"][-1] < 0.7 * trace.values["loss"][0]
    again = load(tmp_path / "speech.safetensors")
    tokens = trained.encode(sound(16000, seed=9))
    assert torch.equal(again.encode(sound(16000, seed=9)), tokens)
    assert torch.equal(again.decode(tokens), trained.decode(tokens))
    assert evaluate(again, waves) == evaluate(trained, waves)


def test_loss_is_finite_on_digital_silence(tokenizer):
    assert torch.isfinite(speech_loss(tokenizer, torch.zeros(1, 6400))["loss"])


def test_training_without_waves_is_refused():
    with pytest.raises(ValueError, match="none was given"):
        train(NANO, [])


def test_a_foreign_checkpoint_is_refused_by_name(tmp_path):
    path = tmp_path / "other.safetensors"
    fit.save_checkpoint(path, torch.nn.Linear(2, 2), load_config("tiny").rvq)
    with pytest.raises(ValueError, match="other.safetensors: holds no tokenizer"):
        load(path)


# ---------------------------------------------------------------- the trained tokenizer


@pytest.fixture(scope="module")
def trained() -> SpeechTokenizer:
    path = Workplace("laptop").find_artefact("speech.safetensors")
    assert path.stat().st_size < 10e6
    return load(path)


def test_the_trained_tokenizer_keeps_silence_silent(trained):
    wave = trained.decode(trained.encode(torch.zeros(1, 32000)))
    assert wave.abs().max() < 3e-3


def test_the_trained_tokenizer_keeps_a_voice_it_never_heard(trained):
    """A question in a held-out voice: what comes back has nearly its spectrum, and streams."""
    question = sorted((ROOT / "data_samples" / "questions").glob("*.wav"))[0]
    wave = audio.load_wav(question)[None]
    tokens = trained.encode(wave)
    assert evaluate(trained, [wave[0].numpy()])["mel_l1"] < 1.0
    stream = trained.stream()
    streamed = torch.cat([*(stream.step(piece) for piece in tokens.split(10, 1)), stream.flush()], 1)
    torch.testing.assert_close(streamed, trained.decode(tokens), atol=1e-4, rtol=0)


def test_an_independent_ear_understands_the_round_trip(trained):
    """pocketsphinx, told all answers of data_samples/, hears the same sentence before and after."""
    samples = [s for split in ("dev", "test_sentence", "test_avatar") for s in load_samples("tiny", split)][::2]
    ear = SentenceRecogniser(sorted({sample.answer_text for sample in samples}))
    texts = [sample.answer_text for sample in samples]
    waves = [torch.from_numpy(sample.answer_audio)[None] for sample in samples]
    again = [trained.decode(trained.encode(wave))[0].numpy() for wave in waves]
    assert sum(ear.hits([wave[0].numpy() for wave in waves], texts)) >= len(texts) - 1
    assert sum(ear.hits(again, texts)) >= len(texts) - 1


def test_the_ear_refuses_what_it_cannot_hear():
    with pytest.raises(ValueError, match="list is empty"):
        SentenceRecogniser([])
    with pytest.raises(ValueError, match="'xqzvw' is not in pocketsphinx's dictionary"):
        SentenceRecogniser(["The xqzvw."])
    assert SentenceRecogniser(["Good morning."]).recognise(np.zeros(16000)) is None
