"""The studio: four lamps, and how much of their light reaches each vertex of a face.

The page's shader and ``picture.render`` read the same table and use the same formula, so that a picture of a
frame looks as the frame does in the player.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix, diags
from scipy.sparse.csgraph import connected_components

from a2lite.player.raster import axes, rasterise, unit, vertex_normals

# Lamps: key, fill, two rims. Directions point from the face to the lamp; "wrap" lets light reach round the
# edge of its shadow, red further than blue, as in skin.
STUDIO = {
    "direction": [[-0.51, 0.47, 0.72], [0.86, 0.05, 0.51], [0.60, 0.50, -0.63], [-0.77, 0.29, -0.57]],
    "colour": [[1.22, 1.10, 0.98], [0.18, 0.19, 0.22], [0.55, 0.62, 0.70], [0.32, 0.30, 0.28]],
    "wrap": [[0.30, 0.19, 0.15], [0.40, 0.40, 0.40], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
    "sky": [[0.19, 0.21, 0.24]],
    "ground": [[0.10, 0.08, 0.065]],
}
SKIN_GLOSS, EYE_GLOSS = 0.14, 1.0


def apart(count: int, faces: np.ndarray) -> np.ndarray:
    """(V,) the number of the connected piece that each vertex belongs to."""
    return connected_components(_neighbours(count, faces), directed=False)[1]


def light_shares(vertices: np.ndarray, faces: np.ndarray, pixels: int = 96) -> np.ndarray:
    """(V, 2): the share of the ambient light and of the (broad) key light that nothing keeps from a vertex.

    Seen from 40 points of a sphere, and from 16 round the key lamp, what is visible is lit; the shares are
    smoothed over neighbours, and a little light gets everywhere.
    """
    normals = vertex_normals(vertices, faces)
    key = np.asarray(STUDIO["direction"][0])
    around, lamp = _sphere(40), key + 0.22 * _sphere(16)
    shares = np.stack([_lit(vertices, normals, faces, place, pixels) for place in (around, lamp)], axis=1)
    mean = _neighbours(len(vertices), faces)
    for _ in range(2):
        shares = 0.5 * shares + 0.5 * (mean @ shares)
    return (0.12 + 0.88 * shares).astype(np.float32)


def _neighbours(count: int, faces: np.ndarray) -> csr_matrix:
    """(V, V) sparse: times a column of values, the mean over each vertex's neighbours."""
    corners = np.concatenate([faces, faces[:, ::-1]])  # each edge once in either direction
    start, end = corners.ravel(), np.roll(corners, 1, axis=1).ravel()
    links = csr_matrix((np.ones(len(start)), (start, end)), (count, count))
    degree = np.bincount(start, minlength=count)
    return diags(1 / np.maximum(degree, 1)) @ links


def _sphere(count: int) -> np.ndarray:
    """(count, 3) points spread evenly over the unit sphere (Fibonacci's spiral)."""
    y = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    return np.stack([np.cos(turn) * np.sqrt(1 - y * y), y, np.sin(turn) * np.sqrt(1 - y * y)], axis=1)


def _lit(vertices, normals, faces, directions, pixels: int) -> np.ndarray:
    """(V,) visibility from ``directions`` (n, 3), a mean weighted by the cosine to the vertex's normal."""
    middle, radius = vertices.mean(0), np.linalg.norm(vertices - vertices.mean(0), axis=1).max()
    seen, total = np.zeros(len(vertices)), np.full(len(vertices), 1e-6)
    for direction in unit(directions):
        view = (vertices - middle) @ axes(direction).T  # (V, 3): right, up, towards the lamp
        xy = (1 + view[:, :2] * [1, -1] / radius) * pixels / 2
        pixel, _, _, z = rasterise(xy, -view[:, 2], faces, pixels, pixels)
        nearest = np.full(pixels * pixels, np.inf)
        nearest[pixel] = z
        cosine = np.maximum(normals @ direction, 0) + 0.02
        seen += cosine * _below(nearest.reshape(pixels, pixels), xy, -view[:, 2] - 5 * radius / pixels)
        total += cosine
    return seen / total


def _below(surface: np.ndarray, xy: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(V,) share (bilinear) of the four pixels round each ``xy`` where ``surface`` is not before ``z``."""
    low = np.clip(np.floor(xy - 0.5), 0, len(surface) - 2).astype(int)
    right, down = np.clip(xy - 0.5 - low, 0, 1).T
    share = 0.0
    for row, weight in ((0, 1 - down), (1, down)):
        for column, part in ((0, 1 - right), (1, right)):
            share = share + weight * part * (z <= surface[low[:, 1] + row, low[:, 0] + column])
    return share


def shade(normals, to_eye, colours, gloss, light) -> np.ndarray:
    """sRGB (V, 3) from unit normals, directions to the eye, linear RGB (each (V, 3)), gloss (V,), light (V, 2)."""
    up = 0.5 + 0.5 * normals[:, 1:2]
    diffuse = light[:, :1] * (np.asarray(STUDIO["sky"]) * up + np.asarray(STUDIO["ground"]) * (1 - up))
    shine = np.zeros_like(diffuse)
    for lamp in range(4):
        direction, colour, wrap = (np.asarray(STUDIO[name][lamp]) for name in ("direction", "colour", "wrap"))
        reach = light[:, 1 if lamp == 0 else 0, None]
        cosine = (normals @ direction)[:, None]
        diffuse += reach * np.clip((cosine + wrap) / (1 + wrap), 0, 1) * colour
        if lamp < 2:  # the rims only draw the outline
            cosine = np.clip((normals * unit(to_eye + direction)).sum(1), 0, 1)
            glint = cosine ** (20 + 160 * gloss) * gloss * (0.5 + gloss)
            shine += (reach + (1 - reach) * gloss[:, None]) * glint[:, None] * colour
    linear = colours * diffuse + shine
    return np.clip(linear / (1 + 0.18 * linear), 0, 1) ** (1 / 2.2)
