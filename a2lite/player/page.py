"""One HTML page that plays a clip: no network, no library, opens from a file or in a notebook's frame."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
import soundfile

from a2lite.player.basis import compress
from a2lite.player.clip import Clip
from a2lite.player.light import STUDIO, glossiness
from a2lite.player.picture import png, strip


def page(clip: Clip, pictures: bytes | None = None) -> str:
    """The page's text: shape, motion, sound, pictures and script are all in it.

    ``pictures`` is the PNG for browsers without WebGL2, ``strip(clip)`` if None.
    """
    parts = {
        "title": escape(clip.title or "face"),
        "texts": _texts(clip),
        "strip": _base64(pictures or png(strip(clip))),
        "clip": json.dumps(_content(clip)).replace("</", "<\\/"),
        "scene": _own_file("scene.js"),
        "player": _own_file("player.js"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _own_file("player.html"))


def save_page(path: str | Path, clip: Clip) -> Path:
    """Write ``page(clip)`` to ``path`` (folders are made, an old page is replaced whole) and return it."""
    return write_page(Path(path), page(clip))


def write_page(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path


def _texts(clip: Clip) -> str:
    title = f"<strong>{escape(clip.title)}</strong>" if clip.title else ""
    return f"<p>{title}{escape(clip.caption)}</p>" if clip.title or clip.caption else ""


def _content(clip: Clip) -> dict:
    """What ``scene.js`` and ``player.js`` read; arrays as base64 of little-endian numbers."""
    basis = compress(clip.vertices)
    poses = np.concatenate([basis.rotations.reshape(-1, 9), basis.shifts], axis=1)  # (T, 12), row by row
    shines = glossiness(len(clip.colours), clip.faces)
    paint = np.column_stack([np.sqrt(clip.colours), shines])  # roots, so that 8 bits suffice in the dark
    return {
        "fps": clip.fps,
        "frames": len(clip.vertices),
        "duration": clip.duration,
        "directions": len(basis.scales),
        "error_mm": round(1000 * basis.error, 4),
        "mean": _base64(basis.mean.astype("<f4")),
        "basis": _base64(basis.directions.astype("<i2")),
        "weights": _base64((basis.weights * basis.scales).astype("<f4")),
        "poses": _base64(poses.astype("<f4")),
        "faces": _base64(clip.faces.astype("<u2")),
        "paint": _base64((paint * 255).round().astype(np.uint8)),
        "light": _base64((clip.light * 255).round().astype(np.uint8)),
        "studio": STUDIO,
        "camera": clip.camera,
        "audio": None if clip.audio is None else _base64(wav_bytes(clip)),
    }


def wav_bytes(clip: Clip) -> bytes:
    """The clip's sound as a 16-bit wav file, with silence up to the last frame where the sound is shorter."""
    silence = max(0, round(len(clip.vertices) / clip.fps * clip.rate) - len(clip.audio))
    buffer = io.BytesIO()
    soundfile.write(buffer, np.pad(clip.audio, (0, silence)), clip.rate, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def _base64(content: bytes | np.ndarray) -> str:
    data = content if isinstance(content, bytes) else content.tobytes()
    return base64.b64encode(data).decode("ascii")


def _own_file(name: str) -> str:
    return files("a2lite.player").joinpath(name).read_text(encoding="utf-8")
