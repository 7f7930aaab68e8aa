"""Shares with their uncertainty: hits of n, and Wilson's interval around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist


def wilson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; stays within 0..1, also for 0 hits, n hits and small n."""
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n}: expected n >= 1 and 0 <= hits <= n")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrink = hits / n, 1 / (1 + z * z / n)
    centre = shrink * (share + z * z / (2 * n))
    half = shrink * z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Accuracy:
    """``hits`` of ``n``, printed with Wilson's 95 % interval: ``0.95 [0.92, 0.97] (304/320)``."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.hits, self.n)

    def contains(self, chance: float) -> bool:
        """Whether the interval holds ``chance``, which is what "at chance" means in this course."""
        low, high = self.interval
        return low <= chance <= high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}] ({self.hits}/{self.n})"


def accuracy(predicted: Sequence, true: Sequence) -> Accuracy:
    """How often two sequences of labels agree; ValueError for unequal lengths or none at all."""
    if len(predicted) != len(true) or len(true) == 0:
        raise ValueError(f"accuracy: {len(predicted)} predictions, {len(true)} truths; expected equal, not 0")
    return Accuracy(sum(p == t for p, t in zip(predicted, true, strict=True)), len(true))
