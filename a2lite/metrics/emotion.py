"""Which emotion a face shows: features of a clip, and a read-out that is fitted on true training motion only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from a2lite.metrics.motion import check_finite, check_vertices


def emotion_features(
    vertices: Tensor, landmarks: Mapping[str, int], upper_face: Tensor, neutral: Tensor
) -> Tensor:
    """Mean displacement over a clip of upper face and corners of the mouth, (T, V, 3) -> (3N + 6,) metres.

    The mean over time keeps what an emotion holds and loses what the words do.
    """
    check_vertices("vertices", vertices)
    corners = torch.tensor([landmarks["left_corner"], landmarks["right_corner"]])
    where = torch.cat([upper_face, corners])
    return (vertices[:, where].mean(0) - neutral[where]).flatten()  # (N + 2, 3) -> (3N + 6,)


@dataclass(frozen=True)
class EmotionReadout:
    """Which emotion a face shows: the nearest class centroid, each feature in units of its within-class sd.

    Fit it on *true training* motion, then ask it about predictions. Its accuracy on the true motion of the
    same split is the ceiling: print both. Works on the rows of any feature matrix.
    """

    labels: tuple[str, ...]
    centroids: Tensor  # (C, D), in units of scale
    scale: Tensor  # (D,)

    @classmethod
    def fit(cls, features: Tensor, labels: Sequence[str]) -> EmotionReadout:
        """``features`` (N, D), ``labels`` N names, at least two of them different."""
        _check_features(features)
        names = tuple(sorted(set(labels)))
        if len(features) != len(labels) or len(names) < 2:
            given = f"{len(features)} rows, {len(labels)} labels of {len(names)} kinds"
            raise ValueError(f"EmotionReadout: expected a label per row and at least two kinds, got {given}")
        index = torch.tensor([names.index(label) for label in labels])
        centroids = torch.stack([features[index == c].mean(0) for c in range(len(names))])  # (C, D)
        scale = (features - centroids[index]).pow(2).mean(0).sqrt()
        floor = max(1e-3 * scale.max().item(), 1e-12)  # a feature that never varies must not decide alone
        scale = scale.clamp(min=floor)
        return cls(names, centroids / scale, scale)

    def predict(self, features: Tensor) -> list[str]:
        """(N, D) -> N names."""
        _check_features(features)
        if features.shape[1] != len(self.scale):
            raise ValueError(f"features: {features.shape[1]} columns, this read-out has {len(self.scale)}")
        nearest = torch.cdist(features / self.scale, self.centroids).argmin(dim=1)  # (N, C) -> (N,)
        return [self.labels[c] for c in nearest.tolist()]


def _check_features(features: Tensor) -> None:
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"features: expected (N, D), got shape {tuple(features.shape)}")
    check_finite("features", features)
