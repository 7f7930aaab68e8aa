"""A small z-buffer in NumPy: which triangle of a mesh lies nearest under every pixel, without OpenGL."""

from __future__ import annotations

import numpy as np


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3), (F, 3) -> (V, 3) unit normals, the mean of the adjoining faces weighted by their areas."""
    return unit(_crosses(vertices, faces))


def areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) square metres of the surface around each vertex, along its normal."""
    return np.linalg.norm(_crosses(vertices, faces), axis=1)


def _crosses(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) sums of the adjoining faces' cross products."""
    a, b, c = vertices[faces].transpose(1, 0, 2)  # each (F, 3)
    across = np.repeat(np.cross(b - a, c - a), 3, axis=0)  # (3 F, 3)
    return np.stack([np.bincount(faces.ravel(), across[:, axis], len(vertices)) for axis in range(3)], axis=1)


def rasterise(xy: np.ndarray, depth: np.ndarray, faces: np.ndarray, width: int, height: int):
    """The nearest face under every pixel centre.

    xy (V, 2) in pixels, x right, y down; depth (V,), smaller is nearer.
    Returns pixel (n,) flat indices of the covered pixels, face (n,), weights (n, 3) barycentric, z (n,).
    """
    corners = xy[faces]  # (F, 3, 2)
    low = np.clip(np.ceil(corners.min(1) - 0.5), 0, [width, height]).astype(int)
    high = np.clip(np.floor(corners.max(1) - 0.5) + 1, 0, [width, height]).astype(int)
    a, b, c = corners.transpose(1, 0, 2)
    facing = (b - a)[:, 0] * (c - a)[:, 1] < (b - a)[:, 1] * (c - a)[:, 0]  # y runs down: the sign is turned
    span = np.maximum(high - low, 0) * facing[:, None]  # (F, 2), columns and rows of pixels
    count = span.prod(1)
    face = np.repeat(np.arange(len(faces)), count)  # one entry per (face, pixel of its box)
    place = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    column = low[face, 0] + place % span[face, 0]
    row = low[face, 1] + place // span[face, 0]
    weights = _barycentric(corners, face, np.stack([column, row], 1) + 0.5)
    inside = (weights >= -1e-9).all(1)
    face, weights, pixel = face[inside], weights[inside], (row * width + column)[inside]
    z = (weights * depth[faces[face]]).sum(1)
    nearest = np.full(width * height, np.inf)
    np.minimum.at(nearest, pixel, z)
    front = np.nonzero(z == nearest[pixel])[0]
    front = front[np.unique(pixel[front], return_index=True)[1]]  # one face where two share an edge
    return pixel[front], face[front], weights[front], z[front]


def _barycentric(corners: np.ndarray, face: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(F, 3, 2), (n,), (n, 2) -> (n, 3) weights of each point in its face."""
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    to = points - a[face]
    v = (to[:, 0] * ac[face, 1] - to[:, 1] * ac[face, 0]) / area[face]
    w = (ab[face, 0] * to[:, 1] - ab[face, 1] * to[:, 0]) / area[face]
    return np.stack([1 - v - w, v, w], axis=1)


def axes(towards: np.ndarray) -> np.ndarray:
    """(3, 3) rows right, up, towards: a camera in the direction ``towards`` (not straight up) of the face."""
    towards, right = unit(np.stack([towards, np.cross([0, 1, 0], towards)]))
    return np.stack([right, np.cross(towards, right), towards])


def camera_for(vertices: np.ndarray, top: float = -np.inf, bottom: float = np.inf) -> dict:
    """The camera of a face (V, 3): far enough off to flatter, the end of the neck out of sight.

    What it wears reaches from ``bottom`` to ``top``, in metres.
    """
    low, high = vertices.min(0), vertices.max(0)
    low[1], high[1] = min(low[1], bottom), max(high[1], top)
    height = float((high - low)[1])
    middle = (low + high) / 2 + [0, 0.02 * height, 0]
    return {"middle": middle.tolist(), "height": height, "distance": 3.6 * height, "focal": 7.7}


def close_up(vertices: np.ndarray) -> dict:
    """The camera of small pictures of a face (V, 3): from the hair over the brow to the collar."""
    camera = camera_for(vertices)
    middle = np.subtract(camera["middle"], [0, 0.05 * camera["height"], 0])
    return {**camera, "middle": middle.tolist(), "focal": 1.1 * camera["focal"]}


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, 3) vectors, each divided by its length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)
