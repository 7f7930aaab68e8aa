"""Eyes, mouth, ears and nostrils as explicit rings of points, each from the inside out (left half, millimetres).

What moves most gets its own edge loops; the rest of the skin is filled in between by ``topology.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

from a2lite.flame.sculptor.surface import EYE, EYE_RADIUS, frontmost, outward, skin_distance

EYE_POINTS, MOUTH_SEGMENTS, EAR_POINTS, NOSTRIL_POINTS = 36, 24, 26, 12  # the mouth's is a half ring
LID_REACH = np.array([0, 0.06, 0.15, 0.25, 0.33, 0.42, 0.56, 0.76, 1.0])  # from the lid's margin (0) to the orbit (1)
LID_MARGIN = 5  # rings of the eye before the margin: four of lining, then the inner edge
MOUTH_CORNER = MOUTH_SEGMENTS // 2
MOUTH_HALF_WIDTH, MOUTH_Y = 23.5, -41.0
LIP_WIDTH = np.array([0, 0.10, 0.28, 0.54, 0.8, 1.0, 1.14, 1.4, 1.7, 2.0])  # 0 contact, 1 vermilion border
CONTACT = 6  # rings of the mouth before the line where the lips meet
_HEIGHT_AT = [0, 0.10, 0.28, 0.54, 0.8, 1, 1.14, 1.4, 2]
_UPPER_HEIGHT = PchipInterpolator(_HEIGHT_AT, [-1.6, 1.4, 3.4, 3.9, 2.8, 1.6, 0.9, 0.2, 0])
_LOWER_HEIGHT = PchipInterpolator(_HEIGHT_AT, [-1.6, 1.8, 4.4, 5.0, 3.4, 1.0, 0.2, 0, 0])
# Rings inside the mouth, as (dy, dz, scale of x): back of the lip, vestibule, gum, tooth edge, palate or tongue, throat
_UPPER_INSIDE = [(0.6, -3.0, 1.0), (6.0, -6.5, 0.97), (6.0, -8.0, 0.93), (-1.2, -9.5, 0.90), (8.0, -15.0, 0.82),
                 (12.0, -36, 0.6)]
_LOWER_INSIDE = [(-0.6, -3.0, 1.0), (-7.0, -7.0, 0.97), (-7.0, -8.5, 0.93), (-1.6, -11.0, 0.88), (-4.0, -15.0, 0.80),
                 (-3.0, -38, 0.6)]


@dataclass
class Patch:
    """``rings`` from the innermost out, each (n, 3); ``centre`` caps the innermost where the patch is closed."""

    name: str
    rings: list[np.ndarray]
    centre: np.ndarray | None
    along: np.ndarray  # (n,) position on the ring: see each maker
    upper: np.ndarray  # (n,) bool: above the eye, or of the upper lip


def unit(a: np.ndarray) -> np.ndarray:
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def _bell(x: np.ndarray | float, centre: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - centre) / width) ** 2)


# ---------------------------------------------------------------- eye


def eye_patch() -> Patch:
    """Point 0 is the outer corner, 18 the inner one, between them the upper lid; ``along`` is 0 outer .. 1 inner."""
    i = np.arange(EYE_POINTS)
    upper = i <= EYE_POINTS // 2
    u = np.where(upper, i / (EYE_POINTS / 2), (EYE_POINTS - i) / (EYE_POINTS / 2))
    dense = u - 0.045 * np.sin(2 * np.pi * u)  # denser at the corners
    dx, dy = _lid_margin(dense, upper)
    ox, oy = _orbit(u, upper)
    arch = np.sin(np.pi * u)
    skin = []
    for k, reach in enumerate(LID_REACH):
        point = frontmost(EYE[0] + dx + (ox - EYE[0] - dx) * reach, EYE[1] + dy + (oy - EYE[1] - dy) * reach)
        radius = np.linalg.norm(point - EYE, axis=1) - (0.55 if k == 0 else 0)
        crease = -1.3 * _bell(reach, 0.335, 0.055) + 1.3 * _bell(reach, 0.5, 0.09)
        roll = -0.35 * _bell(reach, 0.36, 0.06) + 0.45 * _bell(reach, 0.17, 0.09)
        skin.append(EYE + unit(point - EYE) * (radius + arch * np.where(upper, crease, roll))[:, None])
    lining, centre = _eye_lining(skin[0], dense)
    return Patch("eye", lining + skin, centre, u, upper)


def _lid_margin(u: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slit of the open eye, 28.8 mm wide, its outer corner 3.8 mm higher: offsets from the eye's centre."""
    over, under = 5.7 * np.sin(np.pi * u**0.95) ** 0.78, 4.6 * np.sin(np.pi * u**0.85) ** 0.85
    return 13.6 + (-15.2 - 13.6) * u, 1.6 + (-2.2 - 1.6) * u + np.where(upper, over, -under)


def _orbit(u: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a = np.arctan2(np.where(upper, 1, -1) * np.sin(np.pi * u), np.cos(np.pi * u))
    width = np.where(np.cos(a) > 0, 23.5, 18.0 - 1.5 * np.sin(a))
    height = np.where(np.sin(a) > 0, 16.5, 16.0)
    return EYE[0] + 0.5 + width * np.cos(a), EYE[1] + 0.5 + height * np.sin(a) + 1.5 * np.cos(a)


def _eye_lining(margin: np.ndarray, u: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Inner edge of the lid, then four rings round to a cap behind the eyeball; the last one comes first."""
    direction = unit(margin - EYE)
    axis = unit(direction.mean(0))
    corner = 1.0 * (np.abs(2 * u - 1) ** 6) * 3
    edge = np.minimum(np.linalg.norm(margin - EYE, axis=1) - 0.9, EYE_RADIUS + 0.35 + corner)
    rings = [EYE + direction * edge[:, None]]
    start = np.arccos(np.clip(direction @ axis, -1, 1))
    side = unit(direction - (direction @ axis)[:, None] * axis)
    for share, gap in ((0.25, 0.9), (0.5, 1.2), (0.75, 1.4), (0.92, 1.4)):
        polar = start + (np.pi - start) * share
        rings.append(EYE + (EYE_RADIUS + gap) * (np.cos(polar)[:, None] * axis + np.sin(polar)[:, None] * side))
    return rings[::-1], EYE - axis * (EYE_RADIUS + 1.4)


# ---------------------------------------------------------------- mouth


def mouth_patch() -> Patch:
    """Half rings: point 0 is the middle of the upper lip, 12 the corner, 24 the middle of the lower lip.

    ``along`` is 0 in the middle .. 1 at the corner.
    """
    k = np.arange(MOUTH_SEGMENTS + 1)
    upper = k <= MOUTH_CORNER
    q = np.where(upper, k / MOUTH_CORNER, (MOUTH_SEGMENTS - k) / MOUTH_CORNER)
    t = 0.45 * q + 0.55 * np.sin(q * np.pi / 2)
    full = np.clip(1 - t**2, 0, 1) ** 0.62
    x = MOUTH_HALF_WIDTH * t
    contact = MOUTH_Y - 0.9 * np.exp(-((x / 6.5) ** 2)) + 0.5 * np.sin(np.pi * t) + 0.2 * t**4
    bow = -1.5 * np.exp(-((x / 2.6) ** 2)) + 0.7 * np.exp(-(((x - 5.6) / 3.0) ** 2))
    over, under = 8.0 * np.clip(1 - t**1.7, 0, 1) ** 0.95 + bow, -9.6 * np.clip(1 - t**2.5, 0, 1) ** 0.82
    bx, by = x + 1.6 * t**6, contact + np.where(upper, over, under)
    a = np.pi / 2 * q
    ox, oy = 36 * np.sin(a) ** 0.9, MOUTH_Y - 1.0 + np.where(upper, 16.5, -18.0) * np.cos(a) ** 0.9
    lips = []
    for w in LIP_WIDTH:
        if w <= 1:
            px, py = x + (bx - x) * w, contact + (by - contact) * w
        else:
            px, py = bx + (ox - bx) * (w - 1), by + (oy - by) * (w - 1)
        if w == 0:
            py = np.where(t < 1, contact + np.where(upper, 1.0, -1.0) * 0.12 * (1 - t), py)
        corner = np.exp(-(((px - MOUTH_HALF_WIDTH) / 4) ** 2) - ((py - MOUTH_Y) / 4) ** 2)
        height = np.where(upper, _UPPER_HEIGHT(w), _LOWER_HEIGHT(w)) * full
        height = height - 1.6 * (1 - full) * max(0, 1 - 0.8 * w) - 1.2 * corner * (w <= 1.4)
        lips.append(np.stack([px, py, frontmost(px, py)[:, 2] + height], 1))
    return Patch("mouth", _mouth_inside(lips[0], t, upper) + lips, None, t, upper)


def _mouth_inside(contact: np.ndarray, t: np.ndarray, upper: np.ndarray) -> list[np.ndarray]:
    """Back of the lips, gums, teeth, palate and tongue; the depth turns from the lips' curve to a dental arch."""
    x, y, z = contact.T
    fade = np.clip(1 - t**3, 0, 1)
    at_corner = np.arange(len(t)) == MOUTH_CORNER
    rings = []
    for (uy, uz, ux), (ly, lz, lx) in zip(_UPPER_INSIDE, _LOWER_INSIDE, strict=True):
        dz = np.where(at_corner, 0.5 * (uz + lz), np.where(upper, uz, lz))
        narrow = np.where(at_corner, 0.5 * (ux + lx), np.where(upper, ux, lx))
        px = MOUTH_HALF_WIDTH * t * narrow
        arch = min(1, -uz / 9.0)
        on_arch = (z[0] + dz) - 15.0 * (px / 22.0) ** 2 * 0.9
        pz = z + dz
        pz = pz + (np.minimum(on_arch, pz) - pz) * arch
        py = y * (1 - arch) + arch * (MOUTH_Y - 0.5) + np.where(upper, uy, ly) * fade
        rings.append(np.stack([px, py, pz], 1))
    return rings[::-1]


# ---------------------------------------------------------------- ear

_EAR_OUTLINE = [(0, 21), (30, 25), (60, 29.5), (88, 31), (112, 27.5), (138, 19.5), (160, 13.5), (180, 12), (200, 12),
                (222, 14.5), (246, 20.5), (264, 25.5), (282, 26.5), (300, 24.0), (318, 22), (338, 21), (360, 21)]


class _EarPlate:
    """The plane of the ear, turned 24 degrees out and tilted 10: axes back, up and out of the head."""

    def __init__(self):
        self.angle = np.arange(EAR_POINTS) / EAR_POINTS * 360
        self.radius = CubicSpline(*np.array(_EAR_OUTLINE).T, bc_type="periodic")(self.angle)
        turn, tilt = np.deg2rad(24), np.deg2rad(10)
        self.back = np.array([np.sin(turn), 0, -np.cos(turn)])
        up = np.array([0, np.cos(tilt), -np.sin(tilt)])
        self.up = unit(up - self.back * (self.back @ up))
        out = np.cross(self.up, self.back)
        self.out = out if out[0] > 0 else -out
        skin = outward(np.array([[30.0, 9, -13]]), np.array([[1.0, 0, 0]]))[0, 0]
        self.origin = np.array([skin + 4.6, 9, -13])

    def ring(self, share: np.ndarray, height: np.ndarray) -> np.ndarray:
        along = (share * self.radius * np.cos(np.deg2rad(self.angle)))[:, None] * self.back
        across = (share * self.radius * np.sin(np.deg2rad(self.angle)))[:, None] * self.up
        return self.origin + along + across + height[:, None] * self.out

    def outside(self, points: np.ndarray) -> np.ndarray:
        for _ in range(3):
            points = points + np.clip(0.45 - skin_distance(points), 0, None)[:, None] * self.out
        return points

    def near(self, centre: float, width: float) -> np.ndarray:
        return np.exp(-0.5 * (((self.angle - centre + 180) % 360 - 180) / width) ** 2)

    def between(self, start: float, end: float, width: float) -> np.ndarray:
        around = self.angle + 360 * (self.angle < 180)
        return 1 / (1 + np.exp(-(np.minimum(around - start, end - around)) / width))


def ear_patch() -> Patch:
    """Concha, wall, antihelix with its fork, scapha, helix, rim, back, and the root on the skull."""
    plate = _EarPlate()
    one = np.ones(EAR_POINTS)
    front = _ear_front(plate, one)
    behind = np.clip(0.5 + 0.75 * np.cos(np.deg2rad(plate.angle - 5)), 0, 1)[:, None]  # 0 at the side of the face
    root = plate.ring(1.16 - 0.50 * behind[:, 0] - 0.1 * plate.near(275, 25), 0 * one)
    root = np.stack([np.full(EAR_POINTS, 25.0), root[:, 1], root[:, 2]], 1)
    root = outward(root, np.tile([1.0, 0, 0], (EAR_POINTS, 1)))
    helix, rim = plate.between(320, 520, 9), front[-1]
    first = plate.ring(1.0 - 0.05 * behind[:, 0], -4.6 * one + 0.8 * helix)
    second = plate.ring(1.0 - 0.22 * behind[:, 0], -6.6 * one)
    first = first * behind + (rim * 0.6 + root * 0.4) * (1 - behind)
    second = second * behind + (rim * 0.3 + root * 0.7) * (1 - behind)
    rings = front[:3] + [plate.outside(ring) for ring in [*front[3:], first, second]] + [root]
    centre = plate.origin - 10.5 * plate.out
    return Patch("ear", rings, centre, plate.angle, np.zeros(EAR_POINTS, bool))


def _ear_front(plate: _EarPlate, one: np.ndarray) -> list[np.ndarray]:
    near = plate.near
    helix, anti = plate.between(320, 520, 9), plate.between(296, 445, 10)
    lobe, tragus, antitragus = near(275, 25), near(192, 17), near(264, 15)

    def raised(share: np.ndarray, height: float, relief: np.ndarray) -> np.ndarray:
        return plate.outside(plate.ring(share, height * one)) + relief[:, None] * plate.out

    notch = near(233, 10)
    return [
        plate.ring(0.16 * one, -9.5 * one),
        plate.ring(0.34 - 0.05 * near(80, 50), -8.3 + 0.6 * near(150, 22)),
        plate.ring(0.47 - 0.06 * near(85, 50) - 0.07 * tragus, -4.6 + 2.2 * tragus + 1.2 * antitragus),
        raised(0.56 - 0.04 * near(85, 50) - 0.06 * tragus, -0.4,
               2.6 * anti * (1 - 0.4 * near(96, 9)) + 1.5 * near(114, 12) + 5.2 * tragus + 3.4 * antitragus
               - 0.3 * notch + 0.8 * lobe),
        raised(0.66 * one, -0.4,
               2.7 * anti + 1.7 * near(76, 11) + 0.9 * near(112, 11) - 1.9 * near(95, 8) + 3.6 * tragus
               + 2.2 * antitragus + 1.4 * lobe - 0.5 * notch),
        raised(0.77 * one, -0.9,
               0.9 * anti + 1.2 * near(72, 11) - 1.2 * near(94, 9) - 0.8 * helix + 0.9 * near(88, 16) + 0.9 * tragus
               + 2.1 * lobe + 0.8 * antitragus),
        raised(0.865 * one, -1.2, -0.4 * helix + 2.2 * lobe + 1.3 * near(88, 16)),
        raised(0.94 * one, -0.8, 3.4 * helix + 1.5 * lobe),
        raised(1.0 * one, -1.2, 2.2 * helix - 0.2 * lobe),
    ]


# ---------------------------------------------------------------- nostril


def nostril_patch() -> Patch:
    """Four rings on the underside of the wing, the outermost on the skin."""
    middle, normal = np.array([7.0, -15.5, 77.5]), unit(np.array([0.22, -1.0, 0.22]))
    length = np.array([0.42, 0.28, 1.0])
    length = unit(length - normal * (length @ normal))
    width = np.cross(normal, length)
    angle = np.arange(NOSTRIL_POINTS) / NOSTRIL_POINTS * 2 * np.pi

    def on_skin(long: float, wide: float) -> np.ndarray:
        offset = length * (long * np.cos(angle))[:, None] + width * (wide * np.sin(angle))[:, None]
        return outward(middle - normal * 4.0 + offset, np.tile(normal, (NOSTRIL_POINTS, 1)))

    pit = on_skin(3.2, 1.6) - normal * 6.0
    rings = [pit, on_skin(4.5, 2.4) - normal * 2.0, on_skin(5.2, 3.1), on_skin(6.6, 4.4)]
    return Patch("nostril", rings, pit.mean(0) - normal * 2.5, angle, np.zeros(NOSTRIL_POINTS, bool))
