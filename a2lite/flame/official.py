"""The official FLAME: MPI's files, read safely, checked, and kept in a format that anyone can open.

FLAME is not ours to ship: https://flame.is.tue.mpg.de gives it to those who register. ``load_flame`` takes the
published file as it is; the README says which one unlocks what. Its result is a ``FlameHead`` like the built one,
without action units: what its 100 expression components mean is nobody's list.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from a2lite.flame.head import EXPRESSION, IDENTITY, USED, FlameHead
from a2lite.flame.pickles import UnsafePickle, read_pickle

VERTICES, TRIANGLES, JOINTS = 5023, 9976, 5
SHAPES = {
    "v_template": (VERTICES, 3),
    "f": (TRIANGLES, 3),
    "shapedirs": (VERTICES, 3, IDENTITY + EXPRESSION),
    "posedirs": (VERTICES, 3, 9 * (JOINTS - 1)),
    "J_regressor": (JOINTS, VERTICES),
    "weights": (VERTICES, JOINTS),
    "kintree_table": (2, JOINTS),
}
PARENTS = [0, 1, 1, 1]  # of neck, jaw, left eye, right eye
FILES = ("generic_model.pkl", "flame2023.pkl", "flame2023_no_jaw.pkl", "flame2023_Open.pkl")
KNOWN = {  # sha256 of the published files
    "efcd14cc4a69f3a3d9af8ded80146b5b6b50df3bd74cf69108213b144eba725b": "FLAME 2020",
    "8fb1af0db1abb51053ead8fd1f2624a63d01c9602f4a4fb4ea23bd2c82017fa0": "FLAME 2023",
    "e75a0990728ba038c7da2a420ae4396f7ddd7781366c13026066c5b24f127623": "FLAME 2023 Open",
}
NO_JAW = "b291fcd1"  # how the sha256 of flame2023_no_jaw.pkl begins
CARRIES = {  # what coefficients fitted elsewhere (SMIRK, EMOCA, DECA: all on 2020) do on a version
    "FLAME 2023": "its expression basis is another than 2020's; coefficients of SMIRK or EMOCA give other faces on it",
    "FLAME 2023 without jaw": "its expressions hold no jaw motion; 2020's coefficients give other faces on it",
    "FLAME 2023 Open": "its bases are not 2020's: coefficients of SMIRK or EMOCA are not valid on it",
}
MASKS = {"eye_region", "face", "forehead", "left_ear", "left_eye_region", "left_eyeball", "lips", "neck", "nose",
         "right_ear", "right_eye_region", "right_eyeball", "scalp"}  # fmt: skip
SKIN, WHITE, LIP = (0.60, 0.36, 0.25), (0.85, 0.85, 0.85), (0.50, 0.20, 0.18)  # linear RGB


def load_flame(path: str | Path) -> FlameHead:
    """A published FLAME file (``generic_model.pkl``, ``flame2023.pkl``, ``flame2023_Open.pkl`` ...) as a head.

    What lies beside it is taken along: ``FLAME_masks.pkl`` (regions), ``l_eyelid.npy`` and ``r_eyelid.npy`` (SMIRK's
    lids), ``flame_static_embedding.pkl`` or ``landmark_embedding.npy`` (landmarks). Nothing in a pickle is executed.
    The first call converts it to ``<name>.safetensors`` beside it, where that may be written; later ones read that.
    Warns where coefficients fitted on FLAME 2020 do not carry over, and where landmarks cannot be read: the head is
    then whole but for them. A file that asks for more than arrays (UnsafePickle, a ValueError) stops all, whichever of
    them it is. FileNotFoundError or ValueError in one line.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; expected FLAME's file in it, as generic_model.pkl or flame2023.pkl")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; FLAME is at https://flame.is.tue.mpg.de, after registration")
    content = path.read_bytes()
    if content[8:9] == b"{":  # after its length a safetensors file has a JSON header
        raise ValueError(f"{path}: is a converted copy; name the published .pkl beside it")
    arrays, version = _converted(path, hashlib.sha256(content).hexdigest())
    if version in CARRIES:
        warnings.warn(f"{path.name}: {version}; {CARRIES[version]}", stacklevel=2)
    return _with_neighbours(_head(arrays, version), path.parent)


def _converted(path: Path, digest: str) -> tuple[dict[str, Tensor], str]:
    """The arrays and the version; from ``<name>.safetensors`` where that was made of this very file."""
    kept = path.with_suffix(".safetensors")
    if kept.is_file() and kept != path:
        try:
            with safe_open(kept, "pt") as file:
                meta = file.metadata() or {}
                if meta.get("source") == digest:
                    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                    return check(kept, arrays), meta["version"]
        except Exception as error:  # a damaged copy, or one of an older layout, is made anew
            warnings.warn(f"{kept}: is damaged ({_brief(error)}); written again from {path.name}", stacklevel=3)
    content = read_pickle(path)
    arrays, version = check(path, content), version_of(content, digest)
    if kept != path:
        _keep(kept, arrays, dict(source=digest, version=version))
    return arrays, version


def _keep(path: Path, arrays: dict[str, Tensor], meta: dict[str, str]) -> None:
    """Write whole or not at all; in a folder that cannot be written nothing is kept, and every call converts."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file(arrays, partial, meta)
        partial.replace(path)
    except (OSError, SafetensorError):
        with suppress(OSError):
            partial.unlink()


def flame_version(path: Path) -> str:
    """Which FLAME a published file is; it is checked as ``load_flame`` checks it, and nothing is written."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest in KNOWN:
        return KNOWN[digest]
    content = read_pickle(path)
    check(path, content)
    return version_of(content, digest)


def version_of(content: dict, digest: str) -> str:
    """Which FLAME it is, by its sha256, else by what only one of them has."""
    if digest in KNOWN or digest.startswith(NO_JAW):
        return KNOWN.get(digest, "FLAME 2023 without jaw")
    return "FLAME 2023 Open" if "supr_expression_metadata" in content else "FLAME of unknown version"


def check(path: Path, content: object) -> dict[str, Tensor]:
    """FLAME's arrays as float32 and int64; ValueError names the first thing that is not FLAME's."""
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; expected FLAME's dict of arrays")
    missing = [name for name in SHAPES if name not in content]
    if missing:
        raise ValueError(f"{path}: has no {missing[0]}; expected a FLAME model, found {_list(content)}")
    arrays = {}
    for name, shape in SHAPES.items():
        array = _array(path, name, content[name])
        if array.dtype.kind not in "biuf" or array.shape != shape:
            raise ValueError(f"{path}: {name} is {array.shape} of {array.dtype}; expected numbers of shape {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity; download the file again")
        if not array.any():
            raise ValueError(f"{path}: {name} is zero throughout; a converter has lost it, take the published file")
        exact = name in ("f", "kintree_table")
        arrays[name] = torch.from_numpy(np.ascontiguousarray(array, np.int64 if exact else np.float32))
    low, high = int(arrays["f"].min()), int(arrays["f"].max())
    if low < 0 or high >= VERTICES:
        raise ValueError(f"{path}: f names vertex {low if low < 0 else high}; expected 0 to {VERTICES - 1}")
    parents = arrays["kintree_table"][0, 1:].tolist()
    if parents != PARENTS:
        raise ValueError(f"{path}: kintree_table gives the joints the parents {parents}; expected {PARENTS}")
    for name in ("J_regressor", "weights"):
        total = arrays[name].sum(1)
        worst = total[(total - 1).abs().argmax()]
        if (worst - 1).abs() > 1e-3:
            raise ValueError(f"{path}: a row of {name} adds up to {float(worst):.3g}; expected 1")
    return arrays


def _array(path: Path, name: str, value: object) -> np.ndarray:
    if not isinstance(value, np.ndarray | Tensor):
        raise ValueError(f"{path}: {name} is a {type(value).__name__}; expected an array")
    return np.asarray(value)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _list(content: dict) -> str:
    names = [ascii(name)[1:-1][:40] for name in content]
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")


def _head(arrays: dict[str, Tensor], version: str) -> FlameHead:
    faces = arrays["f"]
    left, right = eyeballs(faces, arrays["v_template"])
    colours = torch.tensor(SKIN).repeat(VERTICES, 1)
    colours[torch.cat([left, right])] = torch.tensor(WHITE)
    return FlameHead(
        v_template=arrays["v_template"],
        faces=faces,
        shapedirs=arrays["shapedirs"],
        posedirs=arrays["posedirs"].reshape(3 * VERTICES, -1).T.contiguous(),
        J_regressor=arrays["J_regressor"],
        parents=torch.tensor([-1, *PARENTS]),
        lbs_weights=arrays["weights"],
        eyelids=torch.zeros(2, 2, VERTICES, 3),
        regions=dict(left_eyeball=left, right_eyeball=right),
        landmarks={},
        colours=colours,
        action_units=[],
        au_expression=torch.zeros(0, USED),
        version=version,
    )


def eyeballs(faces: Tensor, vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Vertex numbers of the two small separate parts of the mesh, left (+x) and right."""
    label = torch.arange(len(vertices))
    while True:  # the smallest number of a triangle spreads over its part
        low = label[faces].amin(1)
        spread = label.scatter_reduce(0, faces.flatten(), low.repeat_interleave(3), "amin")
        spread = spread[spread]
        if torch.equal(spread, label):
            break
        label = spread
    parts = [torch.nonzero(label == name)[:, 0] for name in label.unique()]
    small = sorted(parts, key=len)[:2]
    if len(parts) < 3:
        raise ValueError(f"f: a mesh of {len(parts)} parts; expected the face and two eyeballs")
    return tuple(sorted(small, key=lambda part: -float(vertices[part, 0].mean())))


# ---------------------------------------------------------------- what lies beside


def _with_neighbours(head: FlameHead, folder: Path) -> FlameHead:
    lids = [folder / f"{side}_eyelid.npy" for side in "lr"]
    if all(file.is_file() for file in lids):
        linear = torch.stack([_eyelid(file) for file in lids])  # (2, V, 3)
        head = replace(head, eyelids=torch.stack([linear, torch.zeros_like(linear)], 1))
    elif any(file.is_file() for file in lids):
        (alone,) = (file for file in lids if file.is_file())
        warnings.warn(f"{alone}: the other side's is missing; the lids stay open without it", stacklevel=3)
    if (folder / "FLAME_masks.pkl").is_file():
        regions = {**head.regions, **_masks(folder / "FLAME_masks.pkl")}
        regions["upper_face"] = _upper_face(regions)
        colours = head.colours.clone()
        colours[regions["lips"]] = torch.tensor(LIP)
        head = replace(head, regions=regions, colours=colours)
    return replace(head, landmarks=_landmarks(folder, head.faces))


def _eyelid(path: Path) -> Tensor:
    """SMIRK's (5023, 3) of one lid, metres at closure 1."""
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:
        told = f"cannot be read as .npy ({_brief(error)}); expected SMIRK's assets/{path.name}"
        raise ValueError(f"{path}: {told}") from None
    if array.shape != (VERTICES, 3) or array.dtype.kind != "f" or not np.isfinite(array).all() or not array.any():
        raise ValueError(f"{path}: is {array.shape} of {array.dtype}; expected SMIRK's ({VERTICES}, 3), finite, not 0")
    return torch.from_numpy(array.astype(np.float32))


def _masks(path: Path) -> dict[str, Tensor]:
    content = read_pickle(path)
    if not isinstance(content, dict) or not set(content) >= MASKS:
        raise ValueError(f"{path}: has not all of FLAME's masks; expected {', '.join(sorted(MASKS))}")
    found = {}
    for name in MASKS:
        numbers = _array(path, name, content[name])
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise ValueError(f"{path}: {name} is {numbers.shape} of {numbers.dtype}; expected vertex numbers")
        low, high = numbers.min(initial=0), numbers.max(initial=0)
        if low < 0 or high >= VERTICES:
            raise ValueError(f"{path}: {name} names vertex {low if low < 0 else high}; expected 0 to {VERTICES - 1}")
        found[name] = torch.from_numpy(np.unique(numbers.astype(np.int64)))
    return found


def _upper_face(regions: dict[str, Tensor]) -> Tensor:
    """Eye region and forehead without the eyeballs: what UFD is averaged over (Sec. 6.1; App. C.1, Eq. 12).

    The paper does not list its vertices; ARTalk takes these two masks. The built head's region is another one, on
    another mesh: a UFD of the one cannot be compared with a UFD of the other.
    """
    upper = torch.cat([regions[name] for name in ("eye_region", "forehead")]).unique()
    balls = torch.cat([regions["left_eyeball"], regions["right_eyeball"]])
    return upper[~torch.isin(upper, balls)]


PLACES = {  # of dlib's 68 points, without the 17 of the contour; the subject's left
    "nose_tip": 30, "right_eye_outer": 36, "right_upper_lid": 37, "right_eye_inner": 39, "right_lower_lid": 41,
    "left_eye_inner": 42, "left_upper_lid": 44, "left_eye_outer": 45, "left_lower_lid": 46,
    "right_corner": 48, "left_corner": 54, "upper_lip": 62, "lower_lip": 66,
}  # fmt: skip


EMBEDDINGS = {  # file -> its triangles and its barycentric weights, (51,) and (51, 3)
    "flame_static_embedding.pkl": ("lmk_face_idx", "lmk_b_coords"),
    "landmark_embedding.npy": ("static_lmk_faces_idx", "static_lmk_bary_coords"),
}


def _landmarks(folder: Path, faces: Tensor) -> dict[str, int]:
    """Those of the first embedding in ``folder`` that can be read; the others are named in a warning."""
    for name, keys in EMBEDDINGS.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            content = read_pickle(path, _npy_header(path) if path.suffix == ".npy" else 0, keys)
            return _nearest(path, content, *keys, faces)
        except UnsafePickle:
            raise
        except ValueError as error:
            warnings.warn(f"{error}; left out", stacklevel=4)
    return {}


def _nearest(path: Path, content: object, at: str, weights: str, faces: Tensor) -> dict[str, int]:
    """The vertex nearest to each named landmark, of 51 barycentric ones."""
    if not isinstance(content, dict) or not {at, weights} <= set(content):
        raise ValueError(f"{path}: has no {at} and {weights}; expected a FLAME landmark embedding")
    triangles, corners = (_array(path, name, content[name]) for name in (at, weights))
    if triangles.shape != (51,) or corners.shape != (51, 3):
        raise ValueError(f"{path}: {at} is {triangles.shape}, {weights} {corners.shape}; expected (51,) and (51, 3)")
    if triangles.dtype.kind not in "iu" or corners.dtype.kind != "f" or not np.isfinite(corners).all():
        raise ValueError(f"{path}: {at} is of {triangles.dtype}, {weights} of {corners.dtype}; expected finite numbers")
    if triangles.min() < 0 or triangles.max() >= TRIANGLES:
        low, high = triangles.min(), triangles.max()
        raise ValueError(f"{path}: {at} goes from {low} to {high}; expected 0 to {TRIANGLES - 1}")
    nearest = faces[torch.from_numpy(triangles.astype(np.int64)), torch.from_numpy(corners.argmax(1))]
    return {name: int(nearest[number - 17]) for name, number in PLACES.items()}


def _npy_header(path: Path) -> int:
    """Where the pickle begins in a .npy file of one Python object."""
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        except Exception as error:  # whatever a broken header makes of numpy's reader
            raise ValueError(f"{path}: cannot be read as .npy ({_brief(error)})") from None
        start = file.tell()
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"{path}: is {shape} of {dtype}; expected one dict")
    return start
