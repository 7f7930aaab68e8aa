"""The head's skin as a signed distance function, and rays that find it.

Millimetres; y up, z forward, symmetric in x. Negative inside. Every number is ours, set by eye: ellipsoids and
capsules, joined and carved with a soft edge ``k`` mm wide.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EYE = np.array([31.5, 27.0, 39.5])  # centre of the left eyeball
EYE_RADIUS = 12.6
CENTRE = np.array([0.0, 42.0, -12.0])  # where the rays of the upper head start
NECK_FROM = 0.74  # share of the way from crown to neck edge after which the rays' origin slides down

Field = Callable[[np.ndarray], np.ndarray]  # (N, 3) -> (N,)


def join(a: np.ndarray, b: np.ndarray, k: float | np.ndarray) -> np.ndarray:
    """Smooth union of two distances."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b + (a - b) * h - k * h * (1 - h)


def overlap(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    return -join(-a, -b, k)


def carve(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    return overlap(a, -b, k)


def turned(q: np.ndarray, axes: tuple[int, int], degrees: float) -> np.ndarray:
    i, j = axes
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    out = q.copy()
    out[:, i] = cos * q[:, i] + sin * q[:, j]
    out[:, j] = -sin * q[:, i] + cos * q[:, j]
    return out


def ellipsoid(p: np.ndarray, centre, radii, yaw: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Distance to an ellipsoid, exact on its surface only; turned by degrees about y (yaw) or z (roll)."""
    q, radii = p - np.asarray(centre, float), np.asarray(radii, float)
    if yaw:
        q = turned(q, (2, 0), yaw)
    if roll:
        q = turned(q, (0, 1), roll)
    q = q / radii
    inner = np.sqrt((q * q).sum(1)) + 1e-9
    q = q / radii
    return inner * (inner - 1) / (np.sqrt((q * q).sum(1)) + 1e-9)


def capsule(p: np.ndarray, start, end, radius: float, radius_end: float) -> np.ndarray:
    start, end = np.asarray(start, float), np.asarray(end, float)
    axis = end - start
    t = np.clip(((p - start) @ axis) / (axis @ axis), 0, 1)
    d = p - start - t[:, None] * axis
    return np.sqrt((d * d).sum(1)) - (radius + (radius_end - radius) * t)


def bump(dx: np.ndarray, dy: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.exp(-0.5 * ((dx / width) ** 2 + (dy / height) ** 2))


def _skull(p: np.ndarray) -> np.ndarray:
    d = ellipsoid(p, (0, 57, -22), (73, 85, 92))
    d = join(d, ellipsoid(p, (0, 74, 24), (54, 42, 46)), 18)  # forehead
    d = join(d, ellipsoid(p, (0, 28, -42), (69, 72, 70)), 24)  # back
    return join(d, ellipsoid(p, (0, 76, -36), (67, 60, 68)), 22)  # parietal; without it the crown is an egg


def _with_face(d: np.ndarray, p: np.ndarray) -> np.ndarray:
    d = join(d, ellipsoid(p, (0, 6, 14), (54, 60, 51)), 16)
    d = join(d, ellipsoid(p, (0, -34, 31), (31, 36, 39)), 16)  # muzzle
    d = join(d, ellipsoid(p, (0, -46, 18), (40, 30, 42)), 14)  # floor of the mouth
    d = join(d, capsule(p, (54, 4, -12), (40, -45, 1), 11, 10.5), 18)  # ramus
    d = join(d, capsule(p, (40, -45, 1), (11, -74, 48), 10.5, 10.5), 20)  # body of the jaw
    d = join(d, ellipsoid(p, (0, -75, 53), (17.0, 13, 17)), 18)  # chin
    d = join(d, ellipsoid(p, (37, -26, 22), (17, 34, 24)), 22)  # wall of the cheek
    d = join(d, ellipsoid(p, (43, -20, 12), (13, 26, 20)), 18)  # masseter
    d = join(d, ellipsoid(p, (50.5, -6, -2), (13, 20, 15)), 18)  # in front of the ear
    d = join(d, ellipsoid(p, (43.5, 3, 36), (15.5, 11, 18), roll=-12), 20)  # cheekbone
    d = join(d, capsule(p, (44, 4, 42), (60, 9, 0), 7.5, 6.0), 18)  # zygomatic arch
    return join(d, ellipsoid(p, (31, -14, 42), (19.5, 21, 20.5)), 18)  # malar fat


def _with_neck(d: np.ndarray, p: np.ndarray) -> np.ndarray:
    neck = ellipsoid(p * np.array([1, 0.0, 1.12]), (0, 0, -42), (46.5, 1e3, 50))
    neck = join(neck, capsule(p, (66, -225, -60), (20, -225, -40), 55, 62), 60)  # shoulders below the cut
    d = join(d, overlap(neck, p[:, 1] + 30, 20), 20)
    d = join(d, capsule(p, (0, -104, 2), (0, -170, -4), 9, 9), 14)  # throat
    return join(d, capsule(p, (46, -22, -36), (13, -175, 2), 6, 8), 18)  # sternomastoid


def _with_eyes(d: np.ndarray, p: np.ndarray) -> np.ndarray:
    d = carve(d, ellipsoid(p, (34, 25, 68), (21, 13.5, 19), roll=-6), 12)  # socket
    d = carve(d, ellipsoid(p, (18, 23, 70), (8, 9.0, 20.5)), 9)  # hollow of the inner corner
    d = join(d, capsule(p, (10, 45, 61.5), (32, 51, 55.5), 5.5, 5.5), 14)  # brow
    d = join(d, capsule(p, (32, 51, 55.5), (50, 43, 38), 5.5, 4.5), 18)
    return carve(d, ellipsoid(p, (83, 44, 28), (14, 22, 26)), 20)  # temple


def _nose(p: np.ndarray) -> np.ndarray:
    n = capsule(p, (0, 36, 62), (0, -1, 84), 5.6, 6.0)  # bridge
    n = join(n, ellipsoid(p, (0, -7.5, 84), (8.0, 7.8, 9.6)), 7)  # tip
    n = join(n, ellipsoid(p, (4.0, -8.5, 86.5), (5.0, 5.6, 6)), 5)  # dome
    n = join(n, ellipsoid(p, (11.6, -10.5, 74.5), (5.5, 6.2, 8.5), yaw=-14), 6)  # wing
    n = join(n, ellipsoid(p, (5, 12, 65), (6.5, 20, 10)), 10)  # side wall
    n = join(n, capsule(p, (0, -13, 86), (0, -18, 74), 4.0, 4.0), 5)  # columella
    return join(n, capsule(p, (0, 26, 56), (0, -10, 72), 7.0, 7.5), 5)  # core; without it a cavity stays


def _folds(p: np.ndarray) -> np.ndarray:
    """Depth of the skin's folds, positive where skin is taken away."""
    x, y, z = p.T
    front = np.clip((z - 30) / 20, 0, 1)
    philtrum = front * 1.5 * bump(x, y + 23, 2.6, 7) - front * 0.7 * bump(x - 5, y + 24, 2.4, 7)
    under_lip = front * 3.0 * bump(x, y + 58, 16, 4.8)
    beside_nose = x - (22 + (-12 - y) * 0.42)
    nasolabial = front * 1.1 * np.exp(-0.5 * (beside_nose / 3.2) ** 2) * np.exp(-0.5 * ((y + 22) / 11) ** 2)
    return philtrum + under_lip + nasolabial + front * 1.8 * bump(x - 28, y + 43, 4.5, 6)  # the last: mouth corner


def skin_distance(points: np.ndarray) -> np.ndarray:
    """Signed distance (N,) of ``points`` (N, 3) to the skin."""
    p = np.array(points, float)
    p[:, 0] = np.sqrt(p[:, 0] ** 2 + 0.01)  # mirrored, a hair rounded at the midline
    d = _with_eyes(_with_neck(_with_face(_skull(p), p), p), p)
    d = carve(d, ellipsoid(p, (19.5, -8, 74), (3.0, 7.5, 6)), 7)  # groove round the wing
    d = join(d, _nose(p), 4.5 + 5 * np.clip((p[:, 1] + 6) / 22, 0, 1))
    d = d + _folds(p)
    lids = np.sqrt(((p - EYE) ** 2).sum(1)) - (EYE_RADIUS + 1.9)
    return join(d, lids, 4.0)


# ---------------------------------------------------------------- finding the surface


def outward(origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """First zero of the distance along each ray that starts inside: (N, 3)."""
    far = 260.0
    origin = np.broadcast_to(origin, direction.shape)
    t = np.zeros(len(direction))
    low, high, done = t.copy(), np.full(len(t), np.nan), np.zeros(len(t), bool)
    for _ in range(60):
        active = np.nonzero(~done)[0]
        if not len(active):
            break
        d = skin_distance(origin[active] + t[active, None] * direction[active])
        out = active[d > 0]
        high[out], done[out] = t[out], True
        inside = active[d <= 0]
        low[inside] = t[inside]
        t[inside] += np.maximum(-d[d <= 0] * 0.8, 0.35)
        done[inside[t[inside] > far]] = True
    return _bisect(origin, direction, low, np.where(np.isnan(high), t, high), 9)


def _bisect(origin: np.ndarray, direction: np.ndarray, low: np.ndarray, high: np.ndarray, rounds: int) -> np.ndarray:
    """``low`` is inside, ``high`` outside."""
    for _ in range(rounds):
        middle = 0.5 * (low + high)
        inside = skin_distance(origin + middle[:, None] * direction) <= 0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return origin + (0.5 * (low + high))[:, None] * direction


def frontmost(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The surface point nearest to the viewer at each (x, y): (N, 3)."""
    z = np.full(len(x), 112.0)
    outside, done = z.copy(), np.zeros(len(x), bool)
    for _ in range(80):
        d = skin_distance(np.stack([x, y, z], 1))
        done |= d <= 0
        outside = np.where(done, outside, z)
        z = np.where(done, z, z - np.maximum(0.75 * d, 0.3))
    for _ in range(10):
        middle = 0.5 * (outside + z)
        free = skin_distance(np.stack([x, y, middle], 1)) > 0
        outside, z = np.where(free, middle, outside), np.where(free, z, middle)
    return np.stack([x, y, 0.5 * (outside + z)], 1)


def lowest_elevation(theta: np.ndarray) -> np.ndarray:
    """Elevation of the last ray that starts at ``CENTRE``: steeper at the front, to see under the chin."""
    return np.deg2rad(-(62 + 10 * (0.5 + 0.5 * np.cos(theta))))


def rays(theta: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origins and directions of the head's ray family: theta 0 front .. pi back, s 0 crown .. 1 edge of the neck."""
    lowest = lowest_elevation(theta)
    upper, lower = np.clip(s / NECK_FROM, 0, 1), np.clip((s - NECK_FROM) / (1 - NECK_FROM), 0, 1)
    elevation = np.where(s > NECK_FROM, lowest * (1 - lower), np.pi / 2 + (lowest - np.pi / 2) * upper)
    oy = CENTRE[1] + (-150 - CENTRE[1]) * np.where(s > NECK_FROM, lower**0.8, 0)
    oz = CENTRE[2] + (-40 - CENTRE[2]) * lower
    flat = np.cos(elevation)
    return np.stack([0 * oy, oy, oz], -1), np.stack([flat * np.sin(theta), np.sin(elevation), flat * np.cos(theta)], -1)
