"""Hair of ribbons on the built head's scalp, all strands at once.

A strand starts on the scalp, follows a direction field over it and, where the style is long, leaves it and falls. Each
becomes a ribbon, arched across so that it has a round shine. Lengths in metres, angles in radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial import cKDTree

from a2lite.flame import FlameHead
from a2lite.people.numbering import SKIN
from a2lite.player.look import Part

CENTRE = np.array([0.0, 0.050, -0.022])
WHORL = (np.pi - 0.25, 1.05)  # azimuth, elevation
STEP = 0.0105


@dataclass(frozen=True)
class Style:
    length: float  # of a strand on the crown
    sides: float  # of a strand over the ear
    lift: float  # how far the hair stands off the scalp
    width: float
    falls: bool = False  # leaves the head and hangs
    end: float = 0.0  # height at which hanging hair is cut
    parting: float = 0.0  # azimuth from which it is combed to either side
    swept: float = 0.6  # how much the front is combed to the side
    top: float = 1.57  # elevation above which the head is bald
    strands: int = 700


STYLES = {
    "crop": Style(0.014, 0.010, 0.002, 0.0045, strands=1100, swept=0.2),
    "short": Style(0.046, 0.018, 0.008, 0.0058, swept=1.0, strands=760),
    "quiff": Style(0.062, 0.012, 0.014, 0.0070, swept=0.2),
    "bob": Style(0, 0, 0.011, 0.0105, falls=True, end=-0.085, parting=0.28, strands=480),
    "long": Style(0, 0, 0.011, 0.0105, falls=True, end=-0.165, parting=0.10, strands=480),
    "fringe": Style(0.020, 0.024, 0.003, 0.0055, top=0.52, strands=900),
}


def direction(azimuth, elevation):
    """Unit vectors; azimuth 0 is the front, positive to the head's left."""
    a, e = np.asarray(azimuth), np.asarray(elevation)
    return np.stack([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], -1)


def angles(d):
    return np.arctan2(d[..., 0], d[..., 2]), np.arcsin(np.clip(d[..., 1], -1, 1))


def hairline(azimuth, round_front=False):
    """Lowest elevation of hair; without corners above the temples where ``round_front``."""
    x = np.abs(azimuth) / np.pi
    places = [0, 0.08, 0.17, 0.23, 0.29, 0.345, 0.372, 0.392, 0.42, 0.53, 0.58, 0.64, 0.75, 1.0]
    burn = 0.05 if round_front else -0.22  # in front of the ear
    front = [0.55, 0.54, 0.48, 0.40, 0.28, 0.10] if round_front else [0.54, 0.545, 0.60, 0.57, 0.40, 0.18]
    return np.interp(x, places, [*front, burn, burn, 0.03, 0.02, -0.16, -0.40, -0.56, -0.62])


class Scalp:
    """Radius of the skin about CENTRE, without ears and eyes."""

    def __init__(self, template, regions):
        skip = {"left_ear", "right_ear", "left_eyeball", "right_eyeball", "lips", "nose", "left_eye_region",
                "right_eye_region"}
        skip = set(np.concatenate([np.asarray(regions[name]) for name in skip]).tolist())
        keep = np.array([i for i in range(SKIN) if i not in skip])
        p = template[keep] - CENTRE
        r = np.linalg.norm(p, axis=1)
        d = p / r[:, None]
        near = d[:, 1] > -0.75
        tree = cKDTree(d[near])
        azimuth, elevation = np.linspace(-np.pi, np.pi, 121), np.linspace(-0.8, np.pi / 2, 60)
        grid = np.stack(np.meshgrid(azimuth, elevation, indexing="ij"), -1)
        distance, index = tree.query(direction(grid[..., 0], grid[..., 1]).reshape(-1, 3), k=8)
        weight = np.exp(-((distance / 0.12) ** 2)) + 1e-12
        radius = (weight * r[near][index]).sum(1) / weight.sum(1)
        self.look_up = RegularGridInterpolator((azimuth, elevation), radius.reshape(121, 60), bounds_error=False,
                                               fill_value=None)

    def __call__(self, d):
        a, e = angles(d)
        return self.look_up(np.stack([a, np.maximum(e, -0.78)], -1))


def roots(style, rng):
    """(N, 3) unit directions under the hair."""
    found = []
    while len(found) < style.strands:
        d = rng.normal(size=(4 * style.strands, 3))
        d /= np.linalg.norm(d, axis=1, keepdims=True)
        a, e = angles(d)
        good = (e > hairline(a, style.falls) + 0.015) & (e < style.top)
        found = np.concatenate([found, d[good]]) if len(found) else d[good]
    return found[: style.strands]


def tangent(d, v):
    v = v - d * (d * v).sum(-1, keepdims=True)
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def smooth(low, high, x):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def flow_short(d, style, jitter):
    whorl = direction(*map(np.array, WHORL))
    away = tangent(d, d - whorl)
    side = tangent(d, np.broadcast_to([0.9, 0.25, 0.25], d.shape))
    w = (smooth(0.0, 0.6, d[:, 2]) * smooth(0.3, 0.7, d[:, 1]) * style.swept)[:, None]
    return tangent(d, (1 - w) * away + w * side + jitter)


def flow_long(d, side, jitter):
    a, e = angles(d)
    around = np.stack([np.cos(a), 0 * a, -np.sin(a)], -1) * side[:, None]  # towards the ear of its side
    down = tangent(d, np.broadcast_to([0, -1.0, 0], d.shape))
    to_ear = smooth(0.44 * np.pi, 0.30 * np.pi, a * side) * smooth(1.45, 1.1, e)
    over = smooth(1.0, 1.3, e)[:, None] * np.stack([side, 0 * a, 0 * a - 0.4], -1)
    w = to_ear[:, None]
    return tangent(d, (1 - w) * down + w * (around - 0.35 * np.array([0, 1.0, 0])) + over + jitter)


def grow(scalp, style, rng):
    """Paths (N, S, 3), outward normals (N, S, 3), lengths (N,) in steps."""
    d = roots(style, rng)
    jitter = 0.10 * rng.normal(size=d.shape)
    return _long(scalp, style, d, jitter, rng) if style.falls else _short(scalp, style, d, jitter, rng)


def _short(scalp, style, d, jitter, rng):
    steps, top = 6, smooth(0.1, 1.0, d[:, 1])
    length = (style.sides + (style.length - style.sides) * top) * (0.8 + 0.4 * rng.random(len(d)))
    lift = style.lift * (0.35 + 0.65 * top) * (0.6 + 0.8 * rng.random(len(d)))
    path, out = [], []
    for s in np.linspace(0, 1, steps):
        r = scalp(d) + 0.002 + lift * np.sin(np.pi * min(1, 0.25 + 0.6 * s))
        path.append(CENTRE + d * r[:, None])
        out.append(d)
        d = d + flow_short(d, style, jitter) * (length / steps / r)[:, None]
        d = d / np.linalg.norm(d, axis=1, keepdims=True)
    return np.stack(path, 1), np.stack(out, 1), np.full(len(d), steps)


def _long(scalp, style, d, jitter, rng, steps=30):
    a, _ = angles(d)
    side = np.where(a > style.parting, 1.0, -1.0)
    behind = np.abs(a) > 2.2
    side = np.where(behind, np.sign(a), side)
    lift = style.lift * (0.5 + 0.9 * rng.random(len(d)))
    end = style.end * (0.93 + 0.12 * rng.random(len(d)))
    phase, bend = 6 * rng.random(len(d)), 0.03 + 0.02 * rng.random(len(d))
    free = np.zeros(len(d), bool)
    p, path, out, length = None, [], [], np.full(len(d), steps)
    h = d.copy()
    for s in range(steps):
        a, e = angles(d)
        ear = np.exp(-(((np.abs(a) - 1.5) / 0.4) ** 2)) * smooth(0.75, 0.25, e)
        r = scalp(d) + 0.003 + lift * min(1, 0.3 + s / 6) + 0.018 * ear
        on = CENTRE + d * r[:, None]
        p = on if p is None else np.where(free[:, None], p, on)
        path.append(p.copy())
        flat = np.stack([d[:, 0], 0 * r, d[:, 2]], -1)
        h = np.where(free[:, None], h, flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9))
        out.append(np.where(free[:, None], h, d))
        a, e = angles(d)
        free |= (e < 0.12) & (np.abs(a) > 0.36 * np.pi)
        left = p[:, 1] - end
        length = np.where(free & (left < 0) & (length == steps), s + 1, length)
        inward = np.where(left < 0.04, -0.12, bend)[:, None]
        wave = 0.0010 * np.stack([np.sin(phase + 0.5 * s), 0 * phase, np.cos(phase + 0.45 * s)], -1)
        p = np.where(free[:, None], p + STEP * (np.array([0, -1.0, 0]) + h * inward) + wave, p)
        d = np.where(free[:, None], d, d + flow_long(d, side, jitter) * (STEP / r)[:, None])
        d = d / np.linalg.norm(d, axis=1, keepdims=True)
    path, out = np.stack(path, 1), np.stack(out, 1)
    before = (np.abs(path[..., 0]) < 0.062) & (path[..., 1] < 0.085) & (path[..., 2] > 0.02)  # the face
    before &= np.arange(steps) < length[:, None]
    free_of_it = ~before.any(1)
    return path[free_of_it], out[free_of_it], length[free_of_it]


def ribbons(path, out, length, width, colour, rng, columns=3, arch=0.3):
    """-> vertices, faces, colours (linear RGB)."""
    vertices, faces, colours, base = [], [], [], 0
    u = np.linspace(-1, 1, columns)
    tone = np.clip(1 + 0.17 * rng.normal(size=len(path)), 0.5, 1.6)
    size = width * (0.7 + 0.6 * rng.random(len(path)))
    order = np.linalg.norm(path - CENTRE, axis=-1).mean(1).argsort()[::-1]  # outermost first: the rest is hidden
    for p, o, n, shade, wide in zip(path[order], out[order], length[order], tone, size):
        if n < 4:
            continue
        kept = np.linspace(0, n - 1, min(n, 8)).round().astype(int)
        p, o, n = p[kept], o[kept], len(kept)
        t = np.gradient(p, axis=0)
        t /= np.linalg.norm(t, axis=1, keepdims=True) + 1e-9
        side = np.cross(t, o)
        side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
        s = np.linspace(0, 1, n)
        taper = wide * np.minimum(1, np.minimum(0.35 + 4 * s, (1.02 - s) * 3.0))
        v = p[:, None] + side[:, None] * (u[None, :, None] * taper[:, None, None] / 2)
        v = v + o[:, None] * ((1 - u**2)[None, :, None] * taper[:, None, None] * arch)
        i, j = np.meshgrid(np.arange(n - 1), np.arange(columns - 1), indexing="ij")
        a = base + (i * columns + j).ravel()
        faces += [np.stack([a, a + columns, a + 1], 1), np.stack([a + 1, a + columns, a + columns + 1], 1)]
        strip = colour * shade * (0.72 + 0.38 * s)[:, None, None] * (1 + 0.15 * rng.normal(size=columns))[None, :, None]
        vertices.append(v.reshape(-1, 3))
        colours.append(np.clip(strip, 0, 1).reshape(-1, 3))
        base += n * columns
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(colours)


def cap(scalp, style, colour):
    """What shows between the ribbons."""
    azimuth, s = np.linspace(-np.pi, np.pi, 97), np.linspace(0, 1, 24)
    top = min(style.top, np.pi / 2)
    low = np.minimum(hairline(azimuth, style.falls), top)[:, None]
    e = low + (top - low) * s[None] ** 0.9
    d = direction(np.repeat(azimuth[:, None], 24, 1), e)
    edge = np.minimum(s, 1 - s) if style.top < 1.5 else s
    height = 0.0005 + min(0.0045, style.lift) * np.minimum(1, 5 * edge)
    p = CENTRE + d * (scalp(d) + height[None])[..., None]
    i, j = np.meshgrid(np.arange(96), np.arange(23), indexing="ij")
    a = (i * 24 + j).ravel()
    a = a[(low[i, 0] < top - 0.15).ravel()]  # nothing where the head is bald down to the hairline
    faces = np.concatenate([np.stack([a, a + 24, a + 1], 1), np.stack([a + 1, a + 24, a + 25], 1)])
    used, faces = np.unique(faces, return_inverse=True)
    streaks = (0.68 if style.falls else 0.5) + 0.12 * np.sin(40 * azimuth + 5 * np.sin(9 * azimuth))
    return p.reshape(-1, 3)[used], faces.reshape(-1, 3), np.repeat(streaks, 24)[used, None] * colour


def hair(head: FlameHead, rest: np.ndarray, style: str, colour: np.ndarray, seed: int = 0) -> Part:
    """Hair of a style of ``STYLES`` over the face that rests at ``rest`` (5023, 3); ``colour`` linear RGB.

    ValueError for another style.
    """
    if style not in STYLES:
        raise ValueError(f"style {style!r}: expected one of {', '.join(STYLES)}")
    rng, chosen, colour = np.random.default_rng(seed), STYLES[style], np.asarray(colour)
    scalp = Scalp(rest, head.regions)
    cap_vertices, cap_faces, cap_colours = cap(scalp, chosen, colour)
    vertices, faces, colours = ribbons(*grow(scalp, chosen, rng), chosen.width, colour, rng)
    anchor = head.regions["scalp"].numpy()
    light = np.full((len(cap_vertices) + len(vertices), 2), 0.8, np.float32)
    return Part(
        np.concatenate([cap_vertices, vertices]).astype(np.float32),
        np.concatenate([cap_faces, faces + len(cap_vertices)]),
        np.concatenate([cap_colours, colours]).astype(np.float32), light, 0.2, anchor, rest[anchor], "hair",
    )  # fmt: skip
