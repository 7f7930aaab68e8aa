"""From rings to a closed mesh in FLAME's counts: 3931 vertices, 7800 triangles, one open edge of 60 at the neck.

The skin between the rings is filled with points whose density follows ``edge_length`` (a weighted centroidal Voronoi
tessellation on the sculpted surface), joined by Delaunay in a nearly conformal plane, and mirrored. All is closed but
the neck, so Euler's formula gives the number of triangles; the number of filled points is whatever is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import Delaunay, cKDTree

from a2lite.flame.sculptor import mesh
from a2lite.flame.sculptor.rings import Patch, ear_patch, eye_patch, mouth_patch, nostril_patch
from a2lite.flame.sculptor.surface import CENTRE, EYE, NECK_FROM, lowest_elevation, outward, rays

VERTICES, NECK = 3931, 60
LLOYD_STEPS = 45


@dataclass
class Shell:
    """The skin, without eyeballs; millimetres. ``part``, ``ring`` and ``place`` say where a vertex comes from."""

    vertices: np.ndarray  # (3931, 3)
    faces: np.ndarray  # (7800, 3)
    part: np.ndarray  # (3931,) name of the patch, or "neck", "midline", "fill"; "eye_cap" and the like for centres
    ring: np.ndarray  # (3931,) number of the ring, from the inside
    place: np.ndarray  # (3931,) number on the ring
    patches: dict[str, Patch]


class Layout:
    """A plane in which the skin lies flat: polar, angle theta, radius such that angles are nearly kept."""

    def __init__(self, columns: int = 230, rows: int = 300):
        theta, s = np.linspace(0, np.pi, columns), np.linspace(0.004, 1, rows)
        grid_theta, grid_s = np.meshgrid(np.pi * (theta / np.pi) ** 1.25, s, indexing="ij")  # denser at the front
        grid = outward(*rays(grid_theta.ravel(), grid_s.ravel())).reshape(columns, rows, 3)
        length = np.linalg.norm(np.diff(grid, axis=1), axis=2).mean(0)
        radius = np.linalg.norm(np.diff(grid, axis=0), axis=2).sum(0) / np.pi
        log_rho = np.concatenate([[0], np.cumsum(length / (0.5 * (radius[1:] + radius[:-1])))])
        self.s, self.rho = s, np.exp(log_rho - log_rho[-1])
        self.points = grid.reshape(-1, 3)
        self.plane = self.to_plane(np.stack([grid_theta.ravel(), grid_s.ravel()], 1))
        self.area = np.linalg.norm(np.cross(np.gradient(grid, axis=0), np.gradient(grid, axis=1)), axis=2).ravel()

    def to_plane(self, rays_at: np.ndarray) -> np.ndarray:
        """(theta, s) of the ray family -> (x, y) in the plane."""
        rho = np.interp(rays_at[:, 1], self.s, self.rho)
        return np.stack([rho * np.sin(rays_at[:, 0]), rho * np.cos(rays_at[:, 0])], 1)

    def to_rays(self, plane: np.ndarray) -> np.ndarray:
        rho = np.hypot(plane[:, 0], plane[:, 1])
        return np.stack([np.arctan2(plane[:, 0], plane[:, 1]), np.interp(rho, self.rho, self.s)], 1)

    def locate(self, points: np.ndarray) -> np.ndarray:
        """Where points of the upper head (all patches lie there) fall in the plane: the rays' exact inverse."""
        q = points - CENTRE
        theta = np.arctan2(q[:, 0], q[:, 2])
        elevation = np.arcsin(q[:, 1] / np.linalg.norm(q, axis=1))
        s = NECK_FROM * (np.pi / 2 - elevation) / (np.pi / 2 - lowest_elevation(theta))
        return self.to_plane(np.stack([theta, s], 1))


def edge_length(points: np.ndarray) -> np.ndarray:
    """Wanted length of edges in mm: short round nose, eyes and mouth, long on the skull."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    behind = np.clip(45 - z, 0, None)
    face = np.sqrt(x**2 + ((y + 5) * 0.85) ** 2 + behind**2 * 1.6)
    chin = np.sqrt(x**2 * 0.35 + (y + 76) ** 2 + np.clip(20 - z, 0, None) ** 2)
    jaw_angle = np.sqrt((x - 44) ** 2 + (y + 52) ** 2 + (z - 8) ** 2 * 0.4)
    nose = np.sqrt(x**2 + (y + 9) ** 2 + (z - 78) ** 2)
    brow = np.sqrt((x - EYE[0]) ** 2 * 0.55 + (y - 35) ** 2)
    ear = np.sqrt((x - 72) ** 2 + (y - 8) ** 2 + (z + 12) ** 2)
    lengths = [np.full(len(points), 12.8)]
    for length, distance, reach, slope in (
        (5.0, face, 46, 0.12), (4.6, chin, 16, 0.25), (6.5, jaw_angle, 16, 0.25), (2.7, nose, 17, 0.16),
        (3.5, brow, 14, 0.2), (4.2, ear, 26, 0.25),
    ):
        lengths.append(length + np.clip(distance - reach, 0, None) * slope)
    lengths[5] = lengths[5] + np.clip(30 - z, 0, None) * 0.3  # the brow's fineness ends at the temple
    return np.min(lengths, axis=0)


class _Half:
    """The left half while it grows: vertices and where each comes from, and the triangles of the rings."""

    def __init__(self):
        self.points: list[np.ndarray] = []
        self.part: list[str] = []
        self.ring: list[int] = []
        self.place: list[int] = []
        self.middle: list[bool] = []
        self.faces: list[np.ndarray] = []
        self.outer: dict[str, np.ndarray] = {}

    def add(self, points: np.ndarray, part: str, ring: int = 0, middle: np.ndarray | None = None) -> np.ndarray:
        first, n = len(self.points), len(points)
        self.points.extend(points)
        self.part.extend([part] * n)
        self.ring.extend([ring] * n)
        self.place.extend(range(n))
        self.middle.extend([False] * n if middle is None else middle.tolist())
        return np.arange(first, first + n)

    def add_patch(self, patch: Patch) -> None:
        n, closed = len(patch.along), patch.centre is not None
        middle = None if closed else np.isin(np.arange(n), [0, n - 1])
        rows = [self.add(points, patch.name, k, middle) for k, points in enumerate(patch.rings)]
        cap = self.add(patch.centre[None], f"{patch.name}_cap") if closed else None
        self.faces += [mesh.strip(a, b, closed) for a, b in zip(rows[:-1], rows[1:], strict=True)]
        self.faces.append(mesh.fan(cap[0], rows[0]) if closed else mesh.zip_up(rows[0]))
        self.outer[patch.name] = rows[-1]


def _midline(theta: float, start: float, end: float, extra: int = 0) -> np.ndarray:
    """(theta, s) of points spaced by ``edge_length`` along the midline, ends left out."""
    s = np.linspace(start, end, 1500)
    points = outward(*rays(np.full(len(s), theta), s))
    length, step = edge_length(points), np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(step / (0.5 * (length[1:] + length[:-1])))])
    n = max(1, round(along[-1]) + extra)
    s = np.interp(np.arange(1, n) / n * along[-1], along, s)
    return np.stack([np.full_like(s, theta), s], 1)


def _midlines(layout: Layout, mouth: np.ndarray, on_middle: int) -> np.ndarray:
    """Crown, brow to mouth, mouth to neck, back of the head; one more behind if the counts would not be even."""
    (_, above), (_, below) = layout.to_rays(mouth[[0, -1]])
    for extra in (0, 1):
        lines = [np.zeros((1, 2)), _midline(0, 0, above), _midline(0, below, 1), _midline(np.pi, 0, 1, extra)]
        points = np.concatenate(lines)
        if (VERTICES - on_middle - 2 - len(points)) % 2 == 0:
            break
    return points


def _fill(layout: Layout, polygons: list[np.ndarray], fixed: np.ndarray, count: int) -> np.ndarray:
    """``count`` points in the plane, outside the polygons: Lloyd's algorithm, the ``fixed`` points being sites too."""
    keep = np.ones(len(layout.points), bool)
    for polygon in polygons:
        keep &= ~mesh.inside_polygon(layout.plane, polygon)
    length = edge_length(layout.points)
    samples, plane = layout.points[keep], layout.plane[keep]
    weight, chance = (layout.area / length**4)[keep], (layout.area / length**2)[keep]
    rng = np.random.default_rng(7)
    points = layout.plane[rng.choice(np.nonzero(keep)[0], count, replace=False, p=chance / chance.sum())]
    nearest = cKDTree(plane)
    for _ in range(LLOYD_STEPS):
        sites = np.concatenate([samples[nearest.query(points)[1]], fixed])
        owner = cKDTree(sites).query(samples)[1]
        total = np.bincount(owner, weight, minlength=len(sites))[:count]
        for axis in range(2):
            moment = np.bincount(owner, weight * plane[:, axis], minlength=len(sites))[:count]
            points[:, axis] = np.where(total > 0, moment / np.maximum(total, 1e-30), points[:, axis])
    return points


def _skin_faces(half: _Half, ring_plane: dict[str, np.ndarray], rows: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Delaunay in the plane with the rings' edges forced and their insides left out; then obtuse pairs flipped."""
    middle = np.array(half.middle)[rows]
    plane[middle, 0] = 0
    wanted, first = [], 0
    for name, polygon in ring_plane.items():
        n = len(polygon)
        wanted += [(first + i, first + (i + 1) % n) for i in range(n - 1 if name == "mouth" else n)]
        first += n
    faces = mesh.with_edges(plane, Delaunay(plane).simplices, wanted)
    area, centre = mesh.signed_area(plane, faces), plane[faces].mean(1)
    keep = (np.abs(area) > 1e-9) & ~middle[faces].all(1)
    for polygon in ring_plane.values():
        keep &= ~mesh.inside_polygon(centre, polygon)
    faces = rows[np.where((area < 0)[:, None], faces[:, ::-1], faces)[keep]]
    vertices = np.array(half.points)
    vertices[np.array(half.middle), 0] = 0
    faces = mesh.flip_obtuse(vertices, faces, mesh.boundary(faces))
    normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    inwards = (normal * (vertices[faces].mean(1) - np.array([0, 20.0, -15]))).sum() < 0
    return faces[:, ::-1] if inwards else faces


def build_shell() -> Shell:
    """The whole skin, exactly symmetric."""
    half, layout = _Half(), Layout()
    patches = {patch.name: patch for patch in (eye_patch(), mouth_patch(), ear_patch(), nostril_patch())}
    for patch in patches.values():
        half.add_patch(patch)
    points = np.array(half.points)
    ring_plane = {name: layout.locate(points[row]) for name, row in half.outer.items()}
    ring_plane["mouth"][[0, -1], 0] = 0
    neck = np.linspace(0, np.pi, NECK // 2 + 1)
    neck = np.stack([neck, np.ones_like(neck)], 1)
    middle = _midlines(layout, ring_plane["mouth"], sum(half.middle))
    on_middle = len(middle) + 2 + sum(half.middle)
    count = (VERTICES - on_middle) // 2 - (len(points) - sum(half.middle) + len(neck) - 2)
    neck_at, middle_at = (outward(*rays(at[:, 0], at[:, 1])) for at in (neck, middle))
    fixed = np.concatenate([points[np.concatenate(list(half.outer.values()))], neck_at, middle_at])
    fill = _fill(layout, list(ring_plane.values()), fixed, count)
    at = layout.to_rays(fill)
    rows = np.concatenate([
        *half.outer.values(),
        half.add(neck_at, "neck", middle=np.isin(np.arange(len(neck)), [0, len(neck) - 1])),
        half.add(middle_at, "midline", middle=np.ones(len(middle), bool)),
        half.add(outward(*rays(at[:, 0], at[:, 1])), "fill"),
    ])
    plane = np.concatenate([*ring_plane.values(), layout.to_plane(neck), layout.to_plane(middle), fill])
    skin = _skin_faces(half, ring_plane, rows, plane)
    faces = mesh.spread_orientation(np.concatenate([skin, *half.faces]), len(skin))
    return _mirrored(half, faces, patches)


def _mirrored(half: _Half, faces: np.ndarray, patches: dict[str, Patch]) -> Shell:
    middle, points = np.array(half.middle), np.array(half.points)
    points[middle, 0] = 0
    side = np.nonzero(~middle)[0]
    twin = np.arange(len(points))
    twin[side] = len(points) + np.arange(len(side))
    faces = np.concatenate([faces, twin[faces][:, ::-1]])
    origin = np.concatenate([np.arange(len(points)), side])
    part, ring, place = (np.array(column)[origin] for column in (half.part, half.ring, half.place))
    vertices = np.concatenate([points, points[side] * [-1, 1, 1]])
    free = np.isin(part, ["fill", "midline"]) | ((part == "nostril") & (ring == 3))
    _smooth(vertices, faces, free)
    vertices[: len(points)][middle, 0] = 0
    vertices[len(points) :] = vertices[side] * [-1, 1, 1]
    return Shell(vertices, faces, part, ring, place, patches)


def _smooth(vertices: np.ndarray, faces: np.ndarray, free: np.ndarray) -> None:
    """Taubin's smoothing of the ``free`` vertices, in place: a little in, a little more out."""
    neighbours = mesh.adjacency(len(vertices), mesh.edges(faces))
    degree = np.asarray(neighbours.sum(1))
    for step in (0.5, -0.52) * 3:
        vertices[free] += step * ((neighbours @ vertices) / degree - vertices)[free]
