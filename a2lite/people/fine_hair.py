"""Brows and lashes for the built head: every vertex is a weighted sum of the skin's, so that they go where it goes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix

from a2lite.flame import FlameHead
from a2lite.people.numbering import BALL, LID, SKIN, lid_margin

LASH = np.array([0.016, 0.010, 0.008])
BROW_HAIRS = 190  # a side
Terms = list[tuple[int, float]]  # vertices and their shares


def fine_hair(head: FlameHead, brow: np.ndarray, seed: int = 0) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """``Look.spun`` (E, 5023), faces (F, 3) and colours (E, 3); ``brow`` is linear RGB."""
    rest, rng = 1000 * head.v_template.numpy(), np.random.default_rng(seed)
    points: list[Terms] = []
    faces, colours = [], []
    for strand in _lashes(head, rest):
        a = len(points)
        faces += [(a, a + 1, a + 2), (a + 1, a + 3, a + 2), (a + 2, a + 3, a + 4)]
        points += strand
        colours += [LASH] * 5
    for hair in _brows(head, rest, rng):
        faces.append(range(len(points), len(points) + 3))
        points += hair
        colours += [np.clip(brow * (0.75 + 0.5 * rng.random()), 0, 1)] * 3
    rows = np.repeat(np.arange(len(points)), [len(terms) for terms in points])
    columns, shares = np.array([term for terms in points for term in terms]).T
    spun = csr_matrix((shares.astype(np.float32), (rows, columns.astype(int))), (len(points), len(rest)))
    return spun, np.array([list(face) for face in faces]) + len(rest), np.array(colours)


# ---------------------------------------------------------------- lashes


def _lashes(head: FlameHead, rest: np.ndarray) -> Iterator[list[Terms]]:
    for side, name in enumerate(("left", "right")):
        margin, ball = lid_margin(head, name), SKIN + side * BALL
        for place in np.arange(1.5, LID / 2 - 1, 0.5):  # between two vertices are halves
            middle, outer = np.sin(np.pi * place / (LID / 2)), 1 - place / (LID / 2)
            yield _lash(rest, margin, ball, place, 3.2 + 2.2 * middle + 1.6 * outer, 2.6, 0.34)
        for place in np.arange(LID / 2 + 3, LID - 1.5, 1.0):
            yield _lash(rest, margin, ball, place, 2.6, 1.0, 0.22)


def _lash(rest, margin, ball, place, reach, lift, width) -> list[Terms]:
    """Two points at the root, two halfway, the tip; millimetres.

    They are sums of the margin's point, its direction from the eyeball's centre, from its neighbour in the skin, and
    along the margin; the shares are those that give the wanted offsets on the head at rest.
    """
    low, part = int(place), place - int(place)
    here = [(margin[low], 1 - part), (margin[(low + 1) % LID], part)]
    skin = [(vertex + LID, share) for vertex, share in here]
    centre = [(ball, 0.507), (ball + BALL - 1, 0.493)]  # the cornea stands out by 2.8 %
    before, after = [(margin[low - 1], 1.0)], [(margin[(low + 2) % LID], 1.0)]
    at = lambda terms: sum(share * rest[vertex] for vertex, share in terms)  # noqa: E731
    axes = np.stack([at(here) - at(centre), at(skin) - at(here), at(after) - at(before)], 1)  # (3, 3), columns
    radial, along = (axes[:, i] / np.linalg.norm(axes[:, i]) for i in (0, 2))
    upward = np.linalg.qr(np.stack([radial, along, axes[:, 1]], 1))[0][:, 2]
    upward = upward * np.sign(upward @ axes[:, 1])
    upper = place < LID / 2
    middle = LID / 4 if upper else 3 * LID / 4
    spread = (0.45 if upper else 0.2) * np.clip(1 - (place - middle if upper else middle - place) / 9, 0, 1)
    fan = np.array([np.sign(rest[margin[0], 0]) * spread, 0, 0])
    half = 0.55 * reach * radial - 0.10 * lift * upward + 0.3 * reach * fan
    tip = 0.86 * reach * radial + lift * upward + 0.8 * reach * fan
    side, strand = along * width / 2, []
    for offset in (0.1 * radial + side, 0.1 * radial - side, half + 0.7 * side, half - 0.7 * side, tip):
        a, b, c = np.linalg.solve(axes, offset)
        strand.append([
            *((v, (1 + a - b) * s) for v, s in here), *((v, -a * s) for v, s in centre),
            *((v, b * s) for v, s in skin), *((v, c * s) for v, s in after), *((v, -c * s) for v, s in before),
        ])  # fmt: skip
    return strand


# ---------------------------------------------------------------- brows


def _brows(head: FlameHead, rest: np.ndarray, rng: np.random.Generator) -> Iterator[list[Terms]]:
    """Slivers of skin, raised a little: combed upward near the nose, then outward, thinning towards the temple."""
    faces = head.faces.numpy()
    faces = faces[np.isin(faces, head.regions["upper_face"].numpy()).all(1)]
    for side in (1, -1):
        for _ in range(BROW_HAIRS):
            x = 9.5 + 45 * rng.random() ** 0.9
            middle = np.interp(x, [8, 14, 22, 32, 40, 50, 56], [41.5, 44.2, 47.3, 50.0, 49.6, 45.2, 41])
            half = np.interp(x, [8, 11, 16, 30, 40, 50, 55], [2.2, 3.6, 4.0, 3.4, 2.6, 1.5, 0.5])
            across = rng.uniform(-1, 1)
            angle = np.interp(x, [9, 16, 26, 40, 55], [1.35, 0.95, 0.45, -0.1, -0.5]) - 0.35 * across
            angle += 0.14 * rng.normal()
            length = np.interp(x, [9, 20, 40, 55], [5.0, 7.5, 7.0, 4.5]) * (0.75 + 0.4 * rng.random())
            root = np.array([side * x, middle + half * across - 0.8])
            way = np.array([side * np.cos(angle), np.sin(angle)])
            broad = 0.28 * np.array([-way[1], way[0]])
            points = [root + broad, root - broad, root + length * way]
            hair = [_on_skin(rest, faces, point, 0.0025 if i < 2 else 0.006) for i, point in enumerate(points)]
            if all(hair):
                yield hair


def _on_skin(rest: np.ndarray, faces: np.ndarray, point: np.ndarray, lift: float) -> Terms:
    """The skin at (x, y) seen from the front, raised by ``lift`` of its way from the eyeballs' backs; [] beside it."""
    corners = rest[faces][..., :2]  # (F, 3, 2)
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    to = point - a
    with np.errstate(divide="ignore", invalid="ignore"):
        v, w = (to[:, 0] * ac[:, 1] - to[:, 1] * ac[:, 0]) / area, (ab[:, 0] * to[:, 1] - ab[:, 1] * to[:, 0]) / area
    inside = np.nonzero((v >= 0) & (w >= 0) & (v + w <= 1))[0]
    if len(inside) == 0:
        return []
    face = inside[rest[faces[inside], 2].mean(1).argmax()]
    shares = np.array([1 - v[face] - w[face], v[face], w[face]]) * (1 + lift)
    behind = [(SKIN + side * BALL + BALL - 1, -lift / 2) for side in (0, 1)]
    return [*zip(faces[face].tolist(), shares.tolist(), strict=True), *behind]
