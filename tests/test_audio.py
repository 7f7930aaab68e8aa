"""Sound in and out: what is read equals what was written; what cannot be read is named in one line."""

import numpy as np
import pytest
import soundfile
import torch

from a2lite.audio import decode_audio, encode_flac, encoder_mel, load_wav, log_mel, mel_filters, save_wav

TONE = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000) * 0.5


def test_a_wav_round_trip_is_exact_to_16_bits(tmp_path):
    save_wav(tmp_path / "tone.wav", TONE)
    torch.testing.assert_close(load_wav(tmp_path / "tone.wav"), TONE, atol=1e-4, rtol=0)


def test_flac_bytes_round_trip():
    torch.testing.assert_close(decode_audio(encode_flac(TONE)), TONE, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rate, channels, subtype", [(8000, 2, "PCM_16"), (44100, 1, "PCM_24"), (48000, 2, "FLOAT")])
def test_any_rate_depth_and_channel_count_becomes_16_khz_mono(tmp_path, rate, channels, subtype):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "x.wav", np.stack([tone] * channels, 1), rate, subtype=subtype)
    wave = load_wav(tmp_path / "x.wav")
    assert wave.shape == (16000,)
    spectrum = torch.fft.rfft(wave).abs()
    assert spectrum.argmax() == 440


def broken_files(folder):
    save_wav(folder / "whole.wav", TONE)
    content = (folder / "whole.wav").read_bytes()
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound", encoding="utf-8")
    (folder / "truncated.wav").write_bytes(content[:9000])
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan] * 4000, np.float32), 16000, subtype="FLOAT")
    save_wav(folder / "short.wav", TONE[:100])
    (folder / "folder.wav").mkdir()


@pytest.mark.parametrize("name, says", [
    ("empty", "is empty"), ("text", "cannot be read as sound"), ("truncated", "is truncated"),
    ("nan", "NaN or infinite"), ("short", "expected at least 0.1 s"), ("folder", "is a folder"),
])
def test_a_broken_file_is_named_in_one_line(tmp_path, name, says):
    broken_files(tmp_path)
    with pytest.raises(ValueError, match=says) as error:
        load_wav(tmp_path / f"{name}.wav")
    assert f"{name}.wav" in str(error.value) and "\n" not in str(error.value)


def test_bytes_and_headerless_files_are_named_in_one_line_too(tmp_path):
    save_wav(tmp_path / "x.wav", TONE)
    with pytest.raises(ValueError, match="answer: is truncated"):
        decode_audio((tmp_path / "x.wav").read_bytes()[:9000], "answer")
    (tmp_path / "x.raw").write_bytes(bytes(9000))
    with pytest.raises(ValueError, match="x.raw: cannot be read as sound"):
        load_wav(tmp_path / "x.raw")


def test_the_filter_bank_serves_training_after_inference():
    mel_filters.cache_clear()
    with torch.inference_mode():
        log_mel(TONE)
    wave = TONE.clone().requires_grad_()
    log_mel(wave).sum().backward()
    assert torch.isfinite(wave.grad).all()


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.wav: no such file"):
        load_wav("nowhere.wav")


@pytest.mark.parametrize("samples, frames", [(32000, 202), (12345, 80), (48000, 302), (400000, 2502)])
def test_encoder_mel_has_step_audios_frame_count(samples, frames):
    assert encoder_mel(torch.randn(samples), 40).shape == (frames, 40)


def test_encoder_mel_spans_eight_decades_under_its_maximum():
    mel = encoder_mel(torch.cat([TONE, torch.zeros(16000)]))
    assert mel.max() - mel.min() == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("samples", [160, 640, 3200, 16000])
def test_log_mel_has_a_frame_per_160_samples(samples):
    assert log_mel(torch.randn(2, samples)).shape == (2, samples // 160, 80)


def test_log_mel_frames_are_local():
    wave = torch.randn(16000)
    changed = wave.clone()
    changed[8000:] = 0
    torch.testing.assert_close(log_mel(wave)[:45], log_mel(changed)[:45])


def test_the_filter_bank_covers_every_band():
    assert (mel_filters(128, 400).sum(0) > 0).all()


def test_a_comment_in_the_file_does_not_make_it_truncated(tmp_path):
    save_wav(tmp_path / "x.wav", TONE)
    content = (tmp_path / "x.wav").read_bytes()
    comment = b"LIST" + (20).to_bytes(4, "little") + b"INFOICMTdata\xff\xff\xff\x0f...."
    (tmp_path / "y.wav").write_bytes(content[:12] + comment + content[12:])
    assert load_wav(tmp_path / "y.wav").shape == (16000,)
