"""Make ``head.safetensors``: sculpt the head, rig it, find its bases, pack it. A developer's command.

``python -m a2lite.flame.build`` writes the file beside this module and prints the hash that ``head.py`` has to hold.
Lengths are millimetres while sculpting, metres in the file. Nothing here derives from FLAME's data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import save

from a2lite.flame.head import EYES, HEAD_FILE, HEAD_SHA256, IDENTITY, JAW, USED
from a2lite.flame.sculptor.anatomy import Anatomy
from a2lite.flame.sculptor.colours import colours
from a2lite.flame.sculptor.identity import Identity
from a2lite.flame.sculptor.rig import JAW_JOINT, JAW_OPEN, Rig
from a2lite.flame.sculptor.surface import EYE
from a2lite.flame.sculptor.topology import build_shell

SEED, SAMPLES = 0, 20000
JOINTS = np.array([(0, -112, -38), (0, -62, -32), JAW_JOINT, EYE, EYE * [-1, 1, 1]])  # root, neck, jaw, eyes
JAW_ANGLES = JAW_OPEN * np.array([0.2, 0.4, 0.6, 0.8, 1.0])
GAZE_ANGLES = np.array([-0.35, -0.2, -0.1, 0.1, 0.2, 0.35])


# ---------------------------------------------------------------- expression and identity bases


def principal(fields: np.ndarray, strengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PCA about the neutral of ``strengths`` (S, k) @ ``fields`` (k, 3V), without forming the samples' meshes.

    Returns components (k, 3V), largest first and scaled so that a coefficient of 1 is one root mean square, and the
    coefficients (k, k) of each field at strength 1.
    """
    root = np.linalg.cholesky(strengths.T @ strengths / len(strengths))  # strengths are root @ (white noise)
    _, turns = np.linalg.eigh(root.T @ fields @ fields.T @ root)
    components = turns[:, ::-1].T @ root.T @ fields
    signs = np.sign(components[np.arange(len(components)), np.abs(components).argmax(1)])
    return components * signs[:, None], np.linalg.inv(root.T) @ turns[:, ::-1] * signs


def sampled_performances(units: int, rng: np.random.Generator) -> np.ndarray:
    """Strengths (S, 2 * units), left and right in turn: a third at work at a time, two in five of them on one side."""
    strengths = rng.uniform(0, 1, (SAMPLES, units)) * (rng.uniform(0, 1, (SAMPLES, units)) < 0.35)
    lean = rng.uniform(0, 1, (SAMPLES, units))
    return np.stack([strengths * (lean > 0.2), strengths * (lean < 0.8)], -1).reshape(SAMPLES, -1)


def sampled_people(names: list[str], rng: np.random.Generator) -> np.ndarray:
    """Strengths (S, 20) of the identity's fields: normal, cut at 1.8; hair is millimetres."""
    people = np.clip(rng.normal(0, 0.9, (SAMPLES, len(names))), -1.8, 1.8)
    people[:, names.index("hair")] = rng.uniform(0, 6, SAMPLES)
    return people


def split_units(rig: Rig, vertices: int) -> dict[str, np.ndarray]:
    """Name with side -> displacement (3V,) in metres over the whole head."""
    split = {}
    for name, field in rig.action_units().items():
        for side, half in zip(("left", "right"), rig.sided(name, field), strict=True):
            split[f"{name}_{side}"] = whole(half, vertices)
    return split


def lid_terms(rig: Rig, vertices: int) -> np.ndarray:
    """(4, 3V) metres: left linear, left quadratic, right linear, right quadratic.

    Half closed, the quadratic path is where the turning lid is; a straight one would cut the eyeball.
    """
    terms = []
    for side in ((1.0, 0.0), (0.0, 1.0)):
        full, half = rig.lids(close=side), rig.lids(close=(0.5 * side[0], 0.5 * side[1]))
        terms += [whole(full, vertices), whole(half - 0.5 * full, vertices)]
    return np.array(terms)


def whole(skin: np.ndarray, vertices: int) -> np.ndarray:
    """A displacement of the skin in mm -> (3V,) in metres, eyeballs at rest."""
    return np.concatenate([skin.ravel(), np.zeros(3 * (vertices - len(skin)))]) * 1e-3


# ---------------------------------------------------------------- joints and pose blend shapes


def joint_regressor(anatomy: Anatomy) -> np.ndarray:
    """(5, V): each joint from vertices that expression hardly moves, with the evenest weights that sum to 1."""
    y, z = anatomy.skin[:, 1], anatomy.skin[:, 2]
    neck, ears = (y < -30) & (y > -100) & (z < 0), anatomy.ear
    parts = [np.nonzero(mask)[0] for mask in (y < -95, neck, ears)] + list(anatomy.eyes)
    regressor = np.zeros((len(JOINTS), len(anatomy.rest)))
    for row, joint, part in zip(regressor, JOINTS, parts, strict=True):
        system = np.vstack([anatomy.rest[part].T, np.ones(len(part))])
        even = np.full(len(part), 1 / len(part))
        row[part] = even + np.linalg.pinv(system) @ (np.append(joint, 1) - system @ even)
    return regressor


def pose_offsets(
    rest: np.ndarray, weight: np.ndarray, joint: np.ndarray, angles: np.ndarray, posed: Callable[[float], np.ndarray]
) -> np.ndarray:
    """What to add before skinning, (2, 3V): ``(cos a - 1) * [0] + sin a * [1]`` for a turn by a about x.

    By least squares over ``angles``, so that skinning with ``weight`` (V,) comes nearest to ``posed(a)`` (V, 3).
    """
    wanted, terms = [], []
    for angle in angles:
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        blend = np.eye(3) + weight[:, None, None] * (turn - np.eye(3))  # (V, 3, 3)
        moved = posed(angle) - weight[:, None] * (joint - turn @ joint)
        wanted.append((np.linalg.solve(blend, moved[..., None])[..., 0] - rest).ravel())
        terms.append((cos - 1, sin))
    return np.linalg.lstsq(np.array(terms), np.array(wanted), rcond=None)[0]


def pose_terms(joint: int) -> np.ndarray:
    """(36, 2): where cos a - 1 and sin a of a turn about x stand among the entries of R - 1 of ``joint``."""
    where = np.zeros((4, 3, 3, 2))
    where[joint - 1, 1, 1, 0] = where[joint - 1, 2, 2, 0] = 0.5
    where[joint - 1, 2, 1, 1], where[joint - 1, 1, 2, 1] = 0.5, -0.5
    return where.reshape(36, 2)


def pose_basis(rig: Rig, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (6, 3V) in metres and their places (36, 6): the jaw slides, cheeks are drawn in, lids follow the gaze."""
    skin = rig.skin
    offsets = [pose_offsets(skin, weights[: len(skin), JAW], JAW_JOINT, JAW_ANGLES, rig.open_jaw)]
    for side in range(2):
        still = np.zeros(len(skin))
        offsets.append(pose_offsets(skin, still, EYE, GAZE_ANGLES, lambda a, side=side: skin + rig.look(a, side)))
    rows = [whole(row.reshape(-1, 3), len(weights)) for row in np.concatenate(offsets)]
    return np.array(rows), np.concatenate([pose_terms(joint) for joint in (JAW, *EYES)], 1)


# ---------------------------------------------------------------- the file


def whole_numbers(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row as int16, and the step by which to multiply it."""
    step = np.abs(rows).max(1) / 32767
    numbers = np.round(rows / step[:, None]).astype(np.int16)
    return torch.from_numpy(numbers), torch.from_numpy(step.astype(np.float32))


def build() -> bytes:
    """The head file's bytes; ``a2lite.flame.head.unpack`` reads them."""
    anatomy = Anatomy(build_shell())
    rig, rng, count = Rig(anatomy), np.random.default_rng(SEED), len(anatomy.rest)
    units, people = split_units(rig, count), Identity(anatomy).fields()
    performances = sampled_performances(len(units) // 2, rng)
    expression, coefficients = principal(np.stack(list(units.values())), performances)
    fields = np.stack([field.ravel() for field in people.values()]) * 1e-3
    identity, traits = principal(fields, sampled_people(list(people), rng))
    weights = anatomy.skinning_weights()
    pose, places = pose_basis(rig, weights)
    bases = dict(identity=identity, expression=expression, pose=pose, eyelids=lid_terms(rig, count))
    arrays = dict(
        v_template=anatomy.rest * 1e-3, J_regressor=joint_regressor(anatomy), lbs_weights=weights, pose_places=places,
        au_expression=np.pad(coefficients, ((0, 0), (0, USED - len(units)))),
        trait_identity=np.pad(traits, ((0, 0), (0, IDENTITY - len(people)))),
    )
    tensors = {key: torch.from_numpy(value.astype(np.float32)) for key, value in arrays.items()}
    tensors["colours"] = torch.from_numpy(colours(anatomy).astype(np.float16))
    tensors["faces"] = torch.from_numpy(anatomy.faces.astype(np.int16))
    for key, rows in bases.items():
        tensors[key], tensors[f"{key}_step"] = whole_numbers(rows)
    for key, numbers in anatomy.regions().items():
        tensors[f"region.{key}"] = torch.from_numpy(np.sort(numbers).astype(np.int16))
    names = json.dumps(dict(action_units=list(units), landmarks=anatomy.landmarks(), traits=list(people)))
    tensors["names"] = torch.frombuffer(bytearray(names.encode()), dtype=torch.uint8)
    return save({key: value.contiguous() for key, value in tensors.items()})


if __name__ == "__main__":
    data = build()
    HEAD_FILE.write_bytes(data)
    found = hashlib.sha256(data).hexdigest()
    print(f"{HEAD_FILE}: {len(data) / 1e6:.2f} MB, sha256 {found}")
    print("as before" if found == HEAD_SHA256 else "set HEAD_SHA256 in a2lite/flame/head.py to this hash")
