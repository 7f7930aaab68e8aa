"""Sound in and out: wav files, FLAC bytes, and the two log-mel spectrograms of the kit.

Ground floor (used by notebooks 02, 04 and 08). Waves are mono float32 tensors (samples,) at 16 kHz in [-1, 1].
"""

from __future__ import annotations

import io
from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
import torch
from scipy.signal import resample_poly
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

RATE = 16000
HOP = 160  # 100 mel frames per second
MIN_SECONDS = 0.1
MAX_SECONDS = 300.0


def load_wav(path: str | Path) -> Tensor:
    """Read any sound file that libsndfile knows as (samples,) float32, mono, 16 kHz, in [-1, 1].

    Channels are averaged. FileNotFoundError for no file; ValueError with one line that names the file for an
    empty, truncated, non-audio, NaN, too short (< 0.1 s) or too long (> 300 s) one.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give the path of a wav or flac file")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give the path of a wav or flac file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: is empty; expected a wav or flac file with speech")
    return _decode(path, str(path))


def decode_audio(data: bytes, name: str = "audio") -> Tensor:
    """``load_wav`` for bytes of a wav or flac file; ``name`` is what an error calls them."""
    if not data:
        raise ValueError(f"{name}: is empty; expected the bytes of a wav or flac file")
    return _decode(io.BytesIO(data), name)


def _decode(source: Path | io.BytesIO, name: str) -> Tensor:
    try:
        with soundfile.SoundFile(source) as sound:
            declared, rate = sound.frames, sound.samplerate
            wave = sound.read(dtype="float32", always_2d=True)  # (samples, channels)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:  # TypeError: headerless .raw
        reason = str(error).split(":")[-1].strip().rstrip(".")
        raise ValueError(f"{name}: cannot be read as sound ({reason}); expected a wav or flac file") from None
    if len(wave) < declared or _cut_short(source):
        raise ValueError(f"{name}: is truncated, {len(wave)} samples are left; record or download it again")
    return _checked(wave.mean(1), rate, name)


def _cut_short(source: Path | io.BytesIO) -> bool:
    """A wav whose header promises more data than there is (libsndfile reads what it finds)."""
    data = source.getvalue() if isinstance(source, io.BytesIO) else source.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return False
    start, promised = 12, int.from_bytes(data[16:20], "little")
    while start < len(data) and data[start : start + 4] != b"data":  # chunk by chunk: a comment may hold the word
        start += 8 + promised + promised % 2
        promised = int.from_bytes(data[start + 4 : start + 8], "little")
    streamed = promised in (0, 0xFFFFFFFF) or promised >= 0x7FFFF000  # written to a pipe: length unknown
    return not streamed and promised > len(data) - start - 8


def _checked(wave: np.ndarray, rate: int, name: str) -> Tensor:
    seconds = len(wave) / rate
    if not np.isfinite(wave).all():
        raise ValueError(f"{name}: holds NaN or infinite samples; expected numbers in [-1, 1]")
    if seconds < MIN_SECONDS:
        raise ValueError(f"{name}: lasts {seconds:.3f} s; expected at least {MIN_SECONDS} s of speech")
    if seconds > MAX_SECONDS:
        raise ValueError(f"{name}: lasts {seconds:.0f} s; expected at most {MAX_SECONDS:.0f} s, cut it into pieces")
    return torch.from_numpy(resample(wave, rate)).clamp(-1, 1)


def resample(wave: np.ndarray, rate: int, target: int = RATE) -> np.ndarray:
    """(samples,) at ``rate`` to (samples * target / rate,) float32 at ``target`` (polyphase, anti-aliased)."""
    if rate == target:
        return np.ascontiguousarray(wave, np.float32)
    common = gcd(rate, target)
    return resample_poly(wave, target // common, rate // common).astype(np.float32)


def save_wav(path: str | Path, wave: Tensor | np.ndarray, rate: int = RATE) -> None:
    """Write (samples,) as a 16-bit wav file."""
    soundfile.write(str(path), np.asarray(wave, np.float32), rate, subtype="PCM_16", format="WAV")


def encode_flac(wave: Tensor | np.ndarray, rate: int = RATE) -> bytes:
    """(samples,) as the bytes of a 16-bit FLAC file (lossless after rounding to 16 bits)."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(wave, np.float32), rate, subtype="PCM_16", format="FLAC")
    return buffer.getvalue()


@lru_cache(maxsize=8)
def mel_filters(n_mels: int, n_fft: int, rate: int = RATE) -> Tensor:
    """Slaney mel filter bank, (n_fft // 2 + 1, n_mels), 0 Hz to rate / 2."""
    bank = mel_filter_bank(n_fft // 2 + 1, n_mels, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    with torch.inference_mode(False):  # it is kept, and training may be next
        return torch.from_numpy(bank).float()


def _power(wave: Tensor, n_fft: int, window: int) -> Tensor:
    spectrum = torch.stft(
        wave, n_fft, HOP, window, torch.hann_window(window, device=wave.device), center=True,
        pad_mode="reflect", return_complex=True,
    )
    return spectrum.abs().square().transpose(-1, -2)  # (..., frames, n_fft // 2 + 1)


def whisper_mel(wave: Tensor, n_mels: int = 128) -> Tensor:
    """Whisper's input: (samples,) -> (samples // 160, n_mels), log10 mel at 100 Hz, about [-1, 1].

    n_fft 400, centred frames, a range of 8 decades under the utterance's own maximum; at least 201 samples.
    """
    mel = _power(wave, 400, 400)[:-1] @ mel_filters(n_mels, 400).to(wave.device)
    log = mel.clamp(min=1e-10).log10()
    return (torch.maximum(log, log.max() - 8.0) + 4.0) / 4.0


def encoder_mel(wave: Tensor, n_mels: int = 128) -> Tensor:
    """Step-Audio 2's input: (samples,) -> (frames, n_mels); 2 s give 202 frames.

    Whisper's, after 479 zeros of right padding, as in Step-Audio 2's published preprocessing.
    """
    return whisper_mel(torch.nn.functional.pad(wave, (0, 479)), n_mels)


def log_mel(wave: Tensor, n_mels: int = 80, n_fft: int = 1024, window: int = 640) -> Tensor:
    """(..., samples) -> (..., samples // 160, n_mels), natural log of the mel magnitude at 100 Hz, floor 1e-5.

    Frame t is centred on sample 160 t + 80, so that n samples give exactly n // 160 frames.
    """
    centred = torch.nn.functional.pad(wave, (n_fft // 2 - HOP // 2, n_fft // 2 - HOP // 2))
    spectrum = torch.stft(
        centred, n_fft, HOP, window, torch.hann_window(window, device=wave.device), center=False,
        return_complex=True,
    )
    mel = spectrum.abs().transpose(-1, -2) @ mel_filters(n_mels, n_fft).to(wave.device)
    return mel.clamp(min=1e-5).log()[..., : wave.shape[-1] // HOP, :]
