"""Pictures of a face without OpenGL: one frame, or a row of them for where no script runs."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from a2lite.player.clip import Clip
from a2lite.player.light import light_shares, shade
from a2lite.player.look import Look, check_array, rigid
from a2lite.player.raster import axes, camera_for, close_up, rasterise, unit, vertex_normals

BACKGROUND = (0.115, 0.125, 0.15)  # sRGB; the page's own stands in player.html
LABEL = 18  # pixels under each picture of a strip


def render(
    vertices, look: Look, light=None, camera=None, width=240, height=300, yaw=0.0, pitch=0.0
) -> np.ndarray:
    """One frame as (height, width, 3) sRGB in [0, 1]; every pixel is the mean of four.

    vertices (V, 3) metres, drawn with ``look``; light (V, 2) of ``light_shares`` and camera of ``camera_for``, from
    the frame itself if None; yaw and pitch of the camera in radians.
    """
    own = look.extend(check_array("render vertices", vertices, "(V, 3)", np.float32)[None])[0]
    light = light_shares(own, look.faces) if light is None else light
    camera = camera_for(own, look.top, look.bottom) if camera is None else camera
    towards = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    eye = camera["middle"] + camera["distance"] * towards
    vertices, faces, colours, gloss, light = _together(own, look, light)
    normals = vertex_normals(vertices, faces)
    faces = np.concatenate([faces, *_backs(own, look)])
    wide, high = 2 * width, 2 * height
    seen = (vertices - eye) @ axes(towards).T  # (V, 3): right, up, towards the eye
    zoom = camera["focal"] * high / 2 * min(1, width / height / 0.75)
    xy = seen[:, :2] * [zoom, -zoom] / -seen[:, 2:] + [wide / 2, high / 2]
    pixel, face, weights, _ = rasterise(xy, -seen[:, 2], faces, wide, high)
    image = np.empty((high * wide, 3))
    image[:] = BACKGROUND
    across = lambda values: np.einsum("nck,nc->nk", values[faces[face]], weights)  # noqa: E731
    there, normal, colour, gloss, light = map(across, (vertices, normals, colours, gloss[:, None], light))
    normal = unit(normal)
    if look.detail is not None:
        normal, colour = _detailed(look, own, len(vertices), across, normal, colour)
    image[pixel] = shade(normal, unit(eye - there), colour, gloss[:, 0], light)
    return image.reshape(height, 2, width, 2, 3).mean((1, 3))


def _detailed(look: Look, own: np.ndarray, count: int, across, normal: np.ndarray, colour: np.ndarray):
    """Normals and colours (n, 3) of pixels with the skin's detail; ``across`` gives a vertex's values to the pixels."""
    detail, skin = look.detail, own[: look.count]
    spots = np.zeros((count, 4))  # place in the picture, share, squeeze
    spots[: look.count] = np.column_stack([detail.uv, detail.share, detail.squeezed(skin, look.skin)])
    u, v, share, squeeze = across(spots).T
    values = np.concatenate([detail.picture[..., :1] / 128, detail.slopes()], axis=2)  # (H, W, 5)
    tone, *slopes = _sampled(values, u, v).T
    right, up = (slopes[i] + squeeze * slopes[2 + i] for i in range(2))
    turn = rigid(detail.rest, own[None, detail.anchor])[0][0]
    slope = share[:, None] * (np.stack([right, up, 0 * up], 1) @ turn.T)
    slope -= normal * (normal * slope).sum(1, keepdims=True)
    return unit(normal - slope), colour * (1 + share * (tone - 1))[:, None]


def _sampled(values: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(H, W, K) at places u, v (n,) from the upper left corner, 0 to 1; between four pixels -> (n, K)."""
    high, wide = values.shape[:2]
    x, y = np.clip(u * wide - 0.5, 0, wide - 1.001), np.clip(v * high - 0.5, 0, high - 1.001)
    column, row = x.astype(int), y.astype(int)
    right, down = (x - column)[:, None], (y - row)[:, None]
    above = values[row, column] * (1 - right) + values[row, column + 1] * right
    below = values[row + 1, column] * (1 - right) + values[row + 1, column + 1] * right
    return above * (1 - down) + below * down


def _together(own: np.ndarray, look: Look, light: np.ndarray):
    """The face and its parts where they are now, one after the other: vertices, faces, colours, gloss, light."""
    vertices, faces, colours, gloss, lights = [own], [look.faces], [look.colours], [look.gloss], [light]
    for part, first in zip(look.parts, _firsts(own, look), strict=True):
        rotation, shift = (pose[0] for pose in part.poses(own[None]))
        vertices.append(part.vertices @ rotation.T + shift)
        faces.append(part.faces + first)
        colours.append(part.colours)
        gloss.append(np.full(len(part.vertices), part.gloss))
        lights.append(part.light)
    return [np.concatenate(arrays) for arrays in (vertices, faces, colours, gloss, lights)]


def _firsts(own: np.ndarray, look: Look) -> list[int]:
    """Where each part's vertices begin behind the face's."""
    return np.cumsum([len(own)] + [len(part.vertices) for part in look.parts])[: len(look.parts)].tolist()


def _backs(own: np.ndarray, look: Look) -> list[np.ndarray]:
    """Triangles that are seen from behind too: those of parts, and of spun strands."""
    strands = look.faces[(look.faces >= look.count).any(1)]
    parts = [part.faces + first for part, first in zip(look.parts, _firsts(own, look), strict=True)]
    return [faces[:, ::-1] for faces in (strands, *parts)]


def portraits(
    vertices, look: Look, labels: Sequence[str], light=None, camera=None, width=120, height=150
) -> Image.Image:
    """A row of faces, each over its label, in 256 colours (notebooks hold many).

    vertices (N, V, 3) metres for N labels, drawn with ``look``; light as for ``render``. Where they are None, light
    and camera come from the mean of the faces; the camera is a ``close_up``, for the pictures are small.
    """
    vertices = look.extend(check_array("portraits vertices", vertices, "(N, V, 3)", np.float32))
    if len(vertices) != len(labels):
        raise ValueError(f"portraits: {len(vertices)} faces and {len(labels)} labels; expected one each")
    light = light_shares(vertices.mean(0), look.faces) if light is None else light
    camera = close_up(vertices.mean(0)) if camera is None else camera
    band = tuple(round(255 * part) for part in BACKGROUND)
    image = Image.new("RGB", (width * len(labels), height + LABEL), band)
    draw = ImageDraw.Draw(image)
    for place, (shape, label) in enumerate(zip(vertices, labels, strict=True)):
        picture = render(shape, look, light, camera, width, height)
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
    return portraits(clip.vertices[chosen], clip.look, times, clip.light, close_up(clip.vertices.mean(0)))


def jpeg(image: Image.Image) -> bytes:
    """``image`` as the bytes of a JPEG file: faces take half of what they would as PNG, and notebooks hold many."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=76)
    return buffer.getvalue()
