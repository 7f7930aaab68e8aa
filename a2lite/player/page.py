"""One HTML page that plays clips: no network, opens from a file or in a notebook's frame.

three.js is in it, compressed (``vendor/``, MIT licence); all else is ``player.html``, ``scene.js``, ``player.js``.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from a2lite.player.basis import Basis, compress
from a2lite.player.clip import Clip
from a2lite.player.light import STUDIO
from a2lite.player.look import SQUEEZE, Part, rigid
from a2lite.player.picture import jpeg, strip

STEP = 4e-5  # metres, to which the places of parts are rounded


def page(*clips: Clip, pictures: bytes | None = None, heat: float = 0.0) -> str:
    """The page's text: shapes, motion, sound, pictures and script are all in it.

    Several clips stand side by side on one clock, with the sound, words and tokens of the first that has them.
    ``heat`` > 0 adds a button that colours each by its distance from the first, up to ``heat`` metres. ``pictures``
    is the JPEG for browsers without WebGL2, ``strip`` of the first if None. ValueError where clips do not fit.
    """
    check_clips(clips, heat)
    arrays = Arrays()
    content = _content(clips, heat, arrays)
    parts = {
        "title": escape(clips[0].title or "face"),
        "names": "".join(f"<span>{escape(clip.title)}</span>" for clip in clips) if len(clips) > 1 else "",
        "texts": _texts(clips),
        "strip": _base64(pictures or jpeg(strip(clips[0]))),
        "clip": json.dumps(content).replace("<", "\\u003c"),
        "arrays": _base64(gzip.compress(bytes(arrays.data), mtime=0)),
        "three": _base64(files("a2lite.player").joinpath("vendor/three.js.gz").read_bytes()),
        "scene": _own_file("scene.js"),
        "player": _own_file("player.js"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _own_file("player.html"))


class Arrays:
    """Arrays one behind the other; each is known by its kind, where it begins and how many numbers it has."""

    def __init__(self):
        self.data = bytearray()

    def add(self, array: np.ndarray, kind: str) -> tuple[str, int, int]:
        """``kind`` as numpy's f4 or u2, or d2: steps from each u2 to the next, modulo 65536, which pack better."""
        if kind == "d2":
            array = np.diff(array.ravel(), prepend=0) % 65536
        self.data += bytes(-len(self.data) % 4)
        start = len(self.data)
        self.data += np.ascontiguousarray(array, f"<{kind.replace('d', 'u')}").tobytes()
        return kind, start, array.size


def check_clips(clips: Sequence[Clip], heat: float) -> None:
    """ValueError where clips cannot share a page."""
    if not clips or not all(isinstance(clip, Clip) for clip in clips):
        got = ", ".join(type(clip).__name__ for clip in clips) or "nothing"
        raise ValueError(f"page: got {got}; expected one or more Clips, one by one: save_page(path, *clips)")
    rates = sorted({clip.fps for clip in clips})
    if len(rates) > 1:
        raise ValueError(f"page: clips of {rates} frames a second; expected one rate, they share a clock")
    if not 0 <= heat < 1:
        raise ValueError(f"page: heat {heat:g}; expected metres at the scale's end, as 0.01, or 0 for none")
    if heat and (len(clips) < 2 or any(not np.array_equal(clip.faces, clips[0].faces) for clip in clips)):
        counts = sorted({clip.vertices.shape[1] for clip in clips})
        raise ValueError(f"page: heat over {len(clips)} clips of {counts} vertices; expected two or more of one mesh")


def save_page(path: str | Path, *clips: Clip, heat: float = 0.0) -> Path:
    """Write ``page(...)`` to ``path`` (folders are made, an old page is replaced whole) and return it."""
    if not isinstance(path, str | Path):
        raise ValueError(f"save_page: got a {type(path).__name__} first; expected save_page(path, *clips)")
    return write_page(Path(path), page(*clips, heat=heat))


def write_page(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path


def _texts(clips: Sequence[Clip]) -> str:
    title = f"<strong>{escape(clips[0].title)}</strong>" if len(clips) == 1 and clips[0].title else ""
    captions = " · ".join(escape(clip.caption) for clip in clips if clip.caption)
    return f"<p>{title}{captions}</p>" if title or captions else ""


def _content(clips: Sequence[Clip], heat: float, arrays: Arrays) -> dict:
    """What ``scene.js`` and ``player.js`` read; where they find the numbers in ``arrays``."""
    duration = max(clip.duration for clip in clips)
    heard = next((clip for clip in clips if clip.audio is not None), None)
    words = next((clip.words for clip in clips if clip.words), ())
    tokens = next((clip.tokens for clip in clips if clip.tokens), ())
    return {
        "fps": clips[0].fps,
        "duration": duration,
        "audio": None if heard is None else _base64(wav_bytes(heard, duration)),
        "words": [[round(float(start), 3), str(word)] for start, word in words],
        "tokens": [{"name": t.name, "step": 1 / t.rate, "labels": [str(label) for label in t.labels]} for t in tokens],
        "heat": heat,
        "studio": STUDIO,
        "clips": [_shape(clip, arrays) for clip in clips],
    }


def _shape(clip: Clip, arrays: Arrays) -> dict:
    basis, spun = compress(clip.vertices[:, : clip.look.count]), clip.look.spun
    return {
        "frames": len(clip.vertices),
        "directions": len(basis.scales),
        "mean": arrays.add(basis.mean, "f4"),
        "basis": arrays.add(basis.directions, "i2"),
        "weights": arrays.add(basis.weights * basis.scales, "f4"),
        "poses": arrays.add(_poses(basis.rotations, basis.shifts), "f4"),
        "spun": spun is not None and {  # where each further vertex's terms begin, of which vertices, with which shares
            "starts": arrays.add(spun.indptr, "u4"),
            "vertices": arrays.add(spun.indices, "u2"),
            "shares": arrays.add(spun.data, "f4"),
        },
        "faces": arrays.add(clip.faces, "d2"),
        "paint": arrays.add(_paint(clip.colours, clip.look.gloss), "u1"),
        "light": arrays.add((clip.light * 255).round(), "u1"),
        "camera": clip.camera,
        "detail": clip.look.detail is not None and _detail(clip, basis, arrays),
        "parts": [_part(part, clip, arrays) for part in clip.look.parts],
    }  # fmt: skip


def _detail(clip: Clip, basis: Basis, arrays: Arrays) -> dict:
    """The skin's detail; ``upright`` turns directions of the resting face to those of the basis's mean, row by row."""
    detail, strands = clip.look.detail, len(clip.colours) - clip.look.count
    spots = np.column_stack([np.clip(detail.uv, 0, 1), detail.share])
    spots = np.concatenate([spots, np.zeros((strands, 3))])
    upright = rigid(detail.rest, basis.mean[None, detail.anchor])[0][0]
    picture = io.BytesIO()
    Image.fromarray(detail.picture).save(picture, "JPEG", quality=88, subsampling=0)
    return {
        "picture": _base64(picture.getvalue()),
        "spots": arrays.add((spots * 65535).round(), "u2"),
        "area": arrays.add(np.concatenate([detail.area, np.ones(strands)]), "f4"),
        "size": detail.size,
        "heights": detail.heights,
        "squeeze": SQUEEZE,
        "upright": upright.ravel().tolist(),
    }


def _part(part: Part, clip: Clip, arrays: Arrays) -> dict:
    """A stiff part: the steps from each vertex to the next in units of ``step`` metres; where it is in each frame."""
    places = np.rint(part.vertices / STEP).astype(np.int64)
    order = np.argsort(part.faces.min(1), kind="stable")  # a renderer keeps few vertices in mind
    return {
        "step": STEP,
        "places": arrays.add(np.diff(places, axis=0, prepend=0), "i2"),
        "faces": arrays.add(part.faces[order], "d2"),
        "paint": arrays.add(_paint(part.colours, np.full(len(part.colours), part.gloss)), "u1"),
        "light": arrays.add((part.light * 255).round(), "u1"),
        "poses": arrays.add(_poses(*part.poses(clip.vertices)), "f4"),
    }


def _poses(rotations: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """(T, 12): rotations row by row, shifts."""
    return np.concatenate([rotations.reshape(-1, 9), shifts], axis=1)


def _paint(colours: np.ndarray, gloss: np.ndarray) -> np.ndarray:
    """(V, 4): roots of the linear colours, so that 8 bits suffice in the dark, and the gloss."""
    return (np.column_stack([np.sqrt(colours), gloss]) * 255).round()


def wav_bytes(clip: Clip, duration: float | None = None) -> bytes:
    """The clip's sound as a 16-bit wav file, with silence up to ``duration`` seconds (the clip's own if None)."""
    silence = max(0, round((duration or clip.duration) * clip.rate) - len(clip.audio))
    buffer = io.BytesIO()
    soundfile.write(buffer, np.pad(clip.audio, (0, silence)), clip.rate, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _own_file(name: str) -> str:
    return files("a2lite.player").joinpath(name).read_text(encoding="utf-8")
