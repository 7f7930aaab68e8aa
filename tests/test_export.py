"""Clips for other programs: what a GLB says is what the clip shows."""

import io
import json
import shutil
import struct
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from a2lite.flame import Flame, load_head
from a2lite.people import PEOPLE, Person, dress
from a2lite.player import Clip
from a2lite.player.export import quaternions, save_glb, save_mp4


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A second of a head that talks and shakes."""
    head, time = load_head(), torch.arange(25) / 25
    motion = torch.zeros(25, 58)
    motion[:, :50] = head.expression(smile=0.5 * time, part=0.3 * torch.sin(9 * time))
    motion[:, 50] = 0.1 + 0.1 * torch.sin(20 * time)
    motion[:, 54] = 0.4 * torch.sin(3 * time)
    return Clip(Flame(head)(motion), dress(head), 0.1 * np.sin(np.arange(16000) * 0.1))


class Read:
    """A reader of glTF written from the specification, for the parts that a face needs."""

    def __init__(self, content: bytes):
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.document = json.loads(content[20 : 20 + size])
        size_2, kind = struct.unpack_from("<I4s", content, 20 + size)
        assert kind == b"BIN\0" and 28 + size + size_2 == len(content)
        self.data = content[28 + size :]

    def array(self, number: int) -> np.ndarray:
        a = self.document["accessors"][number]
        view = self.document["bufferViews"][a["bufferView"]]
        kind = {5126: "<f4", 5123: "<u2", 5125: "<u4"}[a["componentType"]]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[a["type"]]
        flat = np.frombuffer(self.data, kind, a["count"] * width, view["byteOffset"])
        return flat.reshape(-1, width) if width > 1 else flat

    def frames(self) -> np.ndarray:
        """(T, V, 3): morph targets, then the node's turn and shift."""
        mesh, (animation,) = self.document["meshes"][0], self.document["animations"]
        primitive = mesh["primitives"][0]
        assert all(other["targets"] == primitive["targets"] for other in mesh["primitives"])
        rest = self.array(primitive["attributes"]["POSITION"])
        targets = np.stack([self.array(t["POSITION"]) for t in primitive["targets"]])
        tracks = {
            c["target"]["path"]: self.array(animation["samplers"][c["sampler"]]["output"])
            for c in animation["channels"]
            if c["target"]["node"] == 0
        }
        weights = tracks["weights"].reshape(-1, len(targets))
        shapes = rest + np.einsum("tk,kvd->tvd", weights, targets)
        turns = Rotation.from_quat(tracks["rotation"]).as_matrix()
        return shapes @ turns.transpose(0, 2, 1) + tracks["translation"][:, None]


def test_a_glb_moves_as_the_clip_does(clip, tmp_path):
    read = Read(save_glb(tmp_path / "deep" / "face.glb", clip).read_bytes())
    assert np.linalg.norm(read.frames() - clip.vertices, axis=-1).max() < 2.5e-4
    primitives = read.document["meshes"][0]["primitives"]
    faces = np.concatenate([read.array(primitive["indices"]).reshape(-1, 3) for primitive in primitives])
    assert sorted(map(tuple, faces.tolist())) == sorted(map(tuple, clip.faces.tolist()))
    (primitive, _) = primitives
    colours = read.array(primitive["attributes"]["COLOR_0"]) / 65535
    np.testing.assert_allclose(colours[:, :3], clip.colours, atol=1e-4)
    times = read.array(read.document["animations"][0]["samplers"][0]["input"])
    np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-6)
    assert not list(tmp_path.glob("deep/*.part"))


def test_the_skins_detail_is_a_texture_of_the_face_alone(clip, tmp_path):
    bearded = Clip(clip.vertices, replace(clip.look, detail=dress(load_head(), Person(beard=1.0)).detail))
    read = Read(save_glb(tmp_path / "face.glb", bearded).read_bytes())
    plain, fine = read.document["meshes"][0]["primitives"]
    assert "TEXCOORD_0" not in plain["attributes"] and fine["material"] == 1
    view = read.document["bufferViews"][read.document["images"][0]["bufferView"]]
    picture = Image.open(io.BytesIO(read.data[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))
    tone, places = np.asarray(picture.convert("L")) / 255, read.array(fine["attributes"]["TEXCOORD_0"])
    used = np.unique(read.array(fine["indices"]))
    column, row = (places[used] * (np.array(picture.size) - 1)).round().astype(int).T
    front, low = clip.vertices[0][used, 2] > 0.03, clip.vertices[0][used, 1] < -0.06
    assert tone[row, column][front & low].mean() < tone[row, column][front & ~low].mean() - 0.03  # the beard
    assert clip.vertices[0][used, 2].min() > -0.02  # nothing of it behind the ears


def test_what_the_face_wears_goes_along(clip, tmp_path):
    document = Read(save_glb(tmp_path / "face.glb", clip).read_bytes()).document
    assert [node["name"] for node in document["nodes"][1:]] == ["upper teeth", "lower teeth", "tongue", "hair", "shirt"]
    assert {c["target"]["node"] for c in document["animations"][0]["channels"]} == set(range(6))


def test_its_normals_are_unit_at_rest(clip, tmp_path):
    read = Read(save_glb(tmp_path / "face.glb", clip).read_bytes())
    rest = read.array(read.document["meshes"][0]["primitives"][0]["attributes"]["NORMAL"])
    np.testing.assert_allclose(np.linalg.norm(rest, axis=1), 1, atol=1e-5)


def test_a_still_face_has_no_targets(clip, tmp_path):
    still = Clip(clip.vertices[:1], clip.look)
    read = Read(save_glb(tmp_path / "face.glb", still).read_bytes())
    assert "targets" not in read.document["meshes"][0]["primitives"][0]


def test_quaternions_never_jump_to_the_other_side():
    turns = Rotation.from_euler("y", np.linspace(0, 4 * np.pi, 200)[:, None]).as_matrix()
    q = quaternions(turns)
    np.testing.assert_allclose(Rotation.from_quat(q).as_matrix(), turns, atol=1e-5)
    assert np.abs(np.diff(q, axis=0)).max() < 0.1


VALIDATE = """const {validateBytes} = require("gltf-validator"), {readFileSync} = require("fs");
validateBytes(new Uint8Array(readFileSync(process.argv[1]))).then(told => console.log(JSON.stringify(told.issues)))"""


@pytest.mark.parametrize("person", PEOPLE)
def test_khronos_finds_nothing_wrong_with_a_person(clip, tmp_path, person):
    if shutil.which("node") is None:
        pytest.skip("needs node and the npm package gltf-validator")
    head = load_head()
    path = save_glb(tmp_path / "face.glb", Clip(clip.vertices[:9], dress(head, person)))
    told = subprocess.run(["node", "-e", VALIDATE, str(path)], capture_output=True, text=True)
    if "Cannot find module" in told.stderr:
        pytest.skip("needs the npm package gltf-validator, where NODE_PATH finds it")
    assert json.loads(told.stdout)["messages"] == []


@pytest.mark.skipif(shutil.which("ffmpeg") is not None, reason="ffmpeg is here")
def test_without_ffmpeg_an_mp4_is_refused_in_one_line(clip, tmp_path):
    with pytest.raises(RuntimeError, match="needs ffmpeg.*save_glb"):
        save_mp4(tmp_path / "face.mp4", clip)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_an_mp4_has_the_picture_and_the_sound(clip, tmp_path):
    film = save_mp4(tmp_path / "face.mp4", clip, height=120).read_bytes()
    assert film[4:8] == b"ftyp" and b"avc1" in film and b"mp4a" in film


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_film_lasts_as_long_as_its_sound(clip, tmp_path):
    long = Clip(clip.vertices[:5], clip.look, np.tile(clip.audio, 2))
    film = save_mp4(tmp_path / "long.mp4", long, height=114).read_bytes()
    place = film.index(b"mvhd") + 16  # version, flags, two dates; then ticks per second and length
    ticks, length = struct.unpack_from(">II", film, place)
    assert length / ticks == pytest.approx(2.0, abs=0.1)


def test_a_film_of_an_odd_height_is_refused(clip, tmp_path):
    with pytest.raises(ValueError, match="save_mp4 height 121: expected an even number"):
        save_mp4(tmp_path / "face.mp4", clip, height=121)
