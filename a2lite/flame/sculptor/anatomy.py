"""Eyeballs, the names of places on the head, and what moves with the jaw. Millimetres; a step of the builder."""

from __future__ import annotations

import numpy as np
from scipy.sparse import diags
from scipy.sparse.linalg import spsolve

from a2lite.flame.sculptor import mesh
from a2lite.flame.sculptor.rings import CONTACT, LID_MARGIN, LID_REACH, MOUTH_CORNER, MOUTH_SEGMENTS
from a2lite.flame.sculptor.surface import EYE, EYE_RADIUS
from a2lite.flame.sculptor.topology import Shell

MERIDIANS = 32
POLAR = np.deg2rad([6, 11, 12.5, 18, 24, 27, 28.5, 33, 42, 54, 68, 84, 100, 116, 132, 148, 164])  # pairs: crisp edges
HAIRLINE_Z = [-120, -70, -45, -28, -6, 6, 14, 26, 42, 58, 75]
HAIRLINE_Y = [-44, -40, -22, -6, 4, 8, 34, 62, 80, 89, 91]


def smooth_step(start: float, end: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def window(points: np.ndarray, centre, widths) -> np.ndarray:
    """Gaussian window in space, (N,)."""
    return np.exp(-0.5 * (((points - np.asarray(centre)) / np.asarray(widths)) ** 2).sum(1))


def cornea(angle: np.ndarray) -> np.ndarray:
    """Radius of the eyeball at ``angle`` from the gaze."""
    return EYE_RADIUS * (1 + 0.028 * np.exp(-((angle / np.deg2rad(20)) ** 2)))


def eyeball() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (546, 3) about the origin, faces (1088, 3), and each vertex's angle from the gaze (z)."""
    around = np.arange(MERIDIANS) / MERIDIANS * 2 * np.pi
    rings = [np.stack([np.sin(p) * np.cos(around), np.sin(p) * np.sin(around), np.full(MERIDIANS, np.cos(p))], 1)
             for p in POLAR]
    direction = np.concatenate([[[0, 0, 1.0]], *rings, [[0, 0, -1.0]]])
    angle = np.arccos(np.clip(direction[:, 2], -1, 1))
    rows = 1 + np.arange(len(POLAR) * MERIDIANS).reshape(len(POLAR), MERIDIANS)
    last = len(direction) - 1
    faces = [mesh.fan(0, rows[0]), *(mesh.strip(a, b, True) for a, b in zip(rows[:-1], rows[1:], strict=True)),
             mesh.fan(last, rows[-1])[:, [1, 0, 2]]]
    return direction * cornea(angle)[:, None], np.concatenate(faces), angle


def hairline(points: np.ndarray) -> np.ndarray:
    """Height over the edge of the hair in mm, (N,); the ears are free of it."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    edge = np.interp(z, HAIRLINE_Z, HAIRLINE_Y)
    edge = edge + (z > 15) * (4 * np.exp(-0.5 * ((x - 44) / 9) ** 2) - 2.5 * np.exp(-0.5 * (x / 10) ** 2))
    return np.minimum(y - edge, (np.sqrt(((y - 9) / 37) ** 2 + ((z + 17) / 25) ** 2) - 1) * 26)


class Anatomy:
    """The shell with its eyeballs, and fields over its vertices that the rig is made of."""

    def __init__(self, shell: Shell):
        ball, ball_faces, self.eye_angle = eyeball()
        self.shell, self.skin = shell, shell.vertices
        n = len(self.skin)
        self.rest = np.concatenate([self.skin, EYE + ball, EYE * [-1, 1, 1] + ball])  # (5023, 3)
        self.faces = np.concatenate([shell.faces, ball_faces + n, ball_faces + n + len(ball)])
        self.eyes = np.arange(n, n + 2 * len(ball)).reshape(2, -1)  # left, right
        part, ring, place = shell.part, shell.ring, shell.place
        self.eye, self.mouth = part == "eye", part == "mouth"
        self.ear = np.isin(part, ["ear", "ear_cap"])
        lids, lips = shell.patches["eye"], shell.patches["mouth"]
        self.lid = np.ones(n)  # 0 at the lid's margin and inside, 1 from the orbit outward
        self.lid[self.eye] = LID_REACH[np.clip(ring[self.eye] - LID_MARGIN, 0, None)]
        self.lid[part == "eye_cap"] = 0
        self.upper_lid, self.lid_along = np.zeros(n, bool), np.zeros(n)
        self.upper_lid[self.eye], self.lid_along[self.eye] = lids.upper[place[self.eye]], lids.along[place[self.eye]]
        self.upper_lip, self.lip_along = np.zeros(n, bool), np.zeros(n)
        self.upper_lip[self.mouth] = lips.upper[place[self.mouth]]
        self.lip_along[self.mouth] = lips.along[place[self.mouth]]
        self.jaw = self._jaw_weight()

    def grid(self, part: str, side: int) -> np.ndarray:
        """Vertex numbers of one side's rings, (rings, points)."""
        n = len(self.shell.patches[part].along)
        chosen = (self.shell.part == part) & (self.skin[:, 0] * side >= 0)
        numbers = np.zeros((len(self.shell.patches[part].rings), n), int)
        numbers[self.shell.ring[chosen], self.shell.place[chosen]] = np.nonzero(chosen)[0]
        return numbers

    def _jaw_weight(self) -> np.ndarray:
        """Harmonic between what is bone of the jaw (1) and what is bone of the skull (0), then smoothed."""
        pairs = mesh.edges(self.shell.faces)
        length = np.linalg.norm(self.skin[pairs[:, 0]] - self.skin[pairs[:, 1]], axis=1)
        graph = mesh.adjacency(len(self.skin), pairs, 1 / (length + 0.3))
        degree = np.asarray(graph.sum(1)).ravel()
        one, zero, sharp = self._jaw_bones()
        free = ~(one | zero)
        laplace = diags(degree) - graph
        weight = one.astype(float)
        weight[free] = spsolve(laplace[free][:, free].tocsc(), -(laplace[free][:, one] @ np.ones(one.sum())))
        for _ in range(4):
            weight = np.where(sharp, weight, 0.5 * weight + 0.5 * (graph @ weight) / degree)
        return np.clip(weight, 0, 1)

    def _jaw_bones(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks: with the jaw, with the skull, not to be smoothed. Between the lips the weight jumps."""
        x, y, z = np.abs(self.skin[:, 0]), self.skin[:, 1], self.skin[:, 2]
        part, ring, place = self.shell.part, self.shell.ring, self.shell.place
        corner = self.mouth & (place == MOUTH_CORNER)
        lips, inside = self.mouth & (ring <= 12), self.mouth & (ring < CONTACT - 1) & ~corner
        one = (y < -54) & (z > 34) & (y > -84)
        one |= (y < -60) & (z > 22) & (z <= 34) & (x > 12) & (y > -80)
        one |= lips & ~self.upper_lip & (self.lip_along < 0.8)
        one |= inside & ~self.upper_lip
        zero = (y > -14) | (z < -14) | (y < -120) | self.ear | (part == "nostril")
        zero |= (y < -104) & (z < 18)
        zero |= lips & self.upper_lip & (self.lip_along < 0.8) & ~corner
        zero |= inside & self.upper_lip
        return one, zero & ~one, (lips & (self.lip_along < 0.7)) | inside

    def skinning_weights(self) -> np.ndarray:
        """(5023, 5): root (what stays below the neck), neck, jaw, left eye, right eye; rows sum to 1."""
        y, z = self.skin[:, 1], self.skin[:, 2]
        head = smooth_step(-138, -70, y + 0.25 * (z + 30) * (z < -30))
        weights = np.zeros((len(self.rest), 5))
        weights[: len(head), 2] = self.jaw * head
        weights[: len(head), 1] = head - self.jaw * head
        weights[: len(head), 0] = 1 - head
        weights[self.eyes[0], 3] = weights[self.eyes[1], 4] = 1
        return weights

    def regions(self) -> dict[str, np.ndarray]:
        """Vertex numbers by name. The face has no hair, ears, neck, eyeballs, nor what is inside mouth and sockets."""
        x, y, z = self.skin.T
        part, ring = self.shell.part, self.shell.ring
        scalp = (hairline(self.skin) > 0) & ~self.ear
        neck = ((y < -95) | ((y < -60) & (z < 5))) & ~self.mouth
        hidden = (self.mouth & (ring < CONTACT - 1)) | (self.eye & (ring < LID_MARGIN - 1)) | (part == "eye_cap")
        face = ~scalp & ~self.ear & ~neck & ~hidden & (z > -5)
        flank = np.interp(y, [-22, -12, 10, 32], [15, 20, 15, 8])
        nose = (np.abs(x) < flank) & (y > -20) & (y < 32) & (z > 55) & ~self.mouth & ~self.eye
        nose = face & (nose | (part == "nostril"))
        eye = face & ~nose & (self.eye | ((np.abs(x) < 58) & (y > 8) & (y < 58) & (z > 20)))
        masks = dict(
            lips=self.mouth & (ring >= CONTACT - 1) & (ring <= 11), face=face, upper_face=face & ~nose & (y > 8),
            eye_region=eye, forehead=face & (y >= 58), nose=nose, neck=neck, scalp=scalp,
            left_eye_region=eye & (x > 6), right_eye_region=eye & (x < -6), left_ear=self.ear & (x > 0),
            right_ear=self.ear & (x < 0),
        )
        named = {name: np.nonzero(mask)[0] for name, mask in masks.items()}
        return named | dict(left_eyeball=self.eyes[0], right_eyeball=self.eyes[1])

    def landmarks(self) -> dict[str, int]:
        """Single vertices by name; lips and corners are on the line where the lips meet."""
        x, y, z = self.skin.T
        left, right = self.grid("mouth", 1)[CONTACT], self.grid("mouth", -1)[CONTACT]
        low = np.abs(y + 76) + np.clip(20 - z, 0, None) + 1e3 * (np.abs(x) >= 1)
        found = dict(upper_lip=left[0], lower_lip=left[MOUTH_SEGMENTS], left_corner=left[MOUTH_CORNER],
                     right_corner=right[MOUTH_CORNER], nose_tip=z.argmax(), chin=low.argmin())
        for name, side in (("left", 1), ("right", -1)):
            margin = self.grid("eye", side)[LID_MARGIN]
            quarter = len(margin) // 4
            for k, corner in enumerate(("eye_outer", "upper_lid", "eye_inner", "lower_lid")):
                found[f"{name}_{corner}"] = margin[k * quarter]
        return {name: int(number) for name, number in found.items()}
