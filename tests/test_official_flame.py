"""The published FLAME files: read as they are, safely, and every way in which they come broken is named.

The files are made here, byte by byte in the published layout, from the arrays of the built head.
"""

import io
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch

from a2lite.flame import Flame, load_flame, load_head
from a2lite.flame.official import PLACES, eyeballs
from a2lite.flame.pickles import UnsafePickle, read_pickle
from flame_files import Build, Call, Global, New, array, chumpy, dump, emit, sparse


@pytest.fixture(scope="module")
def built():
    return load_head()


@pytest.fixture(scope="module")
def arrays(built):
    """What FLAME's dict holds, in its own types."""
    return dict(
        f=built.faces.numpy().astype(np.uint32),
        v_template=built.v_template.double().numpy(),
        shapedirs=built.shapedirs.double().numpy(),
        posedirs=built.posedirs.T.reshape(5023, 3, -1).double().numpy(),
        weights=built.lbs_weights.double().numpy(),
        J_regressor=built.J_regressor.double().numpy(),
        kintree_table=np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        J=np.zeros((5, 3)),
        bs_style="lbs",
        bs_type="lrotmin",
    )


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


# ---------------------------------------------------------------- read right


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
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


RUNS = ["os.system", "posix.system", "eval", "exec", "subprocess", "getattr chain", "dotted global", "STACK_GLOBAL",
        "memo", "INST", "OBJ", "partial", "pickle in a pickle"]  # fmt: skip


@pytest.mark.parametrize("attack", RUNS)
@pytest.mark.skipif("sys.platform == 'win32'", reason="the attacks call touch")
def test_the_attacks_are_real(attack, tmp_path):
    canary = tmp_path / "canary"
    try:
        pickle.Unpickler(io.BytesIO(hostile(str(canary))[attack]), encoding="latin1").load()
    except Exception:
        pass
    assert canary.exists()


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
        (dict(f=np.full((9976, 3), 5023, np.uint32)), "names vertex 5023"),
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
        (b"<!DOCTYPE html><html>login</html>", "cannot be read as a pickle"),
        (dump({"left_ear": np.arange(3)}), "has no v_template"),
        (dump([1, 2]), "holds a list"),
        (b"PK\x03\x04" + bytes(40), "is a zip archive; unpack it"),
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


def test_fortran_order_survives(tmp_path):
    values = np.arange(12.0).reshape(3, 4)
    path = tmp_path / "a.pkl"
    path.write_bytes(dump({"a": array(values, fortran=True)}))
    np.testing.assert_array_equal(read_pickle(path)["a"], values)
