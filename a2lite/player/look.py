"""What a face is drawn with: its triangles and colours, and what it wears, such as hair and teeth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from a2lite.player.light import EYE_GLOSS, SKIN_GLOSS, apart
from a2lite.player.raster import areas


@dataclass(eq=False)
class Part:
    """Something stiff that a face wears: it moves as the skin (or bone) at its anchor does.

    vertices: (P, 3), metres, where the anchor's vertices are at ``rest``
    faces: (F, 3), counter-clockwise from outside
    colours: (P, 3), linear RGB in [0, 1]
    light: (P, 2), shares of ambient and of key light that reach it
    gloss: how much it shines, 0 to 1
    anchor: (A,), numbers of vertices of the face; rest: (A, 3), metres
    name: what it is, in a GLB
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    light: np.ndarray
    gloss: float
    anchor: np.ndarray
    rest: np.ndarray
    name: str = "part"

    def __post_init__(self) -> None:
        count, told = len(self.vertices), f"part {self.name}"
        if not 0 < count < 65536:
            raise ValueError(f"{told} vertices: {count}; expected 1 to 65535")
        for name, shape in (("colours", (count, 3)), ("light", (count, 2)), ("rest", (len(self.anchor), 3))):
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(f"{told} {name}: got shape {np.shape(getattr(self, name))}; expected {shape}")
        if np.ndim(self.faces) != 2 or not len(self.faces):
            raise ValueError(f"{told} faces: got shape {np.shape(self.faces)}; expected (F, 3)")
        low, high = np.min(self.faces), np.max(self.faces)
        if low < 0 or high >= count:
            raise ValueError(f"{told} faces: indices {low} to {high}; expected 0 to {count - 1}")

    def poses(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotations (T, 3, 3) and shifts (T, 3) that carry it with the faces (T, V, 3)."""
        return rigid(self.rest, vertices[:, self.anchor])


@dataclass(eq=False)
class Detail:
    """What is finer than the mesh: a picture laid on the face from the front.

    picture: (H, W, 3) uint8: tone (128 is none, twice that twice as bright); relief and folds as heights about 128
    uv: (V, 2), where each vertex finds itself in it, from its upper left corner, 0 to 1
    share: (V,), how much of it each vertex takes, 0 to 1
    size: metres across and down of the whole picture; heights: metres at the end of relief and of folds
    anchor: (A,), numbers of vertices that turn as the head does; rest: (A, 3), where they are when the face looks at +z
    area: (V,), square metres of skin around each vertex at rest; where it is less, folds show
    """

    picture: np.ndarray
    uv: np.ndarray
    share: np.ndarray
    size: tuple[float, float]
    heights: tuple[float, float]
    anchor: np.ndarray
    rest: np.ndarray
    area: np.ndarray

    def slopes(self) -> np.ndarray:
        """(H, W, 4): how steep relief and folds are to the right and upwards, metres per metre."""
        down, right = (length / count for length, count in zip(self.size[::-1], self.picture.shape[:2], strict=True))
        out = []
        for channel, height in zip((1, 2), self.heights, strict=True):
            metres = (self.picture[..., channel].astype(np.float32) - 128) / 127 * height
            below, beside = np.gradient(metres, down, right)
            out += [beside, -below]
        return np.stack(out, -1)

    def squeezed(self, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """(V,) from 0 to 1, how much of its surface the skin (V, 3) has lost."""
        return np.clip(SQUEEZE * (1 - areas(vertices, faces) / self.area), 0, 1)


@dataclass(eq=False)
class Neck:
    """What stays where it is when the head turns: FLAME turns the whole neck, a person's shoulders stay.

    share: (V,), 1 stays, 0 goes with the head
    anchor: (A,), numbers of vertices of the neck's end; rest: (A, 3), where they stay
    """

    share: np.ndarray
    anchor: np.ndarray
    rest: np.ndarray

    def held(self, vertices: np.ndarray) -> np.ndarray:
        """(T, V, 3) -> the same with the neck's end where it stays; twice is as once. ValueError for another's neck."""
        rotations, shifts = rigid(self.rest, vertices[:, self.anchor])
        inverse = lambda of: (vertices[:, of] - shifts[:, None]) @ rotations  # noqa: E731  R^T (v - s), in rows
        of, out = np.nonzero(self.share)[0], vertices.copy()
        still = inverse(of)
        off = np.linalg.norm(inverse(self.anchor)[0] - self.rest, axis=1).max()
        if off > MISFIT:
            raise ValueError(
                f"look: is dressed for another face, whose neck is {1000 * off:.0f} mm off; take shape and look of one "
                "person: Flame(head, PEOPLE[name].betas(head)) and dress(head, name)"
            )
        out[:, of] += self.share[of, None] * (still - vertices[:, of])
        return out


MISFIT = 0.002  # metres; expressions move what stays by a tenth of a millimetre
HEM = 0.075  # metres of what is worn lowest that no picture shows
SQUEEZE = 2.0  # folds are whole where half of the surface is gone


@dataclass(eq=False)
class Look:
    """``faces`` (F, 3) and ``colours`` (V, 3) of a mesh, linear RGB, the ``parts`` it wears, the skin's ``detail``.

    ``spun`` (E, V) are further vertices as weighted sums of the mesh's own, which follow the skin exactly, as lashes
    do; ``faces`` and ``colours`` count them after the mesh's. A ``neck`` bends where the mesh's own turns stiffly.
    """

    faces: np.ndarray
    colours: np.ndarray
    parts: Sequence[Part] = ()
    spun: csr_matrix | None = None
    detail: Detail | None = None
    neck: Neck | None = None

    def __post_init__(self) -> None:
        self.faces = check_array("look faces", self.faces, "(F, 3)", np.int64)
        self.colours = check_array("look colours", self.colours, "(V, 3)", np.float32)
        low, high = self.faces.min(), self.faces.max()
        if low < 0 or high >= len(self.colours):
            raise ValueError(f"look faces: indices {low} to {high}; expected 0 to {len(self.colours) - 1}")
        low, high = self.colours.min(), self.colours.max()
        if low < 0 or high > 1:
            raise ValueError(f"look colours: from {low:.3g} to {high:.3g}; expected linear RGB in [0, 1]")
        if self.spun is not None and sum(self.spun.shape) != len(self.colours):
            raise ValueError(f"look spun: got {self.spun.shape}; expected (E, V) with V + E = {len(self.colours)}")
        if self.neck is not None and len(self.neck.share) != self.count:
            raise ValueError(f"look neck: got {len(self.neck.share)} shares; expected {self.count}, one per vertex")

    @property
    def count(self) -> int:
        """V, vertices of the mesh itself."""
        return len(self.colours) - (0 if self.spun is None else self.spun.shape[0])

    def extend(self, vertices: np.ndarray) -> np.ndarray:
        """(T, V, 3) of the mesh -> (T, V + E, 3) as it is shown: the neck held, with the spun vertices.

        What has them already is returned as it is. ValueError for a mesh of another size.
        """
        if self.spun is not None and self.spun.shape[0] and vertices.shape[1] == len(self.colours):
            return vertices
        if vertices.shape[1] != self.count:
            raise ValueError(f"look colours: {self.count} rows; expected {vertices.shape[1]}, one per vertex")
        if self.neck is not None:
            vertices = self.neck.held(vertices)
        if self.spun is None:
            return vertices
        more = [self.spun @ frame for frame in vertices]
        return np.concatenate([vertices, np.asarray(more, vertices.dtype)], axis=1)

    @property
    def skin(self) -> np.ndarray:
        """The faces of the mesh itself, without strands."""
        return self.faces[(self.faces < self.count).all(1)]

    @property
    def top(self) -> float:
        """Metres, how high what it wears reaches at rest."""
        return max((float(part.vertices[:, 1].max()) for part in self.parts), default=-np.inf)

    @property
    def bottom(self) -> float:
        """Metres, how low a picture of it reaches: a shirt's end stays out of sight."""
        return min((float(part.vertices[:, 1].min()) + HEM for part in self.parts), default=np.inf)

    @cached_property
    def gloss(self) -> np.ndarray:
        """(V + E,): what hangs apart from the skin are eyeballs, and wet; lashes are dull."""
        own = self.count
        piece = apart(own, self.skin)
        shine = np.where(piece == np.bincount(piece).argmax(), SKIN_GLOSS, EYE_GLOSS)
        return np.concatenate([shine, np.zeros(len(self.colours) - own)]).astype(np.float32)


def rigid(rest: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, 3, 3) and shifts (T, 3) that bring ``rest`` (A, 3) nearest to ``now`` (T, A, 3) (Kabsch 1976)."""
    middle, home = now.mean(1), rest.mean(0)
    u, _, vt = np.linalg.svd((now - middle[:, None]).transpose(0, 2, 1) @ (rest - home))
    u[np.linalg.det(u @ vt) < 0, :, 2] *= -1
    rotations = u @ vt
    return rotations, middle - rotations @ home


def check_array(name: str, value, shape: str, dtype: type) -> np.ndarray:
    """``value`` (array or tensor) as an array of ``dtype`` whose shape matches the text ``shape``; else ValueError."""
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    axes = [axis for axis in shape.strip("()").replace(" ", "").split(",") if axis]
    fits = array.ndim == len(axes) and (axes[-1] != "3" or array.shape[-1] == 3) and array.size > 0
    if not fits:
        raise ValueError(f"{name}: got shape {tuple(array.shape)}; expected {shape}")
    if dtype is np.int64 and array.dtype.kind not in "iu":
        raise ValueError(f"{name}: got {array.dtype}; expected whole numbers")
    if dtype is np.float32 and not np.isfinite(array).all():
        raise ValueError(f"{name}: holds NaN or infinite values; look at what computed it")
    return np.ascontiguousarray(array, dtype)
