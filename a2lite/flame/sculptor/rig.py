"""Action units, lids and the jaw as displacements of the rest head: (3931, 3) of the skin, millimetres.

Sums of Gaussian windows, set by eye; the lips follow explicit curves.
"""

from __future__ import annotations

import numpy as np

from a2lite.flame.sculptor.anatomy import Anatomy, smooth_step, window
from a2lite.flame.sculptor.rings import CONTACT, EYE_POINTS, LID_MARGIN, LID_REACH, LIP_WIDTH, MOUTH_HALF_WIDTH, MOUTH_Y
from a2lite.flame.sculptor.surface import EYE, EYE_RADIUS

JAW_JOINT = np.array([0.0, 2.0, -9.0])
JAW_OPEN = np.deg2rad(22.0)  # fully open; the jaw also slides 3 mm forward
_UPPER_FOLLOW = np.interp(LID_REACH, [0, 0.06, 0.15, 0.25, 0.33, 0.42, 0.56, 0.76, 1],
                          [1, 0.97, 0.88, 0.72, 0.50, 0.28, 0.10, 0.02, 0])
_LOWER_FOLLOW = np.interp(LID_REACH, [0, 0.06, 0.15, 0.25, 0.33, 0.42, 0.56, 0.76, 1],
                          [1, 0.95, 0.82, 0.62, 0.45, 0.30, 0.14, 0.03, 0])
_LINING_FOLLOW = {2: 0.1, 3: 0.35, 4: 1.0}  # rings inside the lid's margin


class Rig:
    """What moves on ``anatomy``. Every field is symmetric; ``sided`` splits it with a soft border of 10 mm."""

    def __init__(self, anatomy: Anatomy):
        self.anatomy, self.skin = anatomy, anatomy.skin
        self.x, self.y, self.z = self.skin.T
        self.ring = anatomy.shell.ring
        self.lower = anatomy.jaw
        self.upper = 1 - anatomy.jaw
        inside = anatomy.mouth & (self.ring < CONTACT - 1)
        self.loose = anatomy.lid**1.3 * np.where(inside, 0.0, 1.0)  # skin that is free to slide

    def action_units(self) -> dict[str, np.ndarray]:
        """Name -> displacement (3931, 3) at strength 1, in the order of ``FlameHead.action_units``."""
        raised = self.lids(up=(1, 1))
        lids = {"lid_up": raised, "squint": self.lids(low=(1, 1))}
        return self._brows_and_nose() | self._mouth_corners() | self._lips() | lids

    def sided(self, name: str, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A symmetric field -> its left and its right half, which sum to it."""
        if name in ("lid_up", "squint"):
            left = self.x > 0
        else:
            left = np.clip(0.5 + self.x / 10, 0, 1)
        return field * left[:, None], field * (1 - left)[:, None]

    # ---------------------------------------------------------------- windows

    def push(self, centre, widths, by, mask: np.ndarray | None = None) -> np.ndarray:
        """Displacement ``by`` in a window on the left, and its mirror image on the right."""
        mirrored = np.stack([np.abs(self.x), self.y, self.z], 1)
        weight = window(mirrored, centre, widths)
        if mask is not None:
            weight = weight * mask
        field = weight[:, None] * np.asarray(by, float)
        field[:, 0] *= self._sign() * np.clip(np.abs(self.x) / 4.0, 0, 1)  # nothing leaves the midline sideways
        return field

    def _sign(self) -> np.ndarray:
        return np.where(np.abs(self.x) < 1e-6, 0, np.where(self.x > 0, 1, -1))

    def _corner(self, out_power: float, power: float, by, width: float = 13.0, height: float = 13.0) -> np.ndarray:
        """The mouth's corner moves by ``by``; along the lips the share is a power of |x| (a window would give a V)."""
        q = np.clip(np.abs(self.x) / MOUTH_HALF_WIDTH, 0, 1)
        beyond = np.clip(np.abs(self.x) - MOUTH_HALF_WIDTH, 0, None)
        far = np.exp(-0.5 * (beyond / width) ** 2) * np.exp(-0.5 * ((self.y - MOUTH_Y) / height) ** 2)
        far = far * smooth_step(25, 45, self.z) * self.loose
        sign = np.sign(self.x)
        return np.stack([sign * by[0] * q**out_power * far, by[1] * q**power * far, by[2] * q**power * far], 1)

    # ---------------------------------------------------------------- action units

    def _brows_and_nose(self) -> dict[str, np.ndarray]:
        push, skin = self.push, self.loose
        return {
            "inner_brow": push((13, 48, 62), (11, 13, 22), (-0.5, 6.5, 0.6), skin)
            + push((10, 66, 68), (16, 10, 30), (0, 2.2, 0.8), skin),
            "outer_brow": push((42, 50, 48), (13, 13, 24), (0.3, 6.5, 0), skin)
            + push((34, 70, 58), (18, 12, 30), (0, 2.2, 0.4), skin),
            "brow_lower": push((14, 46, 62), (10, 10, 22), (-3.6, -5.2, 1.6), skin)
            + push((36, 50, 52), (14, 11, 24), (-1.2, -3.2, 0.6), skin)
            + push((0, 45, 66), (3.2, 9, 20), (0, 0, -1.0), skin),
            "cheek": push((33, 2, 52), (15, 11, 22), (0.5, 5.0, 2.4), skin)
            + push((34, 12, 50), (13, 7, 22), (0, 2.2, 0.4), skin),
            "nose_wrinkle": push((14, -9, 74), (7, 9, 13), (1.2, 4.2, 0.6), skin)
            + push((10, 10, 66), (8, 10, 14), (-0.6, 3.0, 1.8), skin)
            + push((14, 45, 62), (10, 10, 22), (-2.2, -3.4, 1.2), skin)
            + push((6, -34, 74), (14, 9, 18), (0.4, 4.0, 0.6), self.upper * skin),
            "upper_lip": push((8, -33, 72), (15, 10, 20), (0.4, 5.2, 0.9), self.upper * skin)
            + push((24, -18, 60), (9, 11, 20), (0.6, 3.0, 1.2), skin * self.upper),
        }

    def _mouth_corners(self) -> dict[str, np.ndarray]:
        push, skin, lower = self.push, self.loose, self.lower * self.loose
        return {
            "smile": self._corner(1.15, 2.0, (7.6, 6.4, -5.0)) + self._cheek_fold()
            + push((35, -10, 54), (13, 12, 22), (1.2, 4.6, 3.4), skin)
            + push((10, MOUTH_Y - 2, 72), (12, 10, 22), (1.6, 0, -1.6), skin)
            + push((0, -36, 76), (9, 6, 20), (0, -0.6, -0.8), self.upper * skin),
            "corner_down": self._corner(1.2, 2.2, (1.4, -6.2, -1.2), 11, 11)
            + push((22, -56, 60), (10, 9, 22), (1.0, -1.4, 1.0), skin),
            "lower_lip": push((8, MOUTH_Y - 6, 74), (14, 8, 20), (0.3, -6.5, 1.0), lower)
            + push((8, -58, 68), (16, 8, 20), (0, -2.0, 0.6), lower),
            "chin": push((0, -66, 70), (14, 10, 20), (0, 5.0, 2.0), lower)
            + push((0, MOUTH_Y - 5, 76), (16, 6, 20), (0, 3.2, 1.6), lower)
            + push((0, MOUTH_Y + 3, 76), (16, 7, 20), (0, 2.6, 1.2), self.upper * skin),
        }

    def _cheek_fold(self) -> np.ndarray:
        """The line from the wing of the nose to the corner of the mouth sinks in."""
        across = np.abs(self.x) - (21.5 + (-12 - self.y) * 0.46)
        fold = np.exp(-0.5 * (across / 3.0) ** 2) * np.exp(-0.5 * ((self.y + 23) / 11) ** 2) * (self.z > 30)
        fold = fold * (~self.anatomy.mouth | (self.ring > 12))
        return fold[:, None] * np.stack([-0.4 * np.sign(self.x), 0 * self.x, np.full(len(fold), -2.0)], 1)

    def _lips(self) -> dict[str, np.ndarray]:
        x, y, ax = self.x, self.y - MOUTH_Y, np.abs(self.x)
        near = window(self.skin, (0, MOUTH_Y, 72), (21, 16, 30)) * self.loose
        forward, wide = 7.0 * np.exp(-((ax / 13) ** 2)), 5.5 * np.exp(-((ax / 14) ** 2))
        pucker = np.stack([-0.46 * x, -0.06 * y, forward], 1) * near[:, None]
        funnel = np.stack([-0.34 * x, 0.18 * y, wide], 1) * near[:, None]
        mouth, up = self.anatomy.mouth, self.anatomy.upper_lip
        middle = np.clip(1 - self.anatomy.lip_along**2, 0, 1)
        rolled = np.where(mouth, np.interp(self.ring, [4, 6, 9, 11, 13], [0, 0.2, 1, 1, 0]), 0) * middle
        over = rolled * np.where(self.ring > CONTACT, 1, 0)
        flare = np.where(mouth, np.interp(self.ring, [4, 6, 9, 11, 14], [0.7, 1, 0.8, 0.55, 0.0]), 0)
        flare = np.where(up, 1, -1) * flare * middle**0.7
        corner = (MOUTH_HALF_WIDTH, MOUTH_Y, 64.0)
        return {
            "pucker": self._oval(11.5, 16.0, 0.15, 8.8, 9.8, 7.5, pucker),
            "stretch": self._corner(1.1, 1.6, (8.5, -1.4, -5.0)),
            "funnel": self._oval(12.5, 18.0, 4.0, 11.5, 13.0, 6.0, funnel),
            "press": np.stack([0 * x, np.where(up, -2.4, 2.6) * over, -2.4 * rolled], 1),
            "dimple": self.push(corner, (8, 8, 20), (3.5, 0.6, -3.5), self.loose),
            "part": np.stack([0 * x, flare * np.where(up, 1.2, 2.6), 0 * x], 1),
        }

    def _oval(self, contact: float, border: float, gap: float, above: float, below: float, forward: float,
              skin: np.ndarray) -> np.ndarray:
        """The rings of the lips go to an oval, half widths ``contact`` and ``border``; ``skin`` takes over outward."""
        t, up = self.anatomy.lip_along, self.anatomy.upper_lip
        r = np.clip(np.interp(self.ring, np.arange(CONTACT, CONTACT + len(LIP_WIDTH)), LIP_WIDTH), 0, 1)
        arc = np.clip(1 - t**2.2, 0, 1) ** 0.7
        tx = np.sign(self.x) * (contact + (border - contact) * r) * t
        ty = MOUTH_Y - 0.5 + np.where(up, 1, -1) * arc * (gap + (np.where(up, above, below) - gap) * r)
        tz = forward * (1 - 0.40 * t**2) + 1.2 * np.sin(np.pi * r) * arc
        target = np.stack([np.where(np.abs(self.x) < 1e-6, 0, tx - self.x), ty - self.y, tz], 1)
        lips = self.anatomy.mouth & (self.ring >= CONTACT)
        share = np.where(lips, np.interp(self.ring, [11, 12, 13, 14, 15], [1, 0.72, 0.42, 0.15, 0]), 0)[:, None]
        field = skin * (1 - share) + target * share
        for side in (1, -1):
            rings = self.anatomy.grid("mouth", side)
            field[rings[5]], field[rings[4]] = field[rings[CONTACT]] * 0.8, field[rings[CONTACT]] * 0.2  # the lining
        return field

    # ---------------------------------------------------------------- lids and jaw

    def lids(self, close=(0.0, 0.0), up=(0.0, 0.0), low=(0.0, 0.0)) -> np.ndarray:
        """Displacement (3931, 3) of the lids' rings turned about the eye's horizontal axis; pairs are (left, right)."""
        field = np.zeros_like(self.skin)
        for side, *strengths in zip((1, -1), close, up, low, strict=True):
            if any(strengths):
                rings = self.anatomy.grid("eye", side)
                field[rings] = self._lid(self.skin[rings] - EYE * [side, 1, 1], *strengths)
        return field

    def _lid(self, points: np.ndarray, close: float, up: float, low: float) -> np.ndarray:
        """(14, 36, 3) about the eye's centre -> displacement. The lids meet at 16 % of the way up, 0.012 rad apart."""
        lid = self.anatomy.shell.patches["eye"]
        angle, radius = np.arctan2(points[..., 1], points[..., 2]), np.hypot(points[..., 1], points[..., 2])
        margin = angle[LID_MARGIN]
        other = margin[-np.arange(EYE_POINTS) % EYE_POINTS]
        meet = np.where(lid.upper, 0.16 * margin + 0.84 * other, 0.16 * other + 0.84 * margin)
        meet = meet + np.where(lid.upper, 0.012, -0.012) * np.sin(np.pi * lid.along) ** 0.5
        gap = np.where(lid.upper, margin - other, other - margin)
        turn = (meet - margin) * close + gap * np.where(lid.upper, 0.22 * up, 0.34 * low)
        field = np.zeros_like(points)
        for k in range(len(points)):
            if k >= LID_MARGIN:
                follow = np.where(lid.upper, _UPPER_FOLLOW[k - LID_MARGIN], _LOWER_FOLLOW[k - LID_MARGIN])
            else:
                follow = _LINING_FOLLOW.get(k, 0.0)
            a, r = angle[k] + turn * follow, radius[k]
            if close > 0 and k >= LID_MARGIN - 1:  # stay clear of the ball while sliding over it
                clear = EYE_RADIUS + (1.4 if k >= LID_MARGIN else 0.55)
                r = np.sqrt(np.maximum(r**2, np.maximum(clear**2 - points[k, :, 0] ** 2, 0)))
            field[k, :, 1], field[k, :, 2] = r * np.sin(a) - points[k, :, 1], r * np.cos(a) - points[k, :, 2]
        return field

    def open_jaw(self, angle: float) -> np.ndarray:
        """Skin (3931, 3) with the jaw turned about its joint, slid forward, and the cheeks drawn in."""
        share = angle / JAW_OPEN
        cos, sin = np.cos(angle * self.lower), np.sin(angle * self.lower)
        q = self.skin - JAW_JOINT
        posed = np.stack([q[:, 0], cos * q[:, 1] - sin * q[:, 2], sin * q[:, 1] + cos * q[:, 2]], 1) + JAW_JOINT
        posed[:, 2] += 3 * share * self.lower
        drawn_in = self.push((MOUTH_HALF_WIDTH + 6, MOUTH_Y - 8, 58), (12, 14, 20), (-2.6, 0, -0.5))
        return posed + drawn_in * share

    def look(self, angle: float, side: int) -> np.ndarray:
        """What the lids of eye ``side`` (0 left) do as it turns down by ``angle``: displacement (3931, 3)."""
        way = -angle / 0.5
        pair = (1.0, 0.0) if side == 0 else (0.0, 1.0)
        if way > 0:
            return self.lids(up=tuple(0.6 * way * s for s in pair))
        return self.lids(close=tuple(min(0.45, -0.5 * way) * s for s in pair))
