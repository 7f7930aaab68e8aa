"""What the player plays: the vertices of a talking face, frame by frame, with colours and sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from a2lite.player.light import light_shares
from a2lite.player.look import Look, check_array
from a2lite.player.raster import camera_for


@dataclass(frozen=True)
class Tokens:
    """A row of tokens under the face: token i holds from i / rate to (i + 1) / rate seconds; "" is an empty slot."""

    name: str
    rate: float  # tokens per second
    labels: Sequence[str]


@dataclass(eq=False)
class Clip:
    """A moving mesh and its sound. Tensors and arrays are taken alike and kept as NumPy arrays.

    vertices: (T, V, 3), metres, y up, z towards the viewer, V < 65536. The clip shows them as the look extends them:
        spun vertices are added, and a look with a neck lets its lower end stay where FLAME turns it
    look: triangles and colours, and what the face wears
    audio: (samples,) in [-1, 1] at ``rate`` Hz; None or empty is silence. It starts with the first frame, and
        may be shorter (silence follows) or longer (the last frame stays) than the motion
    fps: frames per second
    title, caption: plain texts under the face
    words: (second at which it begins, word) in order, shown as they are said
    tokens: rows that move along under the face, at most three

    Raises ValueError, in one line, for an array of another shape, NaN, or vertices that are not in metres.
    """

    vertices: np.ndarray
    look: Look
    audio: np.ndarray | None = None
    rate: int = 16000
    fps: float = 25.0
    title: str = ""
    caption: str = ""
    words: Sequence[tuple[float, str]] = ()
    tokens: Sequence[Tokens] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.look, Look):
            raise ValueError(f"clip look: got a {type(self.look).__name__}; expected a Look, as dress(head) gives")
        self.vertices = self.look.extend(check_array("clip vertices", self.vertices, "(T, V, 3)", np.float32))
        if self.audio is not None and len(self.audio) == 0:
            self.audio = None
        if self.audio is not None:
            self.audio = check_array("clip audio", self.audio, "(samples,)", np.float32)
        self._check()

    def _check(self) -> None:
        count = self.vertices.shape[1]
        if count > 65535:
            raise ValueError(f"clip vertices: {count} a frame; expected at most 65535")
        size = np.ptp(self.vertices[0], axis=0).max()
        if not 0.01 < size < 10:
            raise ValueError(f"clip vertices: frame 0 measures {size:.3g} m; expected metres, 0.01 to 10")
        if self.audio is not None and np.abs(self.audio).max() > 1.5:
            peak = np.abs(self.audio).max()
            raise ValueError(f"clip audio: peak {peak:.3g}; expected [-1, 1]; divide by full scale")
        if not self.rate > 0 or not self.fps > 0:
            raise ValueError(f"clip rate {self.rate} and fps {self.fps}: expected both above 0")
        starts = [start for start, _ in self.words]
        if starts != sorted(starts):
            raise ValueError("clip words: their seconds go back; expected (second, word) in order")
        if any(not row.rate > 0 for row in self.tokens) or len(self.tokens) > 3:
            raise ValueError(f"clip tokens: {len(self.tokens)} rows; expected at most 3, each of a rate above 0")

    @property
    def faces(self) -> np.ndarray:
        """(F, 3) of the face, without its parts."""
        return self.look.faces

    @property
    def colours(self) -> np.ndarray:
        """(V, 3) of the face, linear RGB."""
        return self.look.colours

    @property
    def duration(self) -> float:
        """Seconds, of the longer of motion and sound."""
        sound = 0.0 if self.audio is None else len(self.audio) / self.rate
        return max(len(self.vertices) / self.fps, sound)

    @cached_property
    def light(self) -> np.ndarray:
        """(V, 2): the shares of ambient and of key light that reach each vertex of the mean face."""
        return light_shares(self.vertices.mean(0), self.faces)

    @cached_property
    def camera(self) -> dict:
        """The camera's place, the same for every frame."""
        return camera_for(self.vertices.mean(0), self.look.top, self.look.bottom)
