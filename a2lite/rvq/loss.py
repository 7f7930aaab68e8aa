"""What a reconstruction is judged by (Eq. 7-10): parameters, lips and face in metres, velocity, acceleration.

App. B of A2-LLM; built in notebooks/03_rvq_tokenization.ipynb. The head is handed in: nothing is loaded here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from a2lite.config import RVQConfig

GOLDEN_SECTION = (5**0.5 - 1) / 2


def spread(vertices: Tensor, number: int | None) -> Tensor:
    """``number`` of the indices ``vertices`` (V,), evenly over the list; all of them for None or too many.

    Steps of the golden section: equal steps can fall in step with a mesh, whose vertices are numbered in rings.
    """
    if number is None or number >= len(vertices):
        return vertices
    places = torch.arange(number, dtype=torch.float64) * GOLDEN_SECTION % 1 * len(vertices)
    return vertices[places.long().unique()]


@dataclass(frozen=True)
class Geometry:
    """What Eq. 9 and 10 measure on: ``flame(motion, vertices=..., zero_pose=True)`` and three index sets."""

    flame: nn.Module
    lips: Tensor  # V_lips
    face: Tensor  # V_face
    body: Tensor  # V of Eq. 10: all vertices, or a subset

    @classmethod
    def of(cls, flame: nn.Module, regions: dict[str, Tensor], vertices: int, config: RVQConfig) -> Geometry:
        """From the head's ``regions`` and its number of ``vertices``; ``config.vertices`` thins each set."""
        sets = regions["lips"], regions["face"], torch.arange(vertices, device=regions["lips"].device)
        return cls(flame, *(spread(part, config.vertices) for part in sets))

    def to(self, device: torch.device | str) -> Geometry:
        """The same on ``device``; the head that was handed in stays where it is."""
        return replace(self, flame=copy.deepcopy(self.flame).to(device))

    def vertices(self, motion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Motion (B, T, 58) -> lips, face and body (B, T, v, 3) in metres, global rotation removed."""
        parts = self.lips, self.face, self.body
        vertices = self.flame(motion, vertices=torch.cat(parts), zero_pose=True)
        return vertices.split([len(part) for part in parts], dim=-2)


def squared_norm(x: Tensor, reduction: str) -> Tensor:
    """||x||^2 of a frame, x (B, T, D) or (B, T, V, 3), averaged over B and T.

    "sum" adds all entries, as the norm says. "mean" is the mean over D, or over V of the squared length: 1 mm
    off is then 1e-6 whatever the mesh, and times 1e5 it is of the order of Eq. 8 on normalised parameters.
    """
    square = x.square()
    if x.ndim == 4:
        square = square.sum(-1)  # (B, T, V, 3) -> (B, T, V)
    return square.mean() if reduction == "mean" else square.sum(-1).mean()


def weights(config: RVQConfig) -> dict[str, float]:
    """What multiplies each term of the loss (Eq. 4 and 7)."""
    return dict(
        param=config.param_weight,
        lips=config.lips_weight,
        face=config.face_weight,
        velocity=config.lite_velocity_weight or config.velocity_weight,
        acceleration=config.acceleration_weight,
        codebook=config.vq_weight,
        commitment=config.vq_weight * config.commitment,
    )


def magnitudes(losses: dict[str, Tensor], config: RVQConfig) -> dict[str, tuple[float, float]]:
    """Each term of ``losses`` and what it weighs: the table to print before one trusts the weights."""
    scale = weights(config)
    values = {name: losses[name].item() for name in scale if name in losses}
    return {name: (value, scale[name] * value) for name, value in values.items()}
