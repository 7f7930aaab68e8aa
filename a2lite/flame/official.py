"""The official FLAME: MPI's files, read safely, checked, and kept in a format that anyone can open.

FLAME is not ours to ship: https://flame.is.tue.mpg.de gives it to those who register. ``load_flame`` takes the
published file as it is; the README says which one unlocks what. Its result is a ``FlameHead`` like the built one,
without action units: what its 100 expression components mean is nobody's list.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from a2lite.flame.head import EXPRESSION, IDENTITY, USED, FlameHead
from a2lite.flame.pickles import read_pickle

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
    Warns where coefficients fitted on FLAME 2020 do not carry over. FileNotFoundError or ValueError in one line.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; expected FLAME's file in it, as generic_model.pkl or flame2023.pkl")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; FLAME is at https://flame.is.tue.mpg.de, after registration")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    arrays, version = _converted(path, digest)
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
                    return {name: file.get_tensor(name) for name in file.keys()}, meta["version"]  # noqa: SIM118
        except Exception as error:  # a damaged copy is made anew
            warnings.warn(f"{kept}: is damaged ({error}); written again from {path.name}", stacklevel=3)
    content = read_pickle(path)
    arrays, version = check(path, content), version_of(content, digest)
    try:
        partial = kept.with_name(kept.name + ".partial")
        save_file(arrays, partial, dict(source=digest, version=version))
        partial.replace(kept)
    except OSError:
        pass  # a read-only folder: converted at every call
    return arrays, version


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
        array = np.asarray(content[name])
        if array.dtype.kind not in "biuf" or array.shape != shape:
            raise ValueError(f"{path}: {name} is {array.shape} of {array.dtype}; expected numbers of shape {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity; download the file again")
        if not array.any():
            raise ValueError(f"{path}: {name} is zero throughout; a converter has lost it, take the published file")
        exact = name in ("f", "kintree_table")
        arrays[name] = torch.from_numpy(np.ascontiguousarray(array, np.int64 if exact else np.float32))
    if arrays["f"].min() < 0 or arrays["f"].max() >= VERTICES:
        raise ValueError(f"{path}: f names vertex {int(arrays['f'].max())}; expected 0 to {VERTICES - 1}")
    for name in ("J_regressor", "weights"):
        total = arrays[name].sum(1)
        if (total - 1).abs().max() > 1e-3:
            raise ValueError(f"{path}: a row of {name} adds up to {float(total.min()):.3g}; expected 1")
    return arrays


def _list(content: dict) -> str:
    names = [str(name) for name in content]
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
        parents=torch.tensor([-1, *arrays["kintree_table"][0, 1:].tolist()]),
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
    if (folder / "FLAME_masks.pkl").is_file():
        regions = {**head.regions, **_masks(folder / "FLAME_masks.pkl")}
        regions["upper_face"] = _upper_face(regions)
        colours = head.colours.clone()
        colours[regions["lips"]] = torch.tensor(LIP)
        head = replace(head, regions=regions, colours=colours)
    static = folder / "flame_static_embedding.pkl"
    whole = folder / "landmark_embedding.npy"
    if static.is_file():
        content = read_pickle(static)
        return replace(head, landmarks=_landmarks(static, content, "lmk_face_idx", "lmk_b_coords", head.faces))
    if whole.is_file():
        content = _object_npy(whole)
        names = "static_lmk_faces_idx", "static_lmk_bary_coords"
        return replace(head, landmarks=_landmarks(whole, content, *names, head.faces))
    return head


def _eyelid(path: Path) -> Tensor:
    """SMIRK's (5023, 3) of one lid, metres at closure 1."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as .npy ({error}); expected SMIRK's assets/{path.name}") from None
    if array.shape != (VERTICES, 3) or array.dtype.kind != "f" or not np.isfinite(array).all() or not array.any():
        raise ValueError(f"{path}: is {array.shape} of {array.dtype}; expected SMIRK's ({VERTICES}, 3), finite, not 0")
    return torch.from_numpy(array.astype(np.float32))


def _masks(path: Path) -> dict[str, Tensor]:
    content = read_pickle(path)
    if not isinstance(content, dict) or not set(content) >= MASKS:
        raise ValueError(f"{path}: has not all of FLAME's masks; expected {', '.join(sorted(MASKS))}")
    found = {}
    for name in MASKS:
        numbers = np.asarray(content[name])
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or numbers.max(initial=0) >= VERTICES:
            raise ValueError(f"{path}: {name} is {numbers.shape} of {numbers.dtype}; expected vertex numbers")
        found[name] = torch.from_numpy(np.unique(numbers.astype(np.int64)))
    return found


def _upper_face(regions: dict[str, Tensor]) -> Tensor:
    """Eye regions, forehead and nose (Sec. 6.1: brows and lids are what UFD looks at), without the eyeballs."""
    upper = torch.cat([regions[name] for name in ("eye_region", "forehead")]).unique()
    balls = torch.cat([regions["left_eyeball"], regions["right_eyeball"]])
    return upper[~torch.isin(upper, balls)]


PLACES = {  # of dlib's 68 points, without the 17 of the contour; the subject's left
    "nose_tip": 30, "right_eye_outer": 36, "right_upper_lid": 37, "right_eye_inner": 39, "right_lower_lid": 41,
    "left_eye_inner": 42, "left_upper_lid": 44, "left_eye_outer": 45, "left_lower_lid": 46,
    "right_corner": 48, "left_corner": 54, "upper_lip": 62, "lower_lip": 66,
}  # fmt: skip


def _landmarks(path: Path, content: object, at: str, weights: str, faces: Tensor) -> dict[str, int]:
    """The vertex nearest to each named landmark, of 51 barycentric ones."""
    if not isinstance(content, dict) or not {at, weights} <= set(content):
        raise ValueError(f"{path}: has no {at} and {weights}; expected a FLAME landmark embedding")
    triangles, corners = np.asarray(content[at]).astype(np.int64), np.asarray(content[weights])
    if triangles.shape != (51,) or corners.shape != (51, 3) or triangles.min() < 0 or triangles.max() >= TRIANGLES:
        raise ValueError(f"{path}: {at} is {triangles.shape}, {weights} {corners.shape}; expected (51,) and (51, 3)")
    nearest = faces[torch.from_numpy(triangles), torch.from_numpy(corners.argmax(1))]
    return {name: int(nearest[number - 17]) for name, number in PLACES.items()}


def _object_npy(path: Path) -> object:
    """A dict in a .npy file of one Python object: its header is skipped, its pickle read as any other."""
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        except ValueError as error:
            raise ValueError(f"{path}: cannot be read as .npy ({error})") from None
        start = file.tell()
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"{path}: is {shape} of {dtype}; expected one dict")
    return read_pickle(path, start)
