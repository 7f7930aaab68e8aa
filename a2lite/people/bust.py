"""What a head stands on: a neck whose lower end stays when the head turns, and a shirt. Metres."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from a2lite.flame import FlameHead
from a2lite.player.light import light_shares
from a2lite.player.look import Neck, Part

CLOTH = {  # linear RGB
    "navy": (0.035, 0.055, 0.115), "teal": (0.030, 0.130, 0.130), "rust": (0.280, 0.085, 0.040),
    "white": (0.560, 0.550, 0.520), "grey": (0.150, 0.155, 0.165), "plum": (0.130, 0.040, 0.080),
    "green": (0.050, 0.100, 0.050),
}  # fmt: skip
STAYS, TURNS = -0.140, -0.085  # heights below which the neck stays, above which it goes with the head
AROUND = 60  # corners of a ring of the shirt
RIB = 0.016  # of the collar

# Rings of the shirt from the collar outwards: half its width and its depth before and behind the neck's middle, beyond
# the neck's own; then its heights at the side, before and behind.
RINGS = np.array([
    [0.0075, 0.007, 0.007, -0.134, -0.145, -0.120],
    [0.022, 0.016, 0.014, -0.139, -0.153, -0.124],
    [0.050, 0.030, 0.024, -0.148, -0.168, -0.134],
    [0.090, 0.044, 0.034, -0.161, -0.191, -0.151],
    [0.130, 0.055, 0.042, -0.182, -0.218, -0.178],
    [0.152, 0.062, 0.048, -0.214, -0.243, -0.214],
    [0.158, 0.066, 0.052, -0.270, -0.270, -0.270],
])  # fmt: skip


def neck(rest: np.ndarray) -> Neck:
    """The lower neck of the face that rests at ``rest`` (5023, 3)."""
    end = _end(rest)
    share = np.clip((TURNS - rest[:, 1]) / (TURNS - STAYS), 0, 1)
    return Neck((share * share * (3 - 2 * share)).astype(np.float32), end, rest[end])


def shirt(head: FlameHead, rest: np.ndarray, colour: np.ndarray) -> Part:
    """A shirt with a round collar, on the neck's end that stays; ``colour`` linear RGB."""
    end = _end(rest)
    middle, (wide, _, deep) = rest[end].mean(0), np.ptp(rest[end], axis=0) / 2
    table = np.concatenate([_collar(), PchipInterpolator(np.arange(len(RINGS)), RINGS)(np.linspace(0, 6, 14))])
    angle = np.linspace(0, 2 * np.pi, AROUND, endpoint=False)
    side, front = np.sin(angle), np.cos(angle)
    outer = np.linspace(0, 1, len(table))[:, None] ** 2
    square = lambda s: np.sign(s) * np.abs(s) ** (1 - 0.25 * outer)  # noqa: E731  shoulders are not round
    half, before, behind, *heights = table.T[..., None]
    x = (0.88 * wide + half) * square(side)
    z = middle[2] + (0.92 * deep + np.where(front > 0, before, behind)) * square(front)
    y = heights[0] * side**2 + np.where(front > 0, heights[1], heights[2]) * front**2
    places = np.stack([x, y, z], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(len(table) - 1), np.arange(AROUND), indexing="ij")
    a, b = (i * AROUND + j).ravel(), (i * AROUND + (j + 1) % AROUND).ravel()
    faces = np.concatenate([np.stack([a, a + AROUND, b], 1), np.stack([b, a + AROUND, b + AROUND], 1)])
    tone = np.ones((len(table), AROUND))
    tone[:4] = 0.92 + 0.10 * (np.arange(AROUND) % 2)  # ribs
    tone[4] = 0.6  # the seam
    skin = head.faces.numpy()
    light = light_shares(np.concatenate([rest, places]), np.concatenate([skin, faces + len(rest)]))[len(rest) :]
    colours = np.clip(tone.reshape(-1, 1) * colour, 0, 1)
    return Part(places.astype(np.float32), faces, colours.astype(np.float32), light, 0.0, end, rest[end], "shirt")


def _end(rest: np.ndarray) -> np.ndarray:
    """Numbers of the neck's last ring."""
    return np.nonzero(rest[:, 1] < rest[:, 1].min() + 0.002)[0]


def _collar() -> np.ndarray:
    """Rings of a rib that stands round the neck: its inner edge, its rim, and down to the seam."""
    rise, out = np.array([[-0.010, 0.0], [0.9, 0.0035], [1.0, 0.0055], [0.8, 0.0075], [0.05, 0.0085], [0, 0.0070]]).T
    lift = np.where(rise < 0, 0.3, rise) * RIB
    first = RINGS[0]
    return np.stack([out, out, out, *(first[k] + lift for k in (3, 4, 5))], axis=1)
