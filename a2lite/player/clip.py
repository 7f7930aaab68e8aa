"""What the player plays: the vertices of a talking face, frame by frame, with colours and sound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from a2lite.player.light import light_shares
from a2lite.player.raster import camera_for


@dataclass(eq=False)
class Clip:
    """A moving mesh and its sound. Tensors and arrays are taken alike and kept as NumPy arrays.

    vertices: (T, V, 3), metres, y up, z towards the viewer, V < 65536
    faces: (F, 3), indices of the vertices, counter-clockwise seen from outside
    colours: (V, 3), linear RGB (not sRGB) in [0, 1]
    audio: (samples,) in [-1, 1] at ``rate`` Hz; None or empty is silence. It starts with the first frame, and
        may be shorter (silence follows) or longer (the last frame stays) than the motion
    fps: frames per second
    title, caption: plain texts under the face

    Raises ValueError, in one line, for an array of another shape, NaN, or vertices that are not in metres.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    audio: np.ndarray | None = None
    rate: int = 16000
    fps: float = 25.0
    title: str = ""
    caption: str = ""

    def __post_init__(self) -> None:
        self.vertices = _array("vertices", self.vertices, "(T, V, 3)", np.float32)
        self.faces = _array("faces", self.faces, "(F, 3)", np.int64)
        self.colours = _array("colours", self.colours, "(V, 3)", np.float32)
        if self.audio is not None and len(self.audio) == 0:
            self.audio = None
        if self.audio is not None:
            self.audio = _array("audio", self.audio, "(samples,)", np.float32)
        self._check()

    def _check(self) -> None:
        count = self.vertices.shape[1]
        if count > 65535:
            raise ValueError(f"clip vertices: {count} a frame; expected at most 65535")
        size = np.ptp(self.vertices[0], axis=0).max()
        if not 0.01 < size < 10:
            raise ValueError(f"clip vertices: frame 0 measures {size:.3g} m; expected metres, 0.01 to 10")
        if self.faces.min() < 0 or self.faces.max() >= count:
            low, high = self.faces.min(), self.faces.max()
            raise ValueError(f"clip faces: indices {low} to {high}; expected 0 to {count - 1}")
        if len(self.colours) != count:
            raise ValueError(f"clip colours: {len(self.colours)} rows; expected {count}, one per vertex")
        if self.colours.min() < 0 or self.colours.max() > 1:
            low, high = self.colours.min(), self.colours.max()
            raise ValueError(f"clip colours: from {low:.3g} to {high:.3g}; expected linear RGB in [0, 1]")
        if self.audio is not None and np.abs(self.audio).max() > 1.5:
            peak = np.abs(self.audio).max()
            raise ValueError(f"clip audio: peak {peak:.3g}; expected [-1, 1]; divide by full scale")
        if not self.rate > 0 or not self.fps > 0:
            raise ValueError(f"clip rate {self.rate} and fps {self.fps}: expected both above 0")

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
        return camera_for(self.vertices.mean(0))


def _array(name: str, value, shape: str, dtype: type) -> np.ndarray:
    """``value`` as an array of ``dtype`` whose shape matches the text ``shape``; else ValueError."""
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    axes = [axis for axis in shape.strip("()").replace(" ", "").split(",") if axis]
    fits = array.ndim == len(axes) and (axes[-1] != "3" or array.shape[-1] == 3) and array.size > 0
    if not fits:
        raise ValueError(f"clip {name}: got shape {tuple(array.shape)}; expected {shape}")
    if dtype is np.int64 and array.dtype.kind not in "iu":
        raise ValueError(f"clip {name}: got {array.dtype}; expected whole numbers")
    if dtype is np.float32 and not np.isfinite(array).all():
        raise ValueError(f"clip {name}: holds NaN or infinite values; look at what computed it")
    return np.ascontiguousarray(array, dtype)
