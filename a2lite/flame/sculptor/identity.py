"""What makes heads differ: twenty displacement fields over all 5023 vertices, millimetres at strength 1.

They are windows too; eyeballs move with their lids. The builder takes principal components of them.
"""

from __future__ import annotations

import numpy as np

from a2lite.flame.sculptor.anatomy import Anatomy, hairline, smooth_step, window
from a2lite.flame.sculptor.rings import MOUTH_Y
from a2lite.flame.sculptor.surface import EYE


class Identity:
    def __init__(self, anatomy: Anatomy):
        self.anatomy, self.rest = anatomy, anatomy.rest
        self.x, self.y, self.z = self.rest.T
        self.ax, self.sign, self.zero = np.abs(self.x), np.sign(self.x), np.zeros(len(self.rest))
        self.mirrored = np.stack([self.ax, self.y, self.z], 1)
        balls = anatomy.eyes.ravel()
        self.eye = self._whole(anatomy.eye * np.interp(anatomy.lid, [0, 0.3, 1], [1, 0.9, 0.25]))
        self.eye[balls] = 1
        self.eye[: len(anatomy.skin)][anatomy.shell.part == "eye_cap"] = 1
        near = np.exp(-0.5 * (((self.ax - EYE[0]) / 14) ** 2 + ((self.y - EYE[1]) / 11) ** 2)) * (self.z > 20)
        near[balls] = 1
        self.near_eye = np.maximum(near, self.eye)

    def _whole(self, skin: np.ndarray) -> np.ndarray:
        """A field of the skin, (3931,), with zeros for the eyeballs."""
        return np.concatenate([skin, np.zeros(len(self.rest) - len(skin))])

    def _at(self, centre, widths) -> np.ndarray:
        return window(self.mirrored, centre, widths)

    def _field(self, x=0.0, y=0.0, z=0.0) -> np.ndarray:
        return np.stack([self.zero + x, self.zero + y, self.zero + z], 1)

    def fields(self) -> dict[str, np.ndarray]:
        """Name -> displacement (5023, 3)."""
        return self._face() | self._nose() | self._mouth_and_eyes() | self._rest_of_head()

    def _face(self) -> dict[str, np.ndarray]:
        y, z, at, field = self.y, self.z, self._at, self._field
        low = smooth_step(0, -50, y) * smooth_step(-30, 5, z) * smooth_step(-110, -92, y)
        chin, fat = at((0, -76, 60), (20, 14, 20)), at((40, -28, 36), (18, 20, 26))
        bone = at((50, 2, 34), (16, 12, 22)) * (1 - self.eye)
        brow = at((28, 50, 56), (26, 7, 22)) * (1 - 0.8 * self.eye)
        return {
            "jaw_width": field(x=0.06 * self.x * low),
            "face_long": field(y=-4.5 * smooth_step(-14, -70, y) * smooth_step(-150, -90, y)),
            "chin_forward": field(y=-0.6 * chin, z=4.0 * chin),
            "brow": field(y=-1.6 * brow, z=2.4 * brow),
            "cheekbone": field(x=3.0 * self.sign * bone, z=2.0 * bone),
            "cheek_fat": field(x=3.2 * self.sign * fat, y=-0.7 * fat, z=2.2 * fat),
        }

    def _nose(self) -> dict[str, np.ndarray]:
        at, field = self._at, self._field
        wing = at((11, -9, 76), (9, 9, 14)) * (self.z > 55)
        tip, end = at((0, -10, 84), (13, 10, 16)), at((0, -8, 90), (10, 9, 12))
        return {
            "nose_width": field(x=0.16 * self.x * wing),
            "nose_long": field(y=-3.0 * tip, z=2.0 * tip),
            "nose_up": field(y=2.6 * end, z=1.0 * end),
            "hump": field(z=2.6 * at((0, 14, 76), (8, 9, 14))),
        }

    def _mouth_and_eyes(self) -> dict[str, np.ndarray]:
        a, field, x = self.anatomy, self._field, self.x
        lips = np.where(a.mouth, np.interp(a.shell.ring, [6, 7, 9, 11, 13], [0, 0.35, 1, 0.8, 0]), 0)
        lips = self._whole(lips * np.clip(1 - a.lip_along**2, 0, 1) ** 0.6)
        up = self._whole(np.where(a.upper_lip, 1.0, -1.0))
        wide = self._at((0, MOUTH_Y, 66), (26, 14, 40))
        near, eye = self.near_eye, self.eye
        skin = np.arange(len(near)) < len(a.skin)
        return {
            "lips": field(y=2.0 * up * lips**2, z=1.8 * lips),
            "mouth_width": field(x=0.14 * x * wide, z=-0.004 * x**2 * wide),
            "eye_size": 0.11 * eye[:, None] * (self.rest - self._field(EYE[0] * self.sign, EYE[1], EYE[2])),
            "eye_apart": field(x=2.2 * self.sign * near, z=-0.4 * near),
            "eye_tilt": field(y=0.12 * (self.ax - EYE[0]) * near * skin),
        }

    def _rest_of_head(self) -> dict[str, np.ndarray]:
        a, field, x, y, z = self.anatomy, self._field, self.x, self.y, self.z
        front, neck = self._at((0, 85, 60), (45, 25, 40)), smooth_step(-50, -110, y) * smooth_step(60, 30, z)
        ears = self._whole(np.where(a.ear, np.interp(a.shell.ring, [0, 9, 11], [1, 1, 0]), 0))
        hair = self._whole(smooth_step(0, 16, hairline(a.skin)) * ~a.ear)
        outward = self.rest - [0, 45, -20]
        outward = outward / np.linalg.norm(outward, axis=1, keepdims=True)
        return {
            "skull_wide": field(x=0.05 * x * smooth_step(0, 60, y) * (1 - self.near_eye)),
            "forehead": field(y=1.5 * front, z=5.0 * front),
            "neck": field(x=0.08 * x * neck, z=0.06 * (z + 40) * neck),
            "ears": field(x=0.12 * (x - 72 * self.sign) * ears, y=0.14 * (y - 9) * ears, z=0.14 * (z + 13) * ears),
            "hair": hair[:, None] * outward,
        }
