"""The head as data: FLAME's arrays, names on its surface, and named action units.

``head.safetensors`` holds what was sculpted; ``load_head`` checks it, widens it and fills the two bases up to
FLAME's 300 + 100 components. Nothing in it derives from FLAME's data.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from a2lite.config import MotionConfig

IDENTITY, EXPRESSION = 300, 100  # components, as in FLAME
ROOT, NECK, JAW = range(3)  # joints
EYES = (3, 4)  # left, right
USED = MotionConfig.expression.stop  # expression components that the motion vector carries
HEAD_FILE = Path(__file__).with_name("head.safetensors")
HEAD_SHA256 = "a8e8e8c087a7ac3fa5d01aacae58f01bb041c546761a73374ad0513f15f0a8fe"
FAINT = 1e-5  # metres, RMS displacement of a filled-up component at coefficient 1


@dataclass(frozen=True)
class FlameHead:
    """A head in FLAME's dimensions; metres, y up, z towards the viewer, x to the subject's left. Read-only."""

    v_template: Tensor  # (5023, 3)
    faces: Tensor  # (9976, 3) int64, counter-clockwise from outside
    shapedirs: Tensor  # (5023, 3, 400), 300 identity then 100 expression components
    posedirs: Tensor  # (36, 15069), rows are the entries of R - 1 of neck, jaw, left eye, right eye
    J_regressor: Tensor  # (5, 5023)
    parents: Tensor  # (5,) int64, root's is -1
    lbs_weights: Tensor  # (5023, 5)
    eyelids: Tensor  # (2 sides, 2 terms, 5023, 3): closure a displaces by a * [.., 0] + 4 a (1 - a) * [.., 1]
    regions: dict[str, Tensor]  # name -> vertex numbers
    landmarks: dict[str, int]  # name -> vertex number
    colours: Tensor  # (5023, 3) linear RGB
    action_units: list[str]  # 36, each ending in _left or _right
    au_expression: Tensor  # (36, 50), the coefficients of each unit at strength 1
    version: str = "built"  # or which of the official ones it is
    traits: list[str] = field(default_factory=list)  # named ways in which heads differ; official heads have none
    trait_identity: Tensor | None = None  # (20, 300), the coefficients of each trait at strength 1

    def expression(self, **units: float | Tensor | tuple) -> Tensor:
        """Named action units to expression coefficients, (50,), or (T, 50) where a strength is a (T,) tensor.

        ``smile=0.5`` raises both corners, ``smile_left=0.5`` or ``smile=(0.5, 0)`` one. ValueError on an unknown
        name.
        """
        total = torch.zeros(USED)
        for name, strength in units.items():
            for side, value in self._sides(name, strength):
                value = torch.as_tensor(value, dtype=torch.float32)
                total = total + value[..., None] * self.au_expression[self.action_units.index(side)]
        return total

    def identity(self, **traits: float) -> Tensor:
        """Named traits to coefficients (300,): ``identity(jaw_width=1, lips=-0.5)``. ValueError on an unknown name."""
        betas = torch.zeros(IDENTITY)
        for name, strength in traits.items():
            if name not in self.traits:
                known = ", ".join(self.traits) or "none: this head has no named traits"
                raise ValueError(f"{name!r} is no trait; expected one of {known}")
            betas += strength * self.trait_identity[self.traits.index(name)]
        return betas

    def _sides(self, name: str, strength: float | Tensor | tuple) -> list[tuple[str, float | Tensor]]:
        if name in self.action_units:
            return [(name, strength)]
        if f"{name}_left" not in self.action_units:
            known = ", ".join(unit.removesuffix("_left") for unit in self.action_units if unit.endswith("_left"))
            raise ValueError(f"{name!r} is no action unit; expected one of {known}, or one with _left or _right")
        left, right = strength if isinstance(strength, tuple) else (strength, strength)
        return [(f"{name}_left", left), (f"{name}_right", right)]

    def save_npz(self, path: str | Path) -> None:
        """Write FLAME's own arrays under FLAME's own names: what ``smplx.FLAMELayer`` reads with ``ext="npz"``."""
        vertices = len(self.v_template)
        np.savez(
            path, v_template=self.v_template.numpy(), f=self.faces.numpy(), shapedirs=self.shapedirs.numpy(),
            posedirs=self.posedirs.T.reshape(vertices, 3, -1).numpy(), J_regressor=self.J_regressor.numpy(),
            kintree_table=np.stack([self.parents.numpy(), np.arange(len(self.parents))]),
            weights=self.lbs_weights.numpy(), bs_style="lbs", bs_type="lrotmin",
        )


@cache
def load_head(path: Path = HEAD_FILE) -> FlameHead:
    """The shipped head. FileNotFoundError or ValueError where the file is missing or is not the one shipped."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: the head is missing; restore the file, or run python -m a2lite.flame.build")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != HEAD_SHA256:
        raise ValueError(f"{path}: sha256 is {found[:12]}…, expected {HEAD_SHA256[:12]}…; restore the shipped file")
    return unpack(data)


def unpack(data: bytes) -> FlameHead:
    """A head from the bytes of a head file, as ``a2lite.flame.build`` packs them."""
    stored = load(data)
    names = json.loads(stored.pop("names").numpy().tobytes())
    rest = stored["v_template"]
    identity, expression, pose, lids = (
        stored[key].float() * stored[f"{key}_step"][:, None] for key in ("identity", "expression", "pose", "eyelids")
    )
    shapes = torch.cat([complete(identity, rest, IDENTITY), complete(expression, rest, EXPRESSION)])  # (400, 15069)
    return FlameHead(
        v_template=rest,
        faces=stored["faces"].long(),
        shapedirs=shapes.T.reshape(-1, 3, len(shapes)).contiguous(),
        posedirs=stored["pose_places"] @ pose,
        J_regressor=stored["J_regressor"],
        parents=torch.tensor([-1, 0, 1, 1, 1]),
        lbs_weights=stored["lbs_weights"],
        eyelids=lids.reshape(2, 2, -1, 3),
        regions={key.removeprefix("region."): value.long() for key, value in sorted(stored.items())
                 if key.startswith("region.")},
        landmarks=names["landmarks"],
        colours=stored["colours"].float(),
        action_units=names["action_units"],
        au_expression=stored["au_expression"],
        traits=names["traits"],
        trait_identity=stored["trait_identity"],
    )


def complete(basis: Tensor, rest: Tensor, total: int) -> Tensor:
    """Fill ``basis`` (n, 3V), orthogonal rows, up to ``total`` with smooth faint rows orthogonal to it and each other.

    They are products of cosines over the head, in x, y and z; FLAME has components there, our sculptor has none.
    """
    missing = total - len(basis)
    waves = _cosines(rest.double(), -(-missing // 3))  # (V, k), orthonormal
    fields = torch.einsum("vk,de->kevd", waves, torch.eye(3).double()).reshape(-1, basis.shape[1])[:missing]
    known = basis.double() / basis.double().norm(dim=1, keepdim=True)
    # Loewdin: (fields - overlap @ known), made orthonormal with the least change
    u, cosine, v = torch.linalg.svd(fields @ known.T, full_matrices=False)
    stretch = (1 - cosine.square()).rsqrt()[:, None]
    faint = fields + u @ ((stretch - 1) * (u.T @ fields) - stretch * cosine[:, None] * (v @ known))
    return torch.cat([basis, (FAINT * len(rest) ** 0.5 * faint).float()])


def _cosines(rest: Tensor, count: int) -> Tensor:
    """The ``count`` lowest orthonormalised products of cosines over the box around ``rest`` (V, 3)."""
    low, high = rest.amin(0), rest.amax(0)
    phase = torch.pi * (rest - low) / (high - low)
    orders = sorted(((i, j, k) for i in range(9) for j in range(9) for k in range(9)), key=lambda o: (sum(o), o))
    waves = torch.cos(phase[:, None] * torch.tensor(orders[1 : count + 1]).double()).prod(-1)  # (V, count)
    q, r = torch.linalg.qr(waves)
    return q * r.diagonal().sign()
