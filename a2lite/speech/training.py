"""Training the speech tokenizer, scoring its round trip, and reading it back.

Run in notebooks/04_audio_language_model.ipynb. The loss is a regression of the spectrum, without adversary
or flow matching: the synthetic voices are deterministic (Step-Audio 2 has a flow of 115 M for real ones).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from a2lite.config import SpeechConfig
from a2lite.fit import Trace, fit, load_checkpoint, save_checkpoint
from a2lite.speech.tokenizer import SAMPLES, SpeechTokenizer, log_spectrum, pad

Wave = np.ndarray  # (samples,) float32 at 16 kHz


def speech_loss(tokenizer: SpeechTokenizer, wave: Tensor) -> dict[str, Tensor]:
    """L1 + 0.5 MSE of the log-mel and L1 of the log spectrum, each in units of its own deviation."""
    spectrum = tokenizer.spectrum(tokenizer.quantise(wave))
    mel = (tokenizer.to_mel(spectrum) - tokenizer.log_mel(wave)) / tokenizer.mel_scale[1]
    fine = (spectrum - log_spectrum(wave, tokenizer.config.window)) / tokenizer.spectrum_scale[1]
    terms = dict(mel=mel.abs().mean(), mel_square=mel.square().mean(), spectrum=fine.abs().mean())
    return dict(loss=terms["mel"] + 0.5 * terms["mel_square"] + terms["spectrum"], **terms)


class Crops:
    """Random crops of some waves: ``crops(step)`` -> (batch, 640 crop), a pure function of the step.

    A wave is drawn by its length, with a quarter of a crop of silence before and after it.
    """

    def __init__(self, waves: Sequence[Wave], config: SpeechConfig, seed: int = 0):
        self.length, self.batch, self.seed = SAMPLES * config.crop, config.batch, seed
        self.waves = waves
        lengths = np.array([len(wave) for wave in waves], float)
        self.chances = lengths / lengths.sum()

    def __call__(self, step: int) -> Tensor:
        draw = np.random.default_rng((self.seed, step))
        chosen = draw.choice(len(self.waves), self.batch, p=self.chances)
        return torch.from_numpy(np.stack([self._crop(self.waves[index], draw) for index in chosen]))

    def _crop(self, wave: Wave, draw: np.random.Generator) -> Wave:
        margin = self.length // 4
        padded = np.pad(wave, (margin, max(margin, self.length - len(wave) - margin)))
        start = draw.integers(len(padded) - self.length + 1)
        return padded[start : start + self.length].astype(np.float32)


def train(
    config: SpeechConfig,
    waves: Sequence[Wave],
    path: Path | None = None,
    *,
    evaluate: Callable[[SpeechTokenizer], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    seed: int = 0,
) -> tuple[SpeechTokenizer, Trace]:
    """Train on ``waves``, each (samples,) at 16 kHz.

    With ``path`` the checkpoint is written, and returned as read back.
    """
    if len(waves) == 0:
        raise ValueError("waves: none was given; expected a list of (samples,) arrays at 16 kHz")
    torch.manual_seed(seed)
    tokenizer, crops = SpeechTokenizer(config), Crops(waves, config, seed)
    set_scales(tokenizer, torch.cat([crops(step) for step in range(8)]))
    trace = fit(
        tokenizer,
        speech_loss,
        crops,
        steps=config.steps,
        lr=config.lr,
        name="speech tokenizer",
        path=path,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        seed=seed,
        settings=dict(asdict(config), waves=len(waves), samples=sum(map(len, waves))),
    )
    if path is None:
        return tokenizer, trace
    save_checkpoint(path, tokenizer, config, trace=trace)
    return load(path), trace


def set_scales(tokenizer: SpeechTokenizer, wave: Tensor) -> None:
    """Mean and deviation of log-mel and log spectrum, from some speech (B, samples)."""
    mel, spectrum = tokenizer.log_mel(wave), log_spectrum(wave, tokenizer.config.window)
    tokenizer.mel_scale.copy_(torch.stack([mel.mean(), mel.std()]))
    tokenizer.spectrum_scale.copy_(torch.stack([spectrum.mean(), spectrum.std()]))


def load(path: str | Path) -> SpeechTokenizer:
    """The tokenizer of a checkpoint, in eval mode; ValueError or FileNotFoundError names the file."""
    state, meta = load_checkpoint(path)
    try:
        config = {**meta["config"], "levels": tuple(meta["config"]["levels"])}
        tokenizer = SpeechTokenizer(SpeechConfig(**config))
        tokenizer.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: holds no tokenizer ({reason}); expected speech.safetensors") from None
    return tokenizer.eval()


@torch.inference_mode()
def evaluate(tokenizer: SpeechTokenizer, waves: Sequence[Wave]) -> dict[str, float]:
    """The round trip of ``waves``: L1 of the log-mel in nats, codes used, and the perplexity of their use."""
    errors, counts = [], torch.zeros(tokenizer.codes)
    for wave in waves:
        wave = torch.as_tensor(wave)[None]
        tokens = tokenizer.encode(wave)
        error = tokenizer.decode_mel(tokens) - tokenizer.log_mel(pad(wave))
        errors.append(error.abs().mean().item())
        counts += torch.bincount(tokens.flatten(), minlength=tokenizer.codes)
    share = counts[counts > 0] / counts.sum()
    perplexity = math.exp(-(share * share.log()).sum())
    return dict(mel_l1=float(np.mean(errors)), codes_used=len(share), perplexity=perplexity)
