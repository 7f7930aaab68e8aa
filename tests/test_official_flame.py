"""The published FLAME files: read as they are, safely, and every way in which they come broken is named.

The files are made here, byte by byte in the published layout, from the arrays of the built head.
"""

import io
import os
import pickle
import pickletools
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from a2lite.flame import Flame, load_flame, load_head, official
from a2lite.flame.official import PLACES, eyeballs
from a2lite.flame.pickles import UnsafePickle, read_pickle
from flame_files import Build, Call, Global, New, array, chumpy, dump, emit, sparse
from full_size_files import flame_arrays


@pytest.fixture(scope="module")
def built():
    return load_head()


@pytest.fixture(scope="module")
def arrays(built):
    """What FLAME's dict holds, in its own types."""
    return flame_arrays(built)


@pytest.fixture(scope="module")
def published(arrays, tmp_path_factory):
    """A folder per version."""
    root = tmp_path_factory.mktemp("flame")
    old = dict(arrays, shapedirs=chumpy(arrays["shapedirs"]), J_regressor=sparse(arrays["J_regressor"]))
    (root / "2020").mkdir()
    (root / "2020" / "generic_model.pkl").write_bytes(dump(old))
    (root / "open").mkdir()
    new = dict(
        arrays, J_regressor=scipy.sparse.csc_matrix(arrays["J_regressor"]),
        supr_expression_metadata=dict(n_expr=100, expr_components="last_100"),
    )  # fmt: skip
    (root / "open" / "flame2023_Open.pkl").write_bytes(pickle.dumps(new, protocol=5))
    return root


def named(data: bytes) -> set[str]:
    """The globals that a pickle names."""
    strings, found = [], set()
    for opcode, value, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            found.add(value.replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            found.add(".".join(strings[-2:]))
        elif isinstance(value, str):
            strings.append(value)
    return found


# ---------------------------------------------------------------- read right


def test_the_files_made_here_name_what_the_published_ones_name(published):
    old = (published / "2020" / "generic_model.pkl").read_bytes()
    assert old[:2] == b"\x80\x02" and named(old) == {
        "numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype", "chumpy.ch.Ch", "__builtin__.set",
        "scipy.sparse.csc.csc_matrix",
    }  # fmt: skip
    new = named((published / "open" / "flame2023_Open.pkl").read_bytes())
    assert {name.replace("_core", "core") for name in new} == {
        "numpy.core.numeric._frombuffer", "numpy.dtype", "scipy.sparse._csc.csc_matrix",
    }  # fmt: skip


@pytest.mark.parametrize("file", ["2020/generic_model.pkl", "open/flame2023_Open.pkl"])
def test_a_published_file_is_the_head_it_was_written_from(file, published, built):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = load_flame(published / file)
    for name in ("v_template", "faces", "shapedirs", "posedirs", "lbs_weights", "parents"):
        torch.testing.assert_close(getattr(head, name), getattr(built, name), atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(head.J_regressor, built.J_regressor)
    motion = 0.2 * torch.randn(6, 58, generator=torch.Generator().manual_seed(0))
    motion[:, 56:] = 0
    torch.testing.assert_close(Flame(head)(motion), Flame(built)(motion), atol=1e-6, rtol=0)


def test_equals_smplx_on_the_same_file_at_1000_poses(published, tmp_path):
    smplx = pytest.importorskip("smplx")
    file = published / "open" / "flame2023_Open.pkl"
    shutil.copy(file, tmp_path / "FLAME_NEUTRAL.pkl")
    landmark = dict(lmk_face_idx=np.zeros(1, int), lmk_b_coords=np.full((1, 3), 1 / 3))  # smplx wants one
    (tmp_path / "flame_static_embedding.pkl").write_bytes(pickle.dumps(landmark))
    peer = smplx.FLAMELayer(tmp_path, num_betas=300, num_expression_coeffs=100)
    with pytest.warns(UserWarning):
        head = load_flame(file)
    draw, worst = torch.Generator().manual_seed(7), 0.0
    joints = "global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose"
    for _ in range(20):  # people, 50 poses each
        betas, psi = torch.randn(300, generator=draw), torch.randn(50, 100, generator=draw)
        pose = 0.5 * torch.randn(50, 5, 3, generator=draw)
        turns = smplx.lbs.batch_rodrigues(pose.reshape(-1, 3)).reshape(50, 5, 3, 3)
        with torch.no_grad():
            ours = Flame(head, betas).articulate(psi, pose, torch.zeros(50, 2))
            named = dict(zip(joints, turns.split(1, dim=1), strict=True))
            theirs = peer(betas=betas.expand(50, -1), expression=psi, **named).vertices
        worst = max(worst, float((ours - theirs).norm(dim=-1).max()))
    assert worst <= 1e-6  # metres, in float32; 1.1e-7 as measured


@pytest.mark.parametrize(
    ("digest", "version"),
    [*official.KNOWN.items(), (official.NO_JAW + 56 * "0", "FLAME 2023 without jaw"), (64 * "0", "unknown")],
)
def test_a_version_is_known_by_its_sha256(digest, version):
    assert version in official.version_of({}, digest)


def test_the_open_version_warns_that_other_coefficients_are_not_valid(published):
    with pytest.warns(UserWarning, match="2023 Open.*SMIRK or EMOCA are not valid"):
        assert load_flame(published / "open" / "flame2023_Open.pkl").version == "FLAME 2023 Open"


def test_the_second_reading_does_not_need_the_pickle(published, monkeypatch):
    path = published / "2020" / "generic_model.pkl"
    first = load_flame(path)
    monkeypatch.setattr("a2lite.flame.official.read_pickle", None)
    assert torch.equal(load_flame(path).shapedirs, first.shapedirs)


def test_a_copy_of_another_file_is_not_taken(published, tmp_path, arrays):
    path = tmp_path / "flame.pkl"
    path.write_bytes(dump(arrays))
    before = load_flame(path)
    path.write_bytes(dump(dict(arrays, v_template=2 * arrays["v_template"])))
    torch.testing.assert_close(load_flame(path).v_template, 2 * before.v_template)


def test_a_damaged_copy_is_written_again(tmp_path, arrays):
    path = tmp_path / "flame.pkl"
    path.write_bytes(dump(arrays))
    first = load_flame(path)
    kept = path.with_suffix(".safetensors")
    kept.write_bytes(kept.read_bytes()[:5000])
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(load_flame(path).v_template, first.v_template)


def older(kept, arrays, meta):
    arrays.pop("weights")


def reshaped(kept, arrays, meta):
    arrays["posedirs"] = arrays["posedirs"].reshape(-1, 36)


def nameless(kept, arrays, meta):
    meta.pop("version")


@pytest.mark.parametrize("change", [older, reshaped, nameless])
def test_a_copy_of_another_layout_is_written_again(change, tmp_path, arrays):
    path = tmp_path / "flame.pkl"
    path.write_bytes(dump(arrays))
    first, kept = load_flame(path), path.with_suffix(".safetensors")
    with safe_open(kept, "pt") as file:
        meta, stored = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(kept, stored, meta)
    save_file(stored, kept, meta)
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(load_flame(path).lbs_weights, first.lbs_weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_flame(path)


@pytest.mark.parametrize("taken", ["flame.safetensors", "flame.safetensors.{}.partial"])
def test_where_no_copy_can_be_kept_the_head_is_read_and_nothing_stays(taken, tmp_path, arrays, built):
    path, taken = tmp_path / "flame.pkl", taken.format(os.getpid())
    path.write_bytes(dump(arrays))
    (tmp_path / taken).mkdir()  # no file can be written under this name
    torch.testing.assert_close(load_flame(path).v_template, built.v_template)
    assert {file.name for file in tmp_path.iterdir()} == {"flame.pkl", taken}


def test_a_disk_that_fills_up_leaves_no_part_of_a_copy(tmp_path, arrays, monkeypatch):
    def fills_up(arrays, path, meta):
        path.write_bytes(b"half")
        raise official.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(official, "save_file", fills_up)
    path = tmp_path / "flame.pkl"
    path.write_bytes(dump(arrays))
    load_flame(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_pickle_named_like_its_copy_is_not_overwritten(tmp_path, arrays):
    path = tmp_path / "flame.safetensors"
    path.write_bytes(dump(arrays))
    load_flame(path)
    assert path.read_bytes() == dump(arrays)


def test_the_loaders_own_copy_is_not_taken_for_flame_and_a_lone_lid_is_told(tmp_path, arrays):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(dump(arrays))
    np.save(tmp_path / "l_eyelid.npy", np.ones((5023, 3), np.float32))
    with pytest.warns(UserWarning, match="l_eyelid.npy: the other side's is missing"):
        load_flame(path)
    with pytest.raises(ValueError, match="generic_model.safetensors: is a converted copy; name the published .pkl"):
        load_flame(path.with_suffix(".safetensors"))


# ---------------------------------------------------------------- what lies beside


def test_eyeballs_are_found_by_their_mesh(built):
    left, right = eyeballs(built.faces, built.v_template)
    assert set(left.tolist()) == set(built.regions["left_eyeball"].tolist())
    assert set(right.tolist()) == set(built.regions["right_eyeball"].tolist())


def test_masks_lids_and_landmarks_are_taken_along(arrays, built, tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(dump(arrays))
    masks = {name: numbers.numpy() for name, numbers in built.regions.items() if name != "upper_face"}
    (tmp_path / "FLAME_masks.pkl").write_bytes(dump(masks))
    for side, lid in zip("lr", built.eyelids[:, 0].numpy()):
        np.save(tmp_path / f"{side}_eyelid.npy", lid.astype(np.float64))
    triangles = np.arange(100, 151, dtype=np.uint32)
    corners = np.tile([0.1, 0.8, 0.1], (51, 1))
    embedding = dict(lmk_face_idx=triangles, lmk_b_coords=corners)
    (tmp_path / "flame_static_embedding.pkl").write_bytes(dump(embedding))

    head = load_flame(path)
    assert set(head.regions["lips"].tolist()) == set(built.regions["lips"].tolist())
    assert not set(head.regions["upper_face"].tolist()) & set(head.regions["left_eyeball"].tolist())
    torch.testing.assert_close(head.eyelids[:, 0], built.eyelids[:, 0])
    assert not head.eyelids[:, 1].any()
    assert head.landmarks["upper_lip"] == int(built.faces[100 + PLACES["upper_lip"] - 17, 1])

    (tmp_path / "flame_static_embedding.pkl").unlink()
    whole = dict(static_lmk_faces_idx=triangles, static_lmk_bary_coords=corners)
    np.save(tmp_path / "landmark_embedding.npy", np.array(whole, dtype=object), allow_pickle=True)
    assert load_flame(path).landmarks == head.landmarks


def npy(content: object, protocol: int = 2) -> bytes:
    """As np.save writes one Python object; bytes are a pickle as it is."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, dict(descr="|O", fortran_order=False, shape=()))
    boxed = np.array(content, dtype=object)
    return file.getvalue() + (content if isinstance(content, bytes) else pickle.dumps(boxed, protocol))


@pytest.fixture(scope="module")
def embedding():
    """DECA's landmark_embedding.npy: the contour's parts are torch tensors."""
    corners = np.tile([0.1, 0.8, 0.1], (51, 1))
    return dict(
        static_lmk_faces_idx=np.arange(100, 151), static_lmk_bary_coords=corners,
        dynamic_lmk_faces_idx=torch.arange(79 * 17).reshape(79, 17),
        dynamic_lmk_bary_coords=torch.full((79, 17, 3), 1 / 3), full_lmk_faces_idx=torch.arange(68)[None],
        full_lmk_bary_coords=torch.nn.Parameter(torch.full((1, 68, 3), 1 / 3)),
    )  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_tensors_beside_the_landmarks_do_no_harm(protocol, embedding, arrays, built, tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(dump(arrays))
    (tmp_path / "landmark_embedding.npy").write_bytes(npy(embedding, protocol))
    assert load_flame(path).landmarks["upper_lip"] == int(built.faces[100 + PLACES["upper_lip"] - 17, 1])


def test_landmarks_that_cannot_be_read_are_told_and_the_head_is_whole_without_them(embedding, arrays, tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(dump(arrays))
    tensor = dict(embedding, static_lmk_faces_idx=torch.arange(51))
    cut = npy(embedding)[:-20]
    high = dict(embedding, static_lmk_faces_idx=np.full(51, 9976))
    for data, told in [
        (npy(tensor), "static_lmk_faces_idx: a torch tensor; expected a numpy array"),
        (cut, "ends too early"),
        (b"version https://git-lfs.github.com/spec/v1\n", "cannot be read as .npy"),
        (npy(dict(a=1)), "has no static_lmk_faces_idx"),
        (npy(high), "goes from 9976 to 9976; expected 0 to 9975"),
    ]:
        (tmp_path / "landmark_embedding.npy").write_bytes(data)
        with pytest.warns(UserWarning, match=told):
            head = load_flame(path)
        assert head.landmarks == {} and head.v_template.shape == (5023, 3)


def test_landmarks_that_ask_for_more_than_arrays_stop_all(arrays, tmp_path):
    path, canary = tmp_path / "generic_model.pkl", tmp_path / "canary"
    path.write_bytes(dump(arrays))
    (tmp_path / "landmark_embedding.npy").write_bytes(npy(hostile(str(canary))["os.system"]))
    with pytest.raises(UnsafePickle, match="landmark_embedding.npy: names os.system"):
        load_flame(path)
    assert not canary.exists()


def test_a_tensor_that_is_not_asked_for_is_not_opened(arrays, tmp_path):
    path, canary = tmp_path / "generic_model.pkl", tmp_path / "canary"
    path.write_bytes(dump(arrays))
    static = dict(static_lmk_faces_idx=np.arange(51), static_lmk_bary_coords=np.full((51, 3), 1 / 3))
    content = dict(static, dynamic_lmk_faces_idx=opened_by_torch(f"touch {canary}"))
    (tmp_path / "landmark_embedding.npy").write_bytes(npy(dump(content)))
    assert load_flame(path).landmarks
    assert not canary.exists()


def test_masks_that_name_no_vertex_are_told(arrays, built, tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(dump(arrays))
    masks = {name: numbers.numpy() for name, numbers in built.regions.items()}
    (tmp_path / "FLAME_masks.pkl").write_bytes(dump(dict(masks, lips=np.array([3, -7]))))
    with pytest.raises(ValueError, match="FLAME_masks.pkl: lips names vertex -7; expected 0 to 5022"):
        load_flame(path)


def test_lids_turn_with_the_head_and_smirks_do_not(built):
    motion = torch.zeros(58)
    motion[56:] = 1.0
    shut = {lids: Flame(built, lids=lids)(motion) for lids in ("head", "smirk")}
    torch.testing.assert_close(shut["head"], shut["smirk"])
    turned = motion.clone()
    turned[53:56] = torch.tensor([0.0, 0.0, 0.6])
    right, smirks = (Flame(built, lids=lids) for lids in ("head", "smirk"))
    rest = turned.clone()
    rest[56:] = 0
    travel = shut["head"] - Flame(built)(torch.zeros(58))
    torch.testing.assert_close(smirks(turned) - smirks(rest), travel, atol=1e-6, rtol=0)
    assert (right(turned) - smirks(turned)).norm(dim=-1).max() > 3e-3  # lids that miss the eye by millimetres


# ---------------------------------------------------------------- hostile files


def opened_by_torch(command: str) -> Call:
    """A tensor whose storage is a pickle that runs ``command`` as torch loads it."""
    return Call(Global("torch.storage", "_load_from_bytes"), (dump(Call(Global("os", "system"), (command,))),))


def hostile(canary: str) -> dict[str, bytes]:
    """Name -> a pickle that would create ``canary`` if it were run, most of them in the place of an array."""
    touch = f"touch {canary}"
    code = f"open({canary!r}, 'w')"
    system = Global("os", "system")
    inside = lambda thing: dump({"v_template": thing, "f": np.zeros((2, 3))})  # noqa: E731
    stack = lambda module, name, arg: (  # noqa: E731
        b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name))
        + b"\x93" + b"X" + len(arg).to_bytes(4, "little") + arg.encode() + b"\x85R."
    )  # fmt: skip
    started = Call(Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), "b"))
    objects = Build(Call(Global("numpy", "dtype"), ("O8", 0, 1)), (3, "|", None, None, None, -1, -1, 63))
    again = Call(Global("_codecs", "encode"), (dump(Call(system, (touch,))), "latin1"))
    chain = Call(Global("__builtin__", "getattr"), (Call(Global("__builtin__", "__import__"), ("os",)), "system"))
    return {
        "os.system": dump(Call(system, (touch,))),
        "posix.system": inside(Call(Global("posix", "system"), (touch,))),
        "eval": inside(Call(Global("__builtin__", "eval"), (code,))),
        "exec": inside(Call(Global("builtins", "exec"), (code,))),
        "subprocess": inside(Call(Global("subprocess", "check_call"), (["touch", canary],))),
        "getattr chain": inside(Call(chain, (touch,))),
        "nested global": stack("a2lite.flame.pickles", "pickle.sys.modules", "os"),
        "dotted global": stack("os", "path.os.system", touch),
        "STACK_GLOBAL": stack("os", "system", touch),
        "memo": b"\x80\x02cos\nsystem\nq\x010h\x01" + emit((touch,)) + b"R.",
        "INST": b"(" + emit(touch) + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + emit(touch) + b"o.",
        "object array": inside(Build(started, (1, (1,), objects, False, [Call(system, (touch,))]))),
        "runstring": inside(Call(Global("numpy.testing._private.utils", "runstring"), (code, {}))),
        "reconstruct of a class": inside(Call(Global("copy_reg", "_reconstructor"), (system, system, None))),
        "chumpy of a call": inside(Build(New(Global("chumpy.ch", "Ch")), dict(x=Call(system, (touch,))))),
        "sparse of a call": inside(Build(New(Global("scipy.sparse.csc", "csc_matrix")), Call(system, (touch,)))),
        "partial": inside(Call(Call(Global("functools", "partial"), (system, touch)), ())),
        "pickle in a pickle": inside(Call(Global("pickle", "loads"), (again,))),
        "state of a class": inside(Build(Global("chumpy.ch", "Ch"), (None, dict(resolve=Call(system, (touch,)))))),
        "torch storage": inside(Call(
            Global("torch._utils", "_rebuild_tensor_v2"),
            (opened_by_torch(touch), 0, (5023, 3), (3, 1), False, Call(Global("collections", "OrderedDict"), ())),
        )),
        "torch storage alone": dump(Call(
            Global("torch.storage", "_load_from_bytes"),
            (Call(Global("_codecs", "encode"), (dump(Call(system, (touch,))), "latin1")),),
        )),
        "torch.load": inside(Call(Global("torch", "load"), (Call(Global("io", "BytesIO"), (b"",)),))),
        "several lines": stack("os\nremedy: use pickle.load", "sys\x1b[31mtem", touch),
        "persistent": b"Pos.system\n.",
        "extension": b"\x80\x02\x82\x01" + emit((touch,)) + b"R.",
    }


@pytest.mark.parametrize("attack", sorted(hostile("x")))
def test_a_hostile_file_is_refused_in_one_line_and_nothing_runs(attack, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "generic_model.pkl"
    path.write_bytes(hostile(str(canary))[attack])
    with pytest.raises(ValueError) as caught:
        load_flame(path)
    assert not canary.exists()
    told = str(caught.value)
    assert told.startswith(str(path)) and told.isprintable() and len(told) < len(str(path)) + 310


RUNS = ["os.system", "posix.system", "eval", "exec", "subprocess", "getattr chain", "dotted global", "STACK_GLOBAL",
        "memo", "INST", "OBJ", "partial", "pickle in a pickle", "torch storage alone"]  # fmt: skip


@pytest.mark.parametrize("attack", RUNS)
@pytest.mark.skipif("sys.platform == 'win32'", reason="the attacks call touch")
def test_the_attacks_are_real(attack, tmp_path):
    canary = tmp_path / "canary"
    try:
        pickle.Unpickler(io.BytesIO(hostile(str(canary))[attack]), encoding="latin1").load()
    except Exception:
        pass
    assert canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.",
        b"\x80\x02})" + b"h\x00".join([b"q\x00"] + [b"\x86q\x00"] * 40) + b"K\x01s.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00a)" + b"".join(b"q\x00h\x00\x86" for _ in range(40)) + b"\x86R.",
        b"\x80\x04\x8f(" + b")" + b"\x85" * 1_000_000 + b"\x90.",
        b"\x80\x02]" + b"]" * 1_000_000 + b"a" * 1_000_000 + b".",
    ],
    ids=["a deep key", "a key of copies", "a deep codec", "a deep member of a set", "deep lists"],
)
def test_what_is_nested_without_end_neither_hangs_nor_kills(tmp_path, content):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(content)
    code = "import sys; from a2lite.flame import load_flame; load_flame(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and f": {path}: " in done.stderr.splitlines()[-1]


def test_shared_and_circular_parts_do_not_hang(tmp_path):
    path = tmp_path / "laughs.pkl"
    level: list = []
    for _ in range(60):
        level = [level, level]
    path.write_bytes(pickle.dumps(level, 2))
    assert len(read_pickle(path)) == 2
    ring: list = []
    ring.append(ring)
    path.write_bytes(pickle.dumps(ring, 2))
    with pytest.raises(UnsafePickle, match="contains itself"):
        read_pickle(path)


# ---------------------------------------------------------------- broken files


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(shapedirs=np.zeros((5023, 3, 400))), "shapedirs is zero throughout"),
        (dict(shapedirs=np.array(0.0)), r"shapedirs is \(\) of float64; expected"),
        (dict(v_template=np.full((5023, 3), np.nan)), "v_template holds NaN"),
        (dict(v_template=np.ones((6890, 3))), r"v_template is \(6890, 3\)"),
        (dict(weights=np.ones((5023, 5))), "weights adds up to 5"),
        (dict(weights=np.array([0.9, 1.5] + 5021 * [1.0])[:, None] * [1.0, 0, 0, 0, 0]), "weights adds up to 1.5"),
        (dict(weights=np.array([0.2, 1.5] + 5021 * [1.0])[:, None] * [1.0, 0, 0, 0, 0]), "weights adds up to 0.2"),
        (dict(f=np.full((9976, 3), 5023, np.uint32)), "names vertex 5023; expected 0 to 5022"),
        (dict(f=np.tile(np.array([1, -7, 2], np.int32), (9976, 1))), "names vertex -7; expected 0 to 5022"),
        (dict(kintree_table=np.array([[-1, 1, 1, 1, 1], [0, 1, 2, 3, 4]])), r"the parents \[1, 1, 1, 1\]; expected"),
        (dict(f=[[1, 2], [3]]), "f is a list; expected an array"),
    ],
)
def test_arrays_that_are_not_flames_are_named(change, told, arrays, tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(dump(dict(arrays, **change)))
    with pytest.raises(ValueError, match=told):
        load_flame(path)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "ends too early"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>login</html>", "is no pickle; download it again"),
        (dump({"left_ear": np.arange(3)}), "has no v_template"),
        (dump([1, 2]), "holds a list"),
        (b"PK\x03\x04" + bytes(40), "is an .npz or another zip archive"),
    ],
)
def test_other_files_are_named(data, told, tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=told):
        load_flame(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_truncated_file_is_named(share, published, tmp_path):
    data = (published / "2020" / "generic_model.pkl").read_bytes()
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="ends too early"):
        load_flame(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="after registration"):
        load_flame(tmp_path / "generic_model.pkl")
    with pytest.raises(ValueError, match="is a folder"):
        load_flame(tmp_path)


def test_transposed_arrays_keep_each_its_own_order_of_axes(tmp_path):
    """As protocol 5 writes arrays of other than C or Fortran order, with the axes in a tuple."""
    values = np.arange(24.0).reshape(2, 3, 4)
    orders = [(1, 0, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0)] * 5
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([values.transpose(order) for order in orders], protocol=5))
    for order, found in zip(orders, read_pickle(path), strict=True):
        np.testing.assert_array_equal(found, values.transpose(order))


def test_fortran_order_survives(tmp_path):
    values = np.arange(12.0).reshape(3, 4)
    path = tmp_path / "a.pkl"
    path.write_bytes(dump({"a": array(values, fortran=True)}))
    np.testing.assert_array_equal(read_pickle(path)["a"], values)
