"""A judge of predicted faces: App. C's measures and the emotion read-out over many answers at once.

It is told what an emotion looks like by true training motion, and asked about predictions. Used in notebooks
06 and 07 and by benchmarks/chain.py. It knows motion and vertices, no models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from a2lite.metrics.emotion import EmotionReadout, emotion_features
from a2lite.metrics.motion import MotionMetrics, Spread, measured_vertices, motion_metrics, summarise
from a2lite.metrics.shares import Accuracy, accuracy


@dataclass(frozen=True)
class Verdict:
    """Measures by name over clips (see ``MotionMetrics``), what emotion each face shows, how often it is right."""

    measures: dict[str, Spread]
    emotion: Accuracy
    shown: list[str]
    rows: list[MotionMetrics]

    @property
    def ufd_ratio(self) -> float:
        """UFD over the truth's; 1 is right, above is noise."""
        return self.measures["ufd"].mean / self.measures["ufd_true"].mean


class Judge:
    """``flame(motion, vertices=numbers, zero_pose=True) -> (T, V, 3)``; ``motions`` (T, 58), labels to learn from."""

    def __init__(
        self, flame: Callable[..., Tensor], landmarks: Mapping[str, int], upper_face: Tensor,
        motions: Sequence[Tensor], emotions: Sequence[str],
    ):
        self.flame = flame
        self.numbers, self.landmarks, self.upper_face = measured_vertices(landmarks, upper_face)
        self.neutral = self.vertices(torch.zeros(1, 58))[0]
        self.readout = EmotionReadout.fit(torch.stack([self.features(m) for m in motions]), list(emotions))

    @torch.no_grad()
    def vertices(self, motion: Tensor) -> Tensor:
        """(T, 58) -> the zero-pose vertices that App. C looks at, (T, V, 3)."""
        return self.flame(torch.as_tensor(motion), vertices=self.numbers, zero_pose=True)

    def features(self, motion: Tensor) -> Tensor:
        return emotion_features(self.vertices(motion), self.landmarks, self.upper_face, self.neutral)

    def __call__(self, predicted: Sequence[Tensor], true: Sequence[Tensor], emotions: Sequence[str]) -> Verdict:
        """Predicted and true motion of the same answers, (T, 58) each, and their emotions.

        The longer is cut; ValueError where they differ by more than a motion token, 5 frames.
        """
        rows, seen = [], []
        for p, t in zip(predicted, true, strict=True):
            length = min(len(p), len(t))
            if max(len(p), len(t)) - length > 5:
                raise ValueError(f"{len(p)} predicted frames for {len(t)} true ones: expected faces of the same answer")
            moved = self.vertices(p[:length])
            rows.append(motion_metrics(
                moved, self.vertices(t[:length]), self.landmarks, self.upper_face, self.neutral
            ))
            seen.append(emotion_features(moved, self.landmarks, self.upper_face, self.neutral))
        shown = self.readout.predict(torch.stack(seen))
        return Verdict(summarise(rows), accuracy(shown, list(emotions)), shown, rows)
