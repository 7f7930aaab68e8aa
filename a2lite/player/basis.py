"""A moving mesh as few numbers: a rigid motion a frame, and a low-rank basis for what is left.

A head that turns moves every vertex along an arc, which no few directions span; so each frame's rotation
and translation are taken out first (Kabsch 1976). What remains, lips, lids and brows, lies close to a space
of ten to thirty dimensions: PCA through the T x T Gram matrix, since frames are fewer than coordinates.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

TOLERANCE = 2e-4  # metres, by which a vertex may be off
STEP = 1.5e-5  # metres, to which a direction at its strongest is rounded: smaller numbers pack better


@dataclass
class Basis:
    """frames = (mean + sum_k weights_k * scale_k * directions_k) @ rotation^T + shift, in metres."""

    mean: np.ndarray  # (V, 3) float32
    directions: np.ndarray  # (K, V, 3) int16
    scales: np.ndarray  # (K,) float32
    weights: np.ndarray  # (T, K) float32
    rotations: np.ndarray  # (T, 3, 3) float32
    shifts: np.ndarray  # (T, 3) float32
    error: float  # the largest distance of a vertex from its place in the clip, metres

    def frames(self) -> np.ndarray:
        """(T, V, 3) vertices as the player will draw them."""
        moved = np.tensordot(self.weights * self.scales, self.directions.astype(np.float32), axes=1)
        shapes = self.mean + moved  # (T, V, 3)
        return shapes @ self.rotations.transpose(0, 2, 1) + self.shifts[:, None]


def compress(vertices: np.ndarray, tolerance: float = TOLERANCE, limit: int = 80) -> Basis:
    """(T, V, 3) metres to the ``Basis`` with fewest directions, at most ``limit``, error < ``tolerance``.

    Motion that no ``limit`` directions describe (it does not come from 58 parameters) keeps a larger
    ``error``, which the result states and a warning tells.
    """
    rotations, shifts = _rigid(vertices)
    still = (vertices - shifts[:, None]) @ rotations  # (T, V, 3); the inverse of a rotation is its transpose
    mean = still.mean(0)
    rest = (still - mean).reshape(len(vertices), -1)  # (T, 3 V)
    gram = rest.astype(np.float64) @ rest.T.astype(np.float64)
    along = np.linalg.eigh(gram)[1][:, ::-1].astype(np.float32)  # (T, T), strongest first
    directions, scales = [], []
    while _farthest(rest) >= tolerance and len(scales) < min(limit, len(vertices)):
        weights = along[:, len(scales)]
        direction = weights @ rest  # (3 V,)
        scale = max(np.abs(direction).max() / 32767, STEP / np.abs(weights).max())
        directions.append(np.round(direction / scale).astype(np.int16))
        scales.append(scale)
        rest = rest - np.outer(weights, directions[-1] * np.float32(scale))
    count = len(scales)
    if _farthest(rest) > 2 * tolerance:
        warnings.warn(
            f"motion of {len(vertices)} frames: played up to {1000 * _farthest(rest):.2g} mm off, for it is no sum of "
            f"{count} directions", stacklevel=4,
        )  # fmt: skip
    return Basis(
        mean,
        np.array(directions, np.int16).reshape(count, *mean.shape),
        np.array(scales, np.float32),
        along[:, :count].copy(),
        rotations,
        shifts,
        _farthest(rest),
    )


def _farthest(rest: np.ndarray) -> float:
    return float(np.sqrt((rest.reshape(len(rest), -1, 3) ** 2).sum(-1).max()))


def _rigid(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, V, 3) to rotations (T, 3, 3) and shifts (T, 3): they carry the mean face close to each frame."""
    shifts = vertices.mean(1)
    centred = vertices - shifts[:, None]
    middle = centred[len(vertices) // 2]
    for _ in range(2):  # towards one frame, then towards the mean of the frames so aligned
        u, _, vt = np.linalg.svd(centred.transpose(0, 2, 1) @ middle)
        mirrored = np.linalg.det(u @ vt) < 0
        u[mirrored, :, 2] *= -1
        rotations = u @ vt
        middle = (centred @ rotations).mean(0)
    return rotations.astype(np.float32), shifts
