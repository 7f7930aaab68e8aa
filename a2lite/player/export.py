"""A clip for other programs: an animated GLB (Blender, any glTF viewer), or an MP4 where ffmpeg is at hand.

glTF moves a mesh by weighted *morph targets* on a node that turns and shifts, which is what ``basis`` has already.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from a2lite.player.basis import Basis, compress
from a2lite.player.clip import Clip
from a2lite.player.look import Detail, Part
from a2lite.player.page import wav_bytes
from a2lite.player.picture import render
from a2lite.player.raster import vertex_normals

FLOAT, USHORT, UINT = 5126, 5123, 5125  # glTF's component types
VERTICES, INDICES = 34962, 34963  # its buffer targets


def save_glb(path: str | Path, clip: Clip) -> Path:
    """Write the clip's motion, shape and colours as one binary glTF 2.0 file and return its path; it has no sound.

    Metres, y up, as in the clip. The error against the clip's vertices is that of ``basis.compress``:
    0.2 mm, more (with a warning) for motion that does not come from 58 parameters. The neck is as the clip shows it.
    """
    if Path(path).suffix != ".glb":
        raise ValueError(f"{path}: expected a name that ends in .glb; other forms of glTF are not written")
    path, basis, parts = Path(path), compress(clip.vertices), clip.look.parts
    packer = _Packer()
    meshes = [_mesh(packer, clip, basis), *(_part(packer, part) for part in parts)]
    names = [clip.title or "face", *(part.name for part in parts)]
    document = {
        "asset": {"version": "2.0", "generator": "a2lite"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(meshes)))}],
        "nodes": [{"mesh": i, "name": name} for i, name in enumerate(names)],
        "meshes": meshes,
        **_materials(packer, clip.look.detail),
        "animations": [_animation(packer, clip, basis)],
        "accessors": packer.accessors,
        "bufferViews": packer.views,
        "buffers": [{"byteLength": len(packer.data)}],
    }
    return _write(path, _binary(document, bytes(packer.data)))


def _materials(packer: _Packer, detail: Detail | None) -> dict:
    """Colours of the vertices alone; second, with the tone of the skin's detail as a texture: freckles, stubble."""
    plain = {"metallicFactor": 0.0, "roughnessFactor": 0.6}
    if detail is None:
        return {"materials": [{"pbrMetallicRoughness": plain, "doubleSided": True}]}
    tone = np.clip(detail.picture[..., 0] / 128, 0, 1) ** (1 / 2.2)  # it can darken, and not brighten
    texture = io.BytesIO()
    image = Image.fromarray((255 * tone + 0.5).astype(np.uint8)).convert("RGB")
    image.resize([2 ** int(np.ceil(np.log2(side))) for side in image.size]).save(texture, "JPEG", quality=88)
    fine = {**plain, "baseColorTexture": {"index": 0}}
    return {
        "materials": [{"pbrMetallicRoughness": kind, "doubleSided": True} for kind in (plain, fine)],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9729, "minFilter": 9729, "wrapS": 33071, "wrapT": 33071}],  # linear, clamped
        "images": [{"bufferView": packer.view(texture.getvalue()), "mimeType": "image/jpeg"}],
    }


class _Packer:
    """Arrays one behind the other in one buffer, each with the accessor that describes it."""

    def __init__(self):
        self.data, self.views, self.accessors = bytearray(), [], []

    def add(self, array: np.ndarray, kind: str, target: int | None = None, bounds: bool = False, **more) -> int:
        """The number of the accessor; ``kind`` as SCALAR or VEC3, ``bounds`` where glTF asks for min and max."""
        types = {"f": FLOAT, "u": USHORT if array.itemsize == 2 else UINT}
        view = self.view(array.astype(array.dtype.newbyteorder("<")).tobytes(), target)
        accessor = {"bufferView": view, "componentType": types[array.dtype.kind], "type": kind,
                    "count": len(array), **more}  # fmt: skip
        if bounds:
            rows = array.reshape(len(array), -1)
            accessor |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def view(self, data: bytes, target: int | None = None) -> int:
        """The number of a new view of the buffer, on ``data``."""
        self.data += bytes(-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(view if target is None else {**view, "target": target})
        self.data += data
        return len(self.views) - 1


def _mesh(packer: _Packer, clip: Clip, basis: Basis) -> dict:
    """The mean face, and per direction of the basis how its vertices and their normals move at weight 1."""
    steps = basis.scales * np.abs(basis.weights).max(0, initial=1e-12)  # so that weights lie within -1 to 1
    deltas = basis.directions.astype(np.float32) * steps[:, None, None]  # (K, V, 3)
    rest = vertex_normals(basis.mean, clip.faces).astype(np.float32)
    attributes = _attributes(packer, basis.mean, rest, clip.colours)
    targets = [
        {
            "POSITION": packer.add(delta, "VEC3", VERTICES, bounds=True),
            "NORMAL": packer.add(turned.astype(np.float32) - rest, "VEC3", VERTICES),
        }
        for delta, turned in ((delta, vertex_normals(basis.mean + delta, clip.faces)) for delta in deltas)
    ]
    more = {"targets": targets} if targets else {}
    primitives = [{**part, **more} for part in _primitives(packer, attributes, clip)]
    return {"primitives": primitives, "weights": [0.0] * len(targets)} if targets else {"primitives": primitives}


def _primitives(packer: _Packer, attributes: dict, clip: Clip) -> list[dict]:
    """The triangles that the skin's detail lies on apart from the others, both on the same vertices."""
    detail = clip.look.detail
    if detail is None:
        return [_primitive(packer, attributes, clip.faces)]
    strands = len(clip.colours) - len(detail.uv)
    places = packer.add(np.pad(detail.uv, ((0, strands), (0, 0))).astype(np.float32), "VEC2", VERTICES)
    fine = (np.pad(detail.share, (0, strands))[clip.faces] > 0).all(1)
    return [
        _primitive(packer, attributes, clip.faces[~fine]),
        _primitive(packer, {**attributes, "TEXCOORD_0": places}, clip.faces[fine], material=1),
    ]


def _part(packer: _Packer, part: Part) -> dict:
    normals = vertex_normals(part.vertices, part.faces).astype(np.float32)
    return {"primitives": [_primitive(packer, _attributes(packer, part.vertices, normals, part.colours), part.faces)]}


def _attributes(packer: _Packer, vertices: np.ndarray, normals: np.ndarray, colours: np.ndarray) -> dict:
    paint = (np.column_stack([colours, np.ones(len(colours))]) * 65535).round().astype(np.uint16)
    return {
        "POSITION": packer.add(vertices.astype(np.float32), "VEC3", VERTICES, bounds=True),
        "NORMAL": packer.add(normals, "VEC3", VERTICES),
        "COLOR_0": packer.add(paint, "VEC4", VERTICES, normalized=True),
    }


def _primitive(packer: _Packer, attributes: dict, faces: np.ndarray, material: int = 0) -> dict:
    indices = packer.add(faces.reshape(-1).astype(np.uint16), "SCALAR", INDICES)
    return {"attributes": attributes, "indices": indices, "material": material}


def _animation(packer: _Packer, clip: Clip, basis: Basis) -> dict:
    times = packer.add((np.arange(len(clip.vertices)) / clip.fps).astype(np.float32), "SCALAR", bounds=True)
    tracks = []  # (node, what of it moves, accessor)
    poses = [(basis.rotations, basis.shifts), *(part.poses(clip.vertices) for part in clip.look.parts)]
    for node, (rotations, shifts) in enumerate(poses):
        tracks.append((node, "rotation", packer.add(quaternions(rotations), "VEC4")))
        tracks.append((node, "translation", packer.add(shifts.astype(np.float32), "VEC3")))
    if len(basis.scales):
        largest = np.abs(basis.weights).max(0, initial=1e-12)
        weights = packer.add((basis.weights / largest).reshape(-1).astype(np.float32), "SCALAR")
        tracks.append((0, "weights", weights))
    return {
        "samplers": [{"input": times, "output": output, "interpolation": "LINEAR"} for _, _, output in tracks],
        "channels": [{"sampler": i, "target": dict(node=node, path=path)} for i, (node, path, _) in enumerate(tracks)],
    }


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """(T, 3, 3) rotation matrices to (T, 4) unit quaternions x, y, z, w, neighbours on the same side; float32."""
    q = Rotation.from_matrix(rotations.astype(np.float64)).as_quat()
    turned = np.concatenate([[1.0], np.where((q[1:] * q[:-1]).sum(1) < 0, -1.0, 1.0)])
    return (q * np.cumprod(turned)[:, None]).astype(np.float32)


def _binary(document: dict, data: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    data += bytes(-len(data) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)
    return path


def save_mp4(path: str | Path, clip: Clip, height: int = 480) -> Path:
    """Draw the clip frame by frame, ``height`` (even) pixels high, and let ffmpeg make an H.264 film with its sound.

    Where the sound is longer than the motion the last frame stays. ValueError for an odd height, RuntimeError in one
    line where there is no ffmpeg, or it fails.
    """
    if height < 2 or height % 2:
        raise ValueError(f"save_mp4 height {height}: expected an even number of pixels, as 480; H.264 takes no other")
    path, ffmpeg = Path(path), shutil.which("ffmpeg")
    if ffmpeg is None:
        raise RuntimeError(f"{path}: an MP4 needs ffmpeg, which is not installed; save_page and save_glb do without")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for i, vertices in enumerate(clip.vertices):
            drawn = render(vertices, clip.look, clip.light, clip.camera, 2 * round(0.6 * height), height)
            Image.fromarray((drawn * 255 + 0.5).astype(np.uint8)).save(place / f"{i:05d}.png")
        command = [ffmpeg, "-y", "-loglevel", "error", "-framerate", str(clip.fps), "-i", str(place / "%05d.png")]
        if clip.audio is not None:
            (place / "sound.wav").write_bytes(wav_bytes(clip))
            command += ["-i", str(place / "sound.wav"), "-c:a", "aac"]
        film = place / "film.mp4"
        stays = clip.duration - len(clip.vertices) / clip.fps
        still = ["-vf", f"tpad=stop_mode=clone:stop_duration={stays:.3f}"] if stays > 0 else []
        command += [*still, "-c:v", "libx264", "-pix_fmt", "yuv420p", str(film)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{path}: ffmpeg failed: {' '.join(done.stderr.split()) or done.returncode}")
        return _write(path, film.read_bytes())
