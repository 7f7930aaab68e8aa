"""Small operations on triangle lists: edges, flips, orientation."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix

Edge = tuple[int, int]


def edges(faces: np.ndarray) -> np.ndarray:
    """Each undirected edge once, (E, 2)."""
    return np.unique(_all_edges(faces), axis=0)


def boundary(faces: np.ndarray) -> set[Edge]:
    """Edges that belong to one triangle only."""
    unique, uses = np.unique(_all_edges(faces), axis=0, return_counts=True)
    return {tuple(edge) for edge in unique[uses == 1].tolist()}


def _all_edges(faces: np.ndarray) -> np.ndarray:
    return np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)


def adjacency(count: int, pairs: np.ndarray, weights: np.ndarray | None = None) -> csr_matrix:
    """Symmetric (V, V), 1 or ``weights`` at each of ``pairs``."""
    weights = np.ones(len(pairs)) if weights is None else weights
    both = np.concatenate([pairs, pairs[:, ::-1]])
    return coo_matrix((np.concatenate([weights, weights]), (both[:, 0], both[:, 1])), (count, count)).tocsr()


def strip(inner: np.ndarray, outer: np.ndarray, closed: bool) -> np.ndarray:
    """Triangles between two rows of equally many vertices."""
    n, faces = len(inner), []
    for i in range(n if closed else n - 1):
        j = (i + 1) % n
        faces += [(inner[i], outer[i], outer[j]), (inner[i], outer[j], inner[j])]
    return np.array(faces)


def fan(centre: int, ring: np.ndarray) -> np.ndarray:
    return np.array([(centre, ring[i], ring[(i + 1) % len(ring)]) for i in range(len(ring))])


def zip_up(ring: np.ndarray) -> np.ndarray:
    """Close an open half ring by joining its first half to its second, with no vertex of its own."""
    faces, last = [], len(ring) - 1
    for i in range(last // 2):
        a, b, c, d = ring[i], ring[i + 1], ring[last - i], ring[last - i - 1]
        faces += [(a, b, c)] + ([(b, d, c)] if b != d else [])
    return np.array(faces)


def inside_polygon(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Even-odd rule in the plane: (N,) bool."""
    x, y = points.T
    inside = np.zeros(len(points), bool)
    for (xi, yi), (xj, yj) in zip(polygon, np.roll(polygon, 1, axis=0), strict=True):
        if yi != yj:
            inside ^= ((yi > y) != (yj > y)) & (x < (xj - xi) * (y - yi) / (yj - yi) + xi)
    return inside


def signed_area(xy: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = xy[faces[:, 0]], xy[faces[:, 1]], xy[faces[:, 2]]
    return 0.5 * ((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1]))


def _turn(o: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def _cross(p: np.ndarray, q: np.ndarray, r: np.ndarray, s: np.ndarray) -> bool:
    """Do the segments pq and rs cross?"""
    return _turn(p, q, r) * _turn(p, q, s) < 0 and _turn(r, s, p) * _turn(r, s, q) < 0


def _third(face: list[int], edge: Edge) -> int:
    return next(v for v in face if v not in edge)


def _neighbours(faces: list[list[int]], ends: tuple[int, int, int]) -> dict[Edge, list[int]]:
    """Edge -> numbers of its triangles; ``ends`` is the step from a corner to the edge's other end, for each corner."""
    found: dict[Edge, list[int]] = {}
    for i, face in enumerate(faces):
        for k in range(3):
            found.setdefault(tuple(sorted((face[k], face[ends[k]]))), []).append(i)
    return found


def with_edges(xy: np.ndarray, faces: np.ndarray, wanted: list[Edge]) -> np.ndarray:
    """Flip whatever crosses each wanted edge, until the edge is there."""
    faces = faces.tolist()
    for a, b in wanted:
        for _ in range(60):
            found = _neighbours(faces, (2, 0, 1))
            if tuple(sorted((a, b))) in found or not _flip_crossing(xy, faces, found, a, b):
                break
    return np.array(faces)


def _flip_crossing(xy: np.ndarray, faces: list[list[int]], found: dict[Edge, list[int]], a: int, b: int) -> bool:
    for (c, d), pair in found.items():
        if len(pair) != 2 or a in (c, d) or b in (c, d) or not _cross(xy[a], xy[b], xy[c], xy[d]):
            continue
        e, g = _third(faces[pair[0]], (c, d)), _third(faces[pair[1]], (c, d))
        if _turn(xy[e], xy[g], xy[c]) * _turn(xy[e], xy[g], xy[d]) < 0:
            faces[pair[0]], faces[pair[1]] = [e, g, c], [g, e, d]
            return True
    return False


def flip_obtuse(vertices: np.ndarray, faces: np.ndarray, locked: set[Edge]) -> np.ndarray:
    """Flip edges whose opposite angles exceed pi in space (Delaunay's condition), save ``locked`` ones."""
    faces = faces.tolist()
    for _ in range(12):
        found = _neighbours(faces, (1, 2, 0))
        touched: set[int] = set()
        for edge, pair in found.items():
            if len(pair) == 2 and edge not in locked and not touched & set(pair):
                flipped = _better_pair(vertices, faces[pair[0]], faces[pair[1]], edge, found)
                if flipped:
                    faces[pair[0]], faces[pair[1]] = flipped
                    touched |= set(pair)
        if not touched:
            break
    return np.array(faces)


def _better_pair(v: np.ndarray, first: list[int], second: list[int], edge: Edge, found: dict) -> tuple | None:
    c, d = _third(first, edge), _third(second, edge)
    if _angle(v, c, edge) + _angle(v, d, edge) <= np.pi + 0.02 or tuple(sorted((c, d))) in found:
        return None
    k = first.index(c)
    one, other = [c, first[(k + 1) % 3], d], [c, d, first[(k + 2) % 3]]
    return (one, other) if _normal(v, one) @ _normal(v, other) > 0 else None


def _angle(v: np.ndarray, corner: int, edge: Edge) -> float:
    p, q = v[edge[0]] - v[corner], v[edge[1]] - v[corner]
    return np.arccos(np.clip(p @ q / (np.linalg.norm(p) * np.linalg.norm(q) + 1e-12), -1, 1))


def _normal(v: np.ndarray, face: list[int]) -> np.ndarray:
    return np.cross(v[face[1]] - v[face[0]], v[face[2]] - v[face[0]])


def spread_orientation(faces: np.ndarray, trusted: int) -> np.ndarray:
    """Turn every triangle to agree with its neighbours, starting from the first ``trusted`` ones."""
    faces = faces.copy()
    found = _neighbours(faces.tolist(), (1, 2, 0))
    done, queue = np.zeros(len(faces), bool), deque(range(trusted))
    done[:trusted] = True
    while queue:
        i = queue.popleft()
        for a, b in zip(faces[i].tolist(), np.roll(faces[i], -1).tolist(), strict=True):
            for j in found[tuple(sorted((a, b)))]:
                if not done[j]:
                    face = faces[j].tolist()
                    if face[(face.index(a) + 1) % 3] == b:
                        faces[j] = faces[j][::-1]
                    done[j] = True
                    queue.append(j)
    return faces
