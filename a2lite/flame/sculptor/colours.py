"""One colour per vertex, linear RGB: skin, lips, lids, teeth, irises, and brows as soft as the mesh allows.

A step of the builder.
"""

from __future__ import annotations

import numpy as np

from a2lite.flame.sculptor.anatomy import Anatomy, smooth_step, window
from a2lite.flame.sculptor.rings import CONTACT, EYE_POINTS, LID_MARGIN

SKIN, LIP, IRIS = np.array([0.60, 0.385, 0.29]), np.array([0.50, 0.20, 0.175]), np.array([0.10, 0.17, 0.20])
HAIR, LASH, WHITE, TEETH = [0.055, 0.03, 0.02], [0.05, 0.03, 0.025], [0.74, 0.72, 0.70], [0.88, 0.84, 0.76]


def colours(anatomy: Anatomy) -> np.ndarray:
    """(5023, 3), 0..1."""
    skin = _complexion(anatomy)
    _paint_brows(anatomy, skin)
    _paint_mouth(anatomy, skin)
    _paint_lids(anatomy, skin)
    ball = _eyeball(np.degrees(anatomy.eye_angle))
    return np.concatenate([skin, ball, ball])


def _mix(colour: np.ndarray, other, share: np.ndarray) -> None:
    colour += (np.asarray(other) - colour) * share[:, None]


def _complexion(a: Anatomy) -> np.ndarray:
    p = np.concatenate([np.abs(a.skin[:, :1]), a.skin[:, 1:]], 1)
    red = 0.55 * window(p, (40, -8, 40), (16, 15, 30)) + 0.6 * window(p, (0, -8, 86), (12, 9, 12))
    red += 0.25 * window(p, (0, -78, 66), (14, 10, 14)) + 0.55 * (a.shell.part == "ear")
    red += 0.35 * (1 - a.lid) * a.eye
    colour = SKIN * (1 - red[:, None] * np.array([0.0, 0.20, 0.22]))
    return colour * (1 - 0.10 * window(p, (14, 25, 55), (8, 9, 14)))[:, None]


def _paint_brows(a: Anatomy, colour: np.ndarray) -> None:
    x, y, z = np.abs(a.skin[:, 0]), a.skin[:, 1], a.skin[:, 2]
    middle = np.interp(x, [8, 14, 22, 32, 40, 50, 56], [41.5, 44.2, 47.3, 50.0, 49.6, 45.2, 41])
    half = np.interp(x, [8, 11, 16, 30, 40, 50, 55], [2.6, 4.2, 4.6, 3.8, 2.9, 1.6, 0.4])
    across = np.exp(-(np.abs((y - middle) / np.maximum(half, 0.05)) ** 3.2))
    _mix(colour, HAIR, 0.87 * across * smooth_step(8, 12.5, x) * (1 - smooth_step(51, 56, x)) * (z > 15))


def _paint_mouth(a: Anatomy, colour: np.ndarray) -> None:
    ring = a.shell.ring
    lips = np.where(a.mouth, np.interp(ring, [5, 6, 9.6, 11, 12], [1, 1, 0.9, 0.45, 0]), 0)
    _mix(colour, LIP, lips * np.where(a.lip_along > 0.97, 0.5, 1))
    colour[a.mouth & (ring < CONTACT)] = [0.25, 0.07, 0.06]
    colour[a.mouth & (ring <= 1)] = [0.16, 0.04, 0.04]  # throat and palate
    colour[a.mouth & ~a.upper_lip & (ring <= 1)] = [0.42, 0.15, 0.14]  # tongue
    colour[a.mouth & ((ring == 2) | (ring == 3)) & (a.lip_along < 0.93)] = TEETH


def _paint_lids(a: Anatomy, colour: np.ndarray) -> None:
    ring, place = a.shell.ring, a.shell.place
    margin = a.eye & (ring == LID_MARGIN)
    colour[margin & a.upper_lid] = LASH
    colour[margin & ~a.upper_lid] = [0.30, 0.17, 0.13]
    colour[a.eye & (ring == LID_MARGIN - 1)] = [0.50, 0.27, 0.22]
    colour[a.eye & (ring < LID_MARGIN - 1)] = [0.25, 0.1, 0.09]
    above = a.eye & (ring == LID_MARGIN + 1) & a.upper_lid
    _mix(colour, LASH, np.where(above, 0.55 * np.clip(1.15 - a.lid_along, 0, 1), 0))
    colour[margin & (place == EYE_POINTS // 2)] = [0.5, 0.25, 0.2]  # inner corner


def _eyeball(degrees: np.ndarray) -> np.ndarray:
    """Pupil, iris with a lighter inner band and a dark edge, white."""
    colour = np.tile(WHITE, (len(degrees), 1))
    for limit, shade in ((27.5, 0.25 * IRIS), (26, IRIS), (20, 1.35 * IRIS), (14, IRIS), (11.5, np.full(3, 0.008))):
        colour[degrees < limit] = shade
    return colour
