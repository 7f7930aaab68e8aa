"""Fine detail of the skin as one small picture: pores, lines of lips and age, and folds that show when it is squeezed.

Its channels are tone (128 is none), relief that is always there (+-0.25 mm) and folds (+-2 mm). It is laid on the face
from the front, so that a vertex at rest at (x, y) sees the same place of it in everybody.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from a2lite.flame import FlameHead
from a2lite.people.numbering import SKIN
from a2lite.player.look import Detail
from a2lite.player.raster import areas, vertex_normals

SIZE, HALF_WIDTH, HALF_HEIGHT = 384, 76.0, 106.0  # pixels; millimetres
RELIEF, FOLD = 0.25, 2.0  # millimetres at the end of a channel
# Lines on the left half: points, width and depth in millimetres
Line = tuple[list[tuple[float, float]], float, float]
FOREHEAD: list[Line] = [
    ([(0, y - 0.5), (14, y + 1.2), (30, y + 0.8), (44, y - 2.5)], 1.0, 0.9) for y in (61, 68, 75.5, 82)
]
FROWN: list[Line] = [([(4.8, 38), (5.6, 46), (5.0, 55)], 0.9, 0.9)]
CROWS_FEET: list[Line] = [
    ([(47, 30), (60, 37)], 0.8, 1.0), ([(48, 27), (62, 28)], 0.8, 1.0), ([(47, 23), (59, 17)], 0.8, 1.0)
]  # fmt: skip
UNDER_EYE: list[Line] = [([(20, 15), (30, 11.5), (41, 14.5)], 1.0, 0.8), ([(18, 10), (29, 6.5), (40, 10)], 1.0, 0.6)]
NOSE: list[Line] = [([(3, 24), (9, 20)], 0.7, 0.5), ([(3, 18), (10, 13)], 0.7, 0.5)]
CHEEK: list[Line] = [([(15.5, -9), (20, -16), (25, -25), (28.5, -34), (30, -42)], 2.0, 2.0)]
SMILE: list[Line] = [([(33, -34), (36, -44), (34, -54)], 1.6, 1.0)]


def detail(head: FlameHead, shape: np.ndarray, age: float = 0.3, freckles: float = 0.0, beard: float = 0.0) -> Detail:
    """For the face that rests at ``shape`` (5023, 3) metres; ``age``, ``freckles``, (shaved) ``beard`` from 0 to 1."""
    rest = head.v_template.numpy()
    x, y, z = 1000 * rest[:SKIN].T
    uv = np.zeros((len(rest), 2))
    uv[:SKIN] = np.stack([x / HALF_WIDTH + 1, 1 - y / HALF_HEIGHT], 1) / 2
    facing = vertex_normals(rest, head.faces.numpy())[:SKIN, 2]  # a picture from the front smears on flanks
    share = np.clip((z + 5) / 30, 0, 1) * np.clip((facing - 0.1) / 0.3, 0, 1) * np.clip((y + 102) / 12, 0, 1)
    for region in ("left_ear", "right_ear"):
        share[head.regions[region].numpy()] = 0
    share = np.concatenate([share, np.zeros(len(rest) - SKIN)])
    anchor = head.regions["scalp"].numpy()
    size, heights = (2e-3 * HALF_WIDTH, 2e-3 * HALF_HEIGHT), (1e-3 * RELIEF, 1e-3 * FOLD)
    picture, area = _picture(age, freckles, beard), areas(shape, head.faces.numpy())
    return Detail(picture, uv, share, size, heights, anchor, shape[anchor], area)


@lru_cache
def _picture(age: float, freckles: float, beard: float) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(-HALF_WIDTH, HALF_WIDTH, SIZE), np.linspace(HALF_HEIGHT, -HALF_HEIGHT, SIZE))
    pixel = 2 * HALF_WIDTH / SIZE
    lips = _lips(x, y)
    tone = 2.5 * _noise(rng, 1.4 / pixel) + 3.0 * _noise(rng, 5 / pixel)
    tone -= 5 * lips * np.clip(_noise(rng, 0.7 / pixel), 0, 3)
    tone -= 26 * freckles * _freckles(rng, x, y, pixel)
    shadow = gaussian_filter(_bearded(x, y) * (1 - lips), 4)
    tone -= beard * shadow * (16 + 14 * _noise(rng, 0.35 / pixel))
    relief = 0.022 * _noise(rng, 0.5 / pixel) * (1 - 0.5 * lips)
    relief += 0.05 * lips * np.sin(2 * np.pi * (x + 0.6 * gaussian_filter(rng.normal(size=x.shape), 6)) / 1.9)
    lasting = [*FOREHEAD, *CROWS_FEET, *UNDER_EYE, *CHEEK, *SMILE, *FROWN]
    relief += 0.22 * age**1.5 * _grooves(lasting, x, y)
    folds = _grooves([*FROWN, *NOSE, *CHEEK, *SMILE], x, y)
    folds += (0.4 + 0.6 * age) * _grooves([*FOREHEAD, *CROWS_FEET, *UNDER_EYE], x, y)
    channels = [128 + tone, 128 + 127 * relief / RELIEF, 128 + 127 * folds / FOLD]
    return np.clip(np.stack(channels, -1), 0, 255).round().astype(np.uint8)


def _noise(rng: np.random.Generator, width: float) -> np.ndarray:
    """Smooth noise of variance 1."""
    rough = gaussian_filter(rng.normal(size=(SIZE, SIZE)), max(width, 0.3))
    return rough / rough.std()


def _lips(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    arch = np.clip(1 - (x / 23.0) ** 2, 0, 1) ** 0.8
    return gaussian_filter(((y < -41 + 8 * arch) & (y > -41 - 10 * arch)).astype(float), 1.5)


def _bearded(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    below = (y < np.interp(np.abs(x), [0, 20, 36, 50, 70], [-24, -26, -30, -12, 4])) & (np.abs(x) < 72)
    return below.astype(float)


def _freckles(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, pixel: float) -> np.ndarray:
    where = np.exp(-(((np.abs(x) - 24) / 20) ** 2) - ((y - 2) / 13) ** 2)
    dots = (rng.random(x.shape) < 0.02 * where) * rng.random(x.shape)
    return np.clip(gaussian_filter(dots, 0.55 / pixel) * 9, 0, 1)


def _grooves(lines: list[Line], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Heights in mm: furrows with soft banks, tapering at both ends, alike on both sides."""
    height, places = np.zeros(x.shape), np.stack([np.abs(x), y], -1).reshape(-1, 2)
    for points, width, depth in lines:
        knots = np.array(points, float)
        length = np.concatenate([[0], np.linalg.norm(np.diff(knots, axis=0), axis=1).cumsum()])
        t = np.linspace(0, length[-1], max(8, int(length[-1] / 0.3)))
        path = np.stack([np.interp(t, length, knots[:, i]) for i in range(2)], 1)
        path = gaussian_filter(path, (3 / 0.3, 0), mode="nearest")
        far, nearest = cKDTree(path).query(places, distance_upper_bound=6 * width)
        near = np.isfinite(far)
        d, end = far[near] / width, t[np.minimum(nearest[near], len(t) - 1)] / length[-1]
        inner = knots[0, 0] < 1  # a line that crosses the middle goes on there
        taper = np.sqrt(np.clip(np.minimum(1 if inner else 4 * end, 4 * (1 - end)), 0, 1))
        profile = -np.exp(-(d**2)) + 0.4 * np.exp(-(((d - 2.0) / 1.2) ** 2))
        height.reshape(-1)[near] += depth * taper * profile
    return height
