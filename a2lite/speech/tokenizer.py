"""The speech tokenizer: waveform -> log-mel (100 Hz) -> FSQ (25 Hz), and tokens -> spectrum -> waveform.

It stands where Step-Audio 2 has its S3 tokenizer and its flow detokenizer (A2-LLM, Sec. 5.1: audio tokens at
25 Hz; Step-Audio 2 streams 25 + 3 tokens). Built in notebooks/04_audio_language_model.ipynb.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2lite.audio import HOP, log_mel, mel_filters
from a2lite.config import SpeechConfig
from a2lite.fit import fingerprint
from a2lite.rvq.model import Cache
from a2lite.speech.inversion import SpectrogramInversion
from a2lite.speech.layers import FSQ, Decoder, Encoder

FRAMES = 4  # per token
SAMPLES = FRAMES * HOP  # per token
INVERSION = 1  # tokens of look-ahead that the inversion takes: its 2 frames, and 2 of overlap
GRAIN = 1e-3  # nats, to which the stream rounds log magnitudes
FLOOR = 2.5e-4  # magnitudes below are silence; log_mel's floor as a mel band sees it


class SpeechTokenizer(nn.Module):
    """Waveform (B, samples) at 16 kHz <-> tokens (B, A) int64 in 0 .. codes - 1 at 25 Hz.

    The wave of token j is settled once token j + ``lookahead`` is known, and depends on none after that.
    """

    def __init__(self, config: SpeechConfig):
        super().__init__()
        if config.lookahead < INVERSION:
            raise ValueError(f"speech.lookahead {config.lookahead}: the inversion alone needs {INVERSION}")
        self.config = config
        self.lookahead = config.lookahead
        self.quantizer = FSQ(config.levels)
        self.codes = self.quantizer.codes
        self.encoder = Encoder(config.n_mels, config.width, len(config.levels))
        self.decoder = Decoder(len(config.levels), config.width, config.window // 2 + 1)
        self.register_buffer("mel_scale", torch.tensor([0.0, 1.0]))  # mean and deviation, set by ``train``
        self.register_buffer("spectrum_scale", torch.tensor([0.0, 1.0]))

    @property
    def identity(self) -> str:
        """Tells it from other speech tokenizers (``fit.fingerprint``)."""
        return fingerprint(next(self.encoder.parameters()))

    def log_mel(self, wave: Tensor) -> Tensor:
        """(B, samples) to (B, samples // 160, n_mels): what the encoder sees."""
        return log_mel(wave, self.config.n_mels, self.config.window, self.config.window)

    def quantise(self, wave: Tensor) -> Tensor:
        """(B, samples), a multiple of 640, to the FSQ grid (B, A, dims), with gradients."""
        mean, deviation = self.mel_scale
        x = (self.log_mel(wave) - mean) / deviation
        return self.quantizer(self.encoder(x.transpose(1, 2)).transpose(1, 2))

    def spectrum(self, grid: Tensor) -> Tensor:
        """FSQ grid (B, A, dims) to natural-log magnitudes (B, 4 A, window // 2 + 1), with gradients."""
        behind = self.lookahead - INVERSION  # tokens that the decoder hears before it speaks
        x = self.decoder(F.pad(grid, (0, 0, 0, behind)), {})
        return self.unscale(x[:, FRAMES * behind :])

    def unscale(self, x: Tensor) -> Tensor:
        mean, deviation = self.spectrum_scale
        return x * deviation + mean

    def to_mel(self, spectrum: Tensor) -> Tensor:
        """Natural-log magnitudes (..., window // 2 + 1) to the log-mel that they make, (..., n_mels)."""
        bank = mel_filters(self.config.n_mels, self.config.window).to(spectrum)
        return (spectrum.exp() @ bank).clamp(min=1e-5).log()

    @torch.inference_mode()
    def encode(self, wave: Tensor) -> Tensor:
        """(B, samples) to tokens (B, A) int64, A = samples / 640 rounded up: the end is padded with silence.

        ValueError for an empty wave, another shape, or samples that are NaN or infinite.
        """
        if wave.ndim != 2 or not wave.is_floating_point():
            shape = f"{tuple(wave.shape)} {wave.dtype}"
            raise ValueError(f"wave {shape}: expected (batch, samples), floats in [-1, 1] at 16 kHz")
        if wave.shape[1] == 0:
            raise ValueError("wave: has no samples; expected speech at 16 kHz")
        if not torch.isfinite(wave).all():
            raise ValueError("wave: holds NaN or infinite samples; expected numbers in [-1, 1]")
        return self.quantizer.indices(self.quantise(pad(wave)))

    @torch.inference_mode()
    def decode_mel(self, tokens: Tensor) -> Tensor:
        """Tokens (B, A) to log-mel (B, 4 A, n_mels) at 100 Hz."""
        return self.to_mel(self.spectrum(self.grid(tokens)))

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, A) to the wave (B, 640 A) at 16 kHz, in [-1, 1]; ValueError for an id out of range."""
        stream = self.stream()
        return torch.cat([stream.step(tokens), stream.flush()], 1)

    def stream(self) -> Stream:
        """A decoder that takes tokens as they come and speaks ``lookahead`` tokens behind."""
        return Stream(self)

    def grid(self, tokens: Tensor) -> Tensor:
        """Tokens (B, A) to the FSQ grid (B, A, dims), checked."""
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(f"tokens {tuple(tokens.shape)}: expected (batch, tokens), at least one token")
        if tokens.min() < 0 or tokens.max() >= self.codes:
            found = f"{int(tokens.min())} to {int(tokens.max())}"
            raise ValueError(f"tokens {found}: expected speech tokens 0 to {self.codes - 1}")
        return self.quantizer.grid(tokens)


class Stream:
    """Wave from tokens as they arrive; all steps and the ``flush`` together give what ``decode`` gives.

    The inversion magnifies the last bit of its input to something that can be heard, and a convolution's last
    bit changes with the length of its chunk. So the decoder runs in double precision here, and its log spectrum
    is rounded to ``GRAIN``: any chunking gives the same numbers.
    """

    def __init__(self, tokenizer: SpeechTokenizer):
        config = tokenizer.config
        self.tokenizer = tokenizer
        self.decoder = copy.deepcopy(tokenizer.decoder).double()
        self.inversion = SpectrogramInversion(config.window, rounds=config.rounds)
        self.cache: Cache = {}
        self.behind = tokenizer.lookahead - INVERSION
        self.skip = FRAMES * self.behind  # frames that the decoder speaks before it has heard enough
        self.silence: Tensor | None = None  # what follows the last token

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """The next tokens (B, n), n > 0, to what they settle: 640 n samples once the look-ahead is full."""
        grid = self.tokenizer.grid(tokens).double()
        self.silence = grid.new_zeros(len(grid), self.behind, grid.shape[-1])
        return self._run(grid)

    @torch.inference_mode()
    def flush(self) -> Tensor:
        """The rest of the wave, (B, samples), up to 640 for each token; ValueError if there was none."""
        if self.silence is None:
            raise ValueError("flush: no token was given; call step first")
        rest = [self._run(self.silence)] if self.behind else []
        return torch.cat([*rest, self.inversion.flush().clamp(-1, 1)], 1)

    def _run(self, grid: Tensor) -> Tensor:
        x = self.decoder(grid, self.cache)
        dropped = min(self.skip, x.shape[1])
        self.skip -= dropped
        spectrum = self.tokenizer.unscale(x[:, dropped:])
        magnitudes = ((spectrum / GRAIN).round() * GRAIN).exp().float()
        return self.inversion.step(magnitudes).clamp(-1, 1)


def pad(wave: Tensor) -> Tensor:
    """(B, samples) with silence at its end, up to a whole number of tokens."""
    return F.pad(wave, (0, -wave.shape[-1] % SAMPLES))


def log_spectrum(wave: Tensor, window: int = 640) -> Tensor:
    """(B, samples) to natural-log magnitudes at 100 Hz, (B, samples // 160, window // 2 + 1).

    Frame t is a Hann window centred on sample 160 t + 80, as in ``audio.log_mel``.
    """
    centred = F.pad(wave, ((window - HOP) // 2,) * 2)
    hann = torch.hann_window(window, device=wave.device)
    spectrum = torch.stft(centred, window, HOP, window, hann, center=False, return_complex=True)
    return spectrum.abs().clamp(min=FLOOR).log().transpose(1, 2)
