"""Pictures of a face without OpenGL: one frame, or a row of them for where no script runs."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from a2lite.player.clip import Clip
from a2lite.player.light import glossiness, light_shares, shade
from a2lite.player.raster import axes, camera_for, rasterise, unit, vertex_normals

BACKGROUND = (0.115, 0.125, 0.15)  # sRGB; the page's own stands in player.html
LABEL = 18  # pixels under each picture of a strip


def render(
    vertices, faces, colours, light=None, camera=None, width=240, height=300, yaw=0.0, pitch=0.0
) -> np.ndarray:
    """One frame as (height, width, 3) sRGB in [0, 1]; every pixel is the mean of four.

    vertices (V, 3) metres, faces (F, 3), colours (V, 3) linear RGB; light (V, 2) of ``light_shares`` and
    camera of ``camera_for``, from the frame itself if None; yaw and pitch of the camera in radians.
    """
    vertices, faces, colours = (np.asarray(array) for array in (vertices, faces, colours))
    light = light_shares(vertices, faces) if light is None else light
    camera = camera_for(vertices) if camera is None else camera
    towards = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    eye = camera["middle"] + camera["distance"] * towards
    normals, to_eye = vertex_normals(vertices, faces), unit(eye - vertices)
    shaded = shade(normals, to_eye, colours, glossiness(len(vertices), faces), light)  # (V, 3)
    wide, high = 2 * width, 2 * height
    seen = (vertices - eye) @ axes(towards).T  # (V, 3): right, up, towards the eye
    zoom = camera["focal"] * high / 2 * min(1, width / height / 0.75)
    xy = seen[:, :2] * [zoom, -zoom] / -seen[:, 2:] + [wide / 2, high / 2]
    pixel, face, weights, _ = rasterise(xy, -seen[:, 2], faces, wide, high)
    image = np.empty((high * wide, 3))
    image[:] = BACKGROUND
    image[pixel] = (shaded[faces[face]] * weights[:, :, None]).sum(1)
    return image.reshape(height, 2, width, 2, 3).mean((1, 3))


def portraits(
    vertices, faces, colours, labels: Sequence[str], light=None, camera=None, width=120, height=150
) -> Image.Image:
    """A row of faces, each over its label, in 256 colours (notebooks hold many).

    vertices (N, V, 3) metres for N labels, faces (F, 3), colours (V, 3) linear RGB; light and camera as for
    ``render``, from the mean of the faces if None. Closer than the player: the pictures are small.
    """
    vertices, faces, colours = (np.asarray(array) for array in (vertices, faces, colours))
    if len(vertices) != len(labels):
        raise ValueError(f"portraits: {len(vertices)} faces and {len(labels)} labels; expected one each")
    light = light_shares(vertices.mean(0), faces) if light is None else light
    camera = camera_for(vertices.mean(0)) if camera is None else camera
    middle = np.subtract(camera["middle"], [0, 0.03 * camera["height"], 0])
    close = {**camera, "middle": middle, "focal": 1.18 * camera["focal"]}
    band = tuple(round(255 * part) for part in BACKGROUND)
    image = Image.new("RGB", (width * len(labels), height + LABEL), band)
    draw = ImageDraw.Draw(image)
    for place, (shape, label) in enumerate(zip(vertices, labels, strict=True)):
        picture = render(shape, faces, colours, light, close, width, height)
        image.paste(Image.fromarray((picture * 255 + 0.5).astype(np.uint8)), (place * width, 0))
        draw.text((width * (place + 0.5), height + LABEL / 2), label, fill=(190, 194, 202), anchor="mm")
    return image.quantize(256)


def strip(clip: Clip, frames: int = 8, start: float = 0.0) -> Image.Image:
    """``frames`` portraits from second ``start`` of ``clip`` to its last frame, each over its time."""
    first, last = round(start * clip.fps), len(clip.vertices) - 1
    if frames < 1:
        raise ValueError(f"strip of {frames} frames: expected at least 1")
    if not 0 <= first <= last:
        raise ValueError(f"strip from {start:g} s: expected 0 to {last / clip.fps:g} s, the clip's last frame")
    chosen = np.linspace(first, last, min(frames, last - first + 1)).round().astype(int)
    times = [f"{frame / clip.fps:.2f} s" for frame in chosen]
    return portraits(clip.vertices[chosen], clip.faces, clip.colours, times, clip.light, clip.camera)


def png(image: Image.Image) -> bytes:
    """``image`` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
