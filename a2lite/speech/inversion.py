"""From magnitudes to sound with a bounded look-ahead: real-time iterative spectrogram inversion (RTISI-LA).

A magnitude spectrogram lacks the phases. Griffin-Lim finds them by going over the whole utterance again and
again. Zhu, Beauregard and Wyse (2007, "Real-Time Signal Estimation from Modified Short-Time Fourier
Transform Magnitude Spectra") let each frame settle while only a few frames after it are known, then freeze
it. Nothing is trained, and offline is the same walk over the frames as streaming. Built by hand in
notebooks/04_audio_language_model.ipynb.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

OVERLAP = 4  # windows over every sample: the hop is a quarter of the window
CLICK = 1e-6  # in the middle of a new frame, so that it has phases even after silence


class SpectrogramInversion:
    """The inversion of one utterance: frames go in, samples come out as soon as they are settled.

    A frame is the magnitudes of a Hann window, centred on the middle of its hop of ``window // 4`` samples
    (``speech.log_spectrum``). A frame is frozen when ``ahead`` frames after it are known; the samples of hop
    t, under the windows of frames t - 2 .. t + 2, are settled when frame ``t + 2 + ahead`` is in.
    """

    def __init__(self, window: int = 640, ahead: int = 2, rounds: int = 6, momentum: float = 0.5):
        self.hop, self.ahead, self.rounds, self.momentum = window // OVERLAP, ahead, rounds, momentum
        self.analysis = torch.hann_window(window)
        self.synthesis = self.analysis / self.analysis.square().sum() * self.hop  # overlaps add up to 1
        self.skip = self.hop * ahead + (window - self.hop) // 2  # samples before the first frame's own hop
        self.magnitudes: Tensor | None = None

    def step(self, magnitudes: Tensor) -> Tensor:
        """(B, frames, window // 2 + 1) to the samples that they settle, (B, samples); none at first."""
        if self.magnitudes is None:
            self._start(magnitudes)
        hops = [self._frame(magnitudes[:, t]) for t in range(magnitudes.shape[1])]
        wave = torch.cat([magnitudes.new_zeros(len(magnitudes), 0), *hops], 1)
        dropped = min(self.skip, wave.shape[1])
        self.skip -= dropped
        return wave[:, dropped:]

    def flush(self) -> Tensor:
        """The samples still open, as if silence followed: one hop per frame has then come out."""
        if self.magnitudes is None:
            raise ValueError("flush: no frame was given; call step first")
        silence = torch.zeros_like(self.magnitudes[:, :1]).expand(-1, self.ahead + 2, -1)
        wave = self.step(silence)
        return wave[:, : wave.shape[1] - self.hop // 2]

    def _start(self, magnitudes: Tensor) -> None:
        batch, _, bins = magnitudes.shape
        window = len(self.analysis)
        self.magnitudes = magnitudes.new_zeros(batch, self.ahead + 1, bins)  # of the frames still open
        self.frames = magnitudes.new_zeros(batch, self.ahead + 1, window)  # their sound so far
        self.frozen = magnitudes.new_zeros(batch, window + self.ahead * self.hop)  # sum of all others
        self.analysis, self.synthesis = self.analysis.to(magnitudes), self.synthesis.to(magnitudes)

    def _frame(self, magnitude: Tensor) -> Tensor:
        """Let one frame in, freeze the oldest open one, and give the hop that no later frame can reach."""
        self.magnitudes = torch.cat([self.magnitudes[:, 1:], magnitude[:, None]], 1)
        self.frames = F.pad(self.frames[:, 1:], (0, 0, 0, 1))
        self.frames[:, -1, len(self.analysis) // 2] = CLICK
        self.frozen = F.pad(self.frozen[:, self.hop :], (0, self.hop))
        before = None
        for _ in range(self.rounds):
            spectrum = self._spectrum()
            guess = spectrum if before is None else before.lerp(spectrum, 1 + self.momentum)
            before = spectrum
            self.frames = torch.fft.irfft(guess.sgn() * self.magnitudes) * self.synthesis
        self.frozen[:, : len(self.analysis)] += self.frames[:, 0]
        return self.frozen[:, : self.hop].clone()

    def _spectrum(self) -> Tensor:
        """What the open frames hear of the sound as it is so far: spectra, (B, ahead + 1, bins)."""
        wave, window = self.frozen.clone(), len(self.analysis)
        for i in range(self.ahead + 1):
            wave[:, i * self.hop : i * self.hop + window] += self.frames[:, i]
        return torch.fft.rfft(wave.unfold(1, window, self.hop) * self.analysis)


def invert(magnitudes: Tensor, **options) -> Tensor:
    """(B, frames, bins) to (B, hop * frames), offline: ``SpectrogramInversion`` over all frames at once."""
    inversion = SpectrogramInversion(2 * (magnitudes.shape[-1] - 1), **options)
    return torch.cat([inversion.step(magnitudes), inversion.flush()], 1)
