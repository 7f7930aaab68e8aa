"""How good the codes are: how many are in use, and what of the face survives them, with 1 to N_q levels.

Read in notebooks/03_rvq_tokenization.ipynb and by benchmarks/chain.py; the measures are those of App. C.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from a2lite.metrics import MotionMetrics, Spread, measured_vertices, motion_metrics, summarise
from a2lite.rvq.model import MotionRVQ
from a2lite.rvq.quantizer import usage


@dataclass(frozen=True)
class Quality:
    """Reconstruction of some clips from their first ``levels`` codes."""

    levels: int
    usage: list[float]  # per level of all N_q, fraction of the codebook that occurs in these clips
    perplexity: list[float]  # per level of all N_q
    error: float  # mean squared error of normalised parameters (Eq. 8)
    measures: dict[str, Spread]  # App. C over the clips, by the names of ``MotionMetrics``

    @property
    def ufd_ratio(self) -> float:
        """UFD of the reconstruction over that of the truth; 1 is right, above is jitter."""
        return self.measures["ufd"].mean / self.measures["ufd_true"].mean


def quality(
    model: MotionRVQ,
    motions: Sequence[Tensor],
    flame: Callable[..., Tensor],
    landmarks: Mapping[str, int],
    upper_face: Tensor,
    levels: int | None = None,
) -> Quality:
    """``motions``, each (T, 58), through codes and back; ``landmarks`` and ``upper_face`` are the head's."""
    model.eval()
    numbers, landmarks, upper_face = measured_vertices(landmarks, upper_face)
    neutral = flame(torch.zeros(1, model.dim), vertices=numbers, zero_pose=True)[0]
    rows: list[MotionMetrics] = []
    codes, errors = [], []
    for motion in map(torch.as_tensor, motions):
        codes.append(model.encode(motion[None])[0])
        recon = model.decode(codes[-1][None], levels)[0, : len(motion)]
        errors.append(((motion - recon) / model.std).square().mean())
        faces = (flame(m, vertices=numbers, zero_pose=True) for m in (recon, motion))
        rows.append(motion_metrics(*faces, landmarks, upper_face, neutral))
    fractions, perplexities = usage(torch.cat(codes), model.config.codes)
    error = float(torch.stack(errors).mean())
    return Quality(levels or model.config.quantizers, fractions, perplexities, error, summarise(rows))
