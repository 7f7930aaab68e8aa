"""Teeth and a tongue for the built head: shells over its dental arches, stiff on skull and jaw. Millimetres inside."""

from __future__ import annotations

import numpy as np

from a2lite.flame import FlameHead
from a2lite.people.numbering import MOUTH, SKIN, mouth_ring
from a2lite.player.look import Part

ENAMEL, GUM, TONGUE = np.array([0.90, 0.85, 0.74]), np.array([0.42, 0.15, 0.14]), np.array([0.46, 0.17, 0.16])
UPPER = [(8.2, 9.6), (6.5, 8.4), (7.4, 9.2), (6.8, 8.0), (6.6, 7.2), (8.5, 6.4)]  # width, height from the middle out
LOWER = [(5.4, 8.2), (5.8, 8.2), (6.6, 8.8), (6.6, 7.6), (6.8, 6.8), (8.5, 6.2)]
GUM_RING, EDGE_RING = 3, 2  # of the mouth, from the inside


def arches(head: FlameHead) -> tuple[np.ndarray, np.ndarray]:
    """Vertex numbers of gums and tooth edges, of the upper and the lower jaw: lining that only bones move."""
    upper, lower = [], []
    for ring in (GUM_RING, EDGE_RING):
        left, right = mouth_ring(head, ring)
        upper += [left[: MOUTH // 2], right[: MOUTH // 2 - 1]]
        lower += [left[MOUTH // 2 + 1 :], right[MOUTH // 2 :]]
    return np.concatenate(upper), np.concatenate(lower)


def teeth_and_tongue(head: FlameHead, rest: np.ndarray) -> list[Part]:
    """Three parts for the face that rests at ``rest`` (5023, 3) metres: upper teeth; lower teeth; tongue."""
    upper, lower = arches(head)
    mm = 1000 * rest
    top = _row(UPPER, *_arch(mm[upper], 1.4), edge=mm[upper][:, 1].min() - 0.2, up=1)
    low = _row(LOWER, *_arch(mm[lower], 0.4), edge=mm[lower][:, 1].max() + 0.3, up=-1)
    tongue = _tongue(mm[lower])
    part = lambda name, shape, anchor, gloss: Part(  # noqa: E731
        (shape[0] * 1e-3).astype(np.float32), shape[1], shape[2].astype(np.float32), _light(shape[0], mm), gloss,
        anchor, rest[anchor], name,
    )  # fmt: skip
    return [part("upper teeth", top, upper, 0.5), part("lower teeth", low, lower, 0.5),
            part("tongue", tongue, lower, 0.35)]  # fmt: skip


def _arch(points: np.ndarray, forward: float) -> tuple[float, float]:
    """z = front - bend x^2 through the arch's points, a little before them."""
    bend, front = np.polynomial.polynomial.polyfit(points[:, 0], points[:, 2], [0, 2])[[2, 0]]
    return front + forward, -bend


def _row(sizes: list[tuple[float, float]], front: float, bend: float, edge: float, up: int):
    """Teeth side by side along the arch, from the middle to either side: vertices, faces, colours."""
    x = np.linspace(0, 45, 2000)
    along = np.concatenate([[0], np.hypot(np.diff(x), np.diff(front - bend * x**2)).cumsum()])
    parts, start = [], 0.0
    for number, (width, height) in enumerate(sizes):
        where = np.interp(start + width / 2, along, x)
        start += width
        for side in (1, -1):
            slope = -2 * bend * where
            outward = np.array([-slope * side, 0, 1]) / np.hypot(slope, 1)
            across = np.array([1, 0, slope * side]) / np.hypot(slope, 1)
            place = np.array([side * where, edge, front - bend * where**2])
            parts.append(_tooth(place, across, outward, width * 1.08, height, up, number))
    return _join(parts)


def _tooth(place, across, outward, width, height, up, number):
    """A crown: narrower at the gum, its edges turned inward, a root of gum above it."""
    u, v = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(0, 1, 9), indexing="ij")  # across; edge to gum
    pointed = 0.7 if number == 2 else 0.12  # canines
    taper = 1 - 0.16 * v**2 - 0.04 * (1 - v) ** 6
    bulge = 1.5 * (1 - np.abs(u) ** 3.2) * (1 - 0.55 * v) - 1.5 * np.abs(u) ** 8 - 1.2 * (1 - v) ** 8
    rise = height * v + pointed * np.abs(u) ** 1.7 * (1 - v) + 0.5 * np.abs(u) ** 6 * (1 - v)
    p = place + (u * taper * width / 2)[..., None] * across + bulge[..., None] * outward
    p[..., 1] += up * rise
    gum = 1 / (1 + np.exp(-(v + 0.16 * np.abs(u) ** 2 - 0.90) * 30))[..., None]
    colour = ENAMEL * (1 - 0.05 * min(number, 4)) * (1 - 0.10 * v[..., None]) * (1 - 0.12 * np.abs(u[..., None]) ** 4)
    colour = colour * (1 - gum) + GUM * gum
    i, j = np.meshgrid(np.arange(6), np.arange(8), indexing="ij")
    a = (i * 9 + j).ravel()
    faces = np.concatenate([np.stack([a, a + 9, a + 1], 1), np.stack([a + 1, a + 9, a + 10], 1)])
    return p.reshape(-1, 3), faces[:, ::up], colour.reshape(-1, 3)


def _tongue(arch: np.ndarray):
    """A flattened half ellipsoid behind the lower teeth, with a groove along its middle."""
    front, floor, half = arch[:, 2].max() - 2.0, arch[:, 1].max() + 0.5, 0.72 * np.abs(arch[:, 0]).max()
    s, u = np.meshgrid(np.linspace(0, 1, 16), np.linspace(-1, 1, 13), indexing="ij")  # tip to root; right to left
    round_tip = np.sqrt(1 - (1 - np.minimum(s / 0.32, 1)) ** 2)
    x = u * half * round_tip * (0.82 + 0.18 * s)
    z = front - 34 * s - 2.5 * u**2 * (1 - s)
    y = floor + 4.2 * (1 - u**2) ** 0.6 * round_tip - 1.1 * np.exp(-((u / 0.16) ** 2)) * smooth(s) - 4.0 * (1 - s) ** 4
    i, j = np.meshgrid(np.arange(15), np.arange(12), indexing="ij")
    a = (i * 13 + j).ravel()
    faces = np.concatenate([np.stack([a, a + 13, a + 1], 1), np.stack([a + 1, a + 13, a + 14], 1)])[:, ::-1]
    colour = TONGUE * (1.05 - 0.25 * s)[..., None]
    return np.stack([x, y, z], -1).reshape(-1, 3), faces, colour.reshape(-1, 3)


def smooth(s: np.ndarray) -> np.ndarray:
    """0 at the tip and the root, 1 between."""
    return np.sin(np.pi * np.clip(s, 0, 1)) ** 0.7


def _join(parts):
    starts = np.cumsum([0] + [len(vertices) for vertices, _, _ in parts[:-1]])
    vertices, faces, colours = zip(*parts, strict=True)
    numbered = [f + n for f, n in zip(faces, starts, strict=True)]
    return np.concatenate(vertices), np.concatenate(numbered), np.concatenate(colours)


def _light(points: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Less light the deeper in the mouth, (P, 2)."""
    lips = head[:SKIN, 2][np.abs(head[:SKIN, 1] + 42) < 4].max()
    depth = np.clip((lips - points[:, 2]) / 40, 0, 1)  # 0 at the lips
    share = 0.95 * (1 - depth) ** 1.2 + 0.08
    return np.stack([share, 0.8 * share], 1).astype(np.float32)
