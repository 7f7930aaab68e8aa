"""The head and its function, held against geometry, against smplx on the same file, and against the sculptor."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from a2lite.config import MotionConfig
from a2lite.flame import Flame, load_head, rotation_matrix
from a2lite.flame.build import principal, split_units
from a2lite.flame.head import EXPRESSION, IDENTITY, USED
from a2lite.flame.sculptor.anatomy import Anatomy
from a2lite.flame.sculptor.identity import Identity
from a2lite.flame.sculptor.rig import Rig
from a2lite.flame.sculptor.rings import CONTACT, MOUTH_CORNER
from a2lite.flame.sculptor.topology import build_shell


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def flame(head):
    return Flame(head)


def random_motion(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    motion = 0.3 * torch.randn(*shape, MotionConfig.dim, generator=draw)
    motion[..., MotionConfig.eyelid] = torch.rand(*shape, 2, generator=draw)
    return motion


def motion_of(head, jaw=0.0, rotation=(0.0, 0.0, 0.0), lids=(0.0, 0.0), **units) -> torch.Tensor:
    motion = torch.zeros(MotionConfig.dim)
    motion[MotionConfig.expression] = head.expression(**units)
    motion[MotionConfig.jaw.start] = jaw
    motion[MotionConfig.rotation] = torch.tensor(rotation)
    motion[MotionConfig.eyelid] = torch.tensor(lids)
    return motion


# ---------------------------------------------------------------- the mesh


def edge_uses(faces: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return pairs, np.unique(np.sort(pairs, 1), axis=0, return_counts=True)[1]


def test_flame_dimensions(head):
    assert head.v_template.shape == (5023, 3) and head.faces.shape == (9976, 3)
    assert head.shapedirs.shape == (5023, 3, 400) and head.posedirs.shape == (36, 15069)
    assert head.J_regressor.shape == (5, 5023) and head.lbs_weights.shape == (5023, 5)
    assert head.parents.tolist() == [-1, 0, 1, 1, 1]
    assert head.au_expression.shape == (len(head.action_units), 50) and len(head.action_units) == 36
    assert 0.2 < np.ptp(head.v_template[:, 1].numpy()) < 0.32  # crown to the cut of the neck, metres


def test_shell_is_closed_but_for_the_neck(head):
    pairs, uses = edge_uses(head.faces.numpy())
    assert np.bincount(uses).tolist() == [0, 60, 14934]
    assert len(np.unique(pairs, axis=0)) == len(pairs)  # no edge twice in the same direction: one orientation
    directed = set(map(tuple, pairs.tolist()))
    following = {a: b for a, b in directed if (b, a) not in directed}
    loop = [next(iter(following))]
    while following[loop[-1]] != loop[0]:
        loop.append(following[loop[-1]])
    assert len(loop) == 60  # one loop
    assert (head.v_template[loop, 1] < -0.13).all()


def test_triangles_face_outward(head):
    triangle = head.v_template[head.faces]
    volume = (triangle[:, 0] * torch.linalg.cross(triangle[:, 1], triangle[:, 2])).sum(1) / 6
    balls = [torch.isin(head.faces[:, 0], head.regions[name]) for name in ("left_eyeball", "right_eyeball")]
    sphere = 4 / 3 * np.pi * 0.0126**3
    for ball in balls:
        assert 0.97 * sphere < volume[ball].sum() < 1.03 * sphere
    assert 0.003 < volume[~(balls[0] | balls[1])].sum() < 0.006  # cubic metres: litres of a head
    assert triangle.diff(dim=1).norm(dim=-1).min() > 1e-5


def test_left_and_right_mirror_each_other(head):
    mirrored = head.v_template * torch.tensor([-1.0, 1, 1])
    distance, twin = torch.cdist(mirrored.double(), head.v_template.double()).min(1)
    assert distance.max() < 1e-6
    assert (twin[twin] == torch.arange(5023)).all()
    flip = torch.tensor([-1.0, 1, 1])
    basis = head.shapedirs[..., IDENTITY : IDENTITY + USED]
    for name in ("smile", "inner_brow", "pucker", "squint"):
        left, right = (basis @ head.expression(**{f"{name}_{side}": 1.0}) for side in ("left", "right"))
        assert (left[twin] * flip - right).abs().max() < 1e-5


def test_regions_and_landmarks(head):
    regions = {name: set(numbers.tolist()) for name, numbers in head.regions.items()}
    assert regions["lips"] < regions["face"] and regions["upper_face"] < regions["face"]
    assert not regions["face"] & (regions["left_eyeball"] | regions["neck"] | regions["scalp"] | regions["left_ear"])
    for name in ("eye_region", "forehead", "nose", "right_eyeball", "right_eye_region", "right_ear"):
        assert regions[name], name
    at = {name: head.v_template[number] for name, number in head.landmarks.items()}
    assert at["left_corner"][0] > 0.02 and at["right_corner"][0] < -0.02  # x to the subject's left
    assert 0 < (at["upper_lip"] - at["lower_lip"])[1] < 0.001  # closed at rest
    assert at["nose_tip"][2] == head.v_template[:, 2].max()


# ---------------------------------------------------------------- bases and action units


def test_each_basis_is_orthogonal_and_its_added_modes_are_faint_and_smooth(head):
    rows = head.shapedirs.reshape(-1, IDENTITY + EXPRESSION).T
    edge = head.faces[:, :2]
    for basis, sculpted in ((rows[:IDENTITY], 20), (rows[IDENTITY:], 36)):
        size = basis.norm(dim=1)
        gram = (basis / size[:, None]) @ (basis / size[:, None]).T
        assert (gram - torch.eye(len(gram))).abs().max() < 1e-3
        added = basis[sculpted:].unflatten(1, (-1, 3))
        assert added.norm(dim=-1).max() < 1.5e-4  # metres at coefficient 1
        assert size[sculpted:].max() < size[:sculpted].min()
        step = (added[:, edge[:, 0]] - added[:, edge[:, 1]]).norm(dim=-1).mean()
        assert step < 0.5 * added.norm(dim=-1).mean()


@pytest.fixture(scope="module")
def sculpted(head):
    rig = Rig(Anatomy(build_shell()))
    if not np.array_equal(rig.anatomy.faces, head.faces.numpy()):
        pytest.skip("this platform's Delaunay triangulation differs from that of the shipped head")
    return rig


def test_expression_reproduces_every_sculpted_action_unit(head, sculpted):
    assert np.abs(sculpted.anatomy.rest * 1e-3 - head.v_template.numpy()).max() < 1e-6
    units = split_units(sculpted, 5023)
    assert list(units) == head.action_units
    basis = head.shapedirs[..., IDENTITY : IDENTITY + USED].reshape(-1, USED)
    for name, wanted in units.items():
        made = basis @ head.expression(**{name: 1.0})
        error = np.linalg.norm(made.numpy() - wanted) / np.linalg.norm(wanted)
        assert error < 0.005, (name, error)


def test_lips_do_not_visibly_cross(head, flame, sculpted):
    for units in (dict(smile=1.0, cheek=0.5), dict(pucker=1.0), dict(corner_down=1.0, chin=0.6), dict(press=1.0),
                  dict(stretch=1.0), dict(smile=(0.7, 0.35)), dict(nose_wrinkle=1.0, upper_lip=0.7)):
        face = flame(motion_of(head, **units))
        for side in (1, -1):
            ring = face[sculpted.anatomy.grid("mouth", side)[CONTACT]]
            upper, lower = ring[:MOUTH_CORNER], ring[MOUTH_CORNER + 1 :].flip(0)
            assert (lower - upper)[:, 1].max() < 2e-4, units  # metres


def test_principal_components_reproduce_the_fields_they_came_from():
    draw = np.random.default_rng(0)
    fields, strengths = draw.normal(size=(5, 30)), draw.uniform(size=(1000, 5))
    components, coefficients = principal(fields, strengths)
    np.testing.assert_allclose(coefficients @ components, fields, atol=1e-9)
    white = strengths @ coefficients
    np.testing.assert_allclose(white.T @ white / 1000, np.eye(5), atol=1e-9)  # a coefficient of 1 is its RMS
    assert (np.diff(np.linalg.norm(components, axis=1)) < 0).all()


def test_expression_takes_numbers_tracks_and_sides(head):
    track = torch.linspace(0, 1, 7)
    moving = head.expression(smile=track, pucker=(0.5, track))
    assert moving.shape == (7, 50) and head.expression().shape == (50,)
    fixed = head.expression(smile_left=1.0, smile_right=1.0, pucker_left=0.5, pucker=(0.0, 1.0))
    torch.testing.assert_close(moving[-1], fixed)
    with pytest.raises(ValueError, match="'frown' is no action unit; expected one of inner_brow, "):
        head.expression(frown=1.0)


def test_action_units_do_what_they_are_called(head, flame):
    at = head.landmarks

    def face(**given):
        return flame(motion_of(head, **given))

    def width(v):
        return v[at["left_corner"], 0] - v[at["right_corner"], 0]

    rest = face()
    assert width(face(smile=1.0)) - width(rest) > 0.005
    assert face(smile_left=1.0)[at["left_corner"], 1] - rest[at["left_corner"], 1] > 0.004
    assert (face(smile_left=1.0)[at["right_corner"]] - rest[at["right_corner"]]).abs().max() < 1e-4
    assert width(face(pucker=1.0)) - width(rest) < -0.015
    opened = face(jaw=0.3)
    assert (opened[at["upper_lip"]] - opened[at["lower_lip"]]).norm() > 0.02
    assert (opened[head.regions["upper_face"]] - rest[head.regions["upper_face"]]).norm(dim=1).max() < 5e-4
    lid = at["left_upper_lid"]
    assert face(lid_up=1.0)[lid, 1] > rest[lid, 1] + 5e-4
    assert face(lids=(1.0, 0.0))[lid, 1] < rest[lid, 1] - 5e-3
    assert (face(lids=(0.0, 1.0))[lid] - rest[lid]).norm() == 0


# ---------------------------------------------------------------- the function


@pytest.fixture(scope="module")
def peer(head, tmp_path_factory):
    smplx = pytest.importorskip("smplx")
    folder = tmp_path_factory.mktemp("flame")
    head.save_npz(folder / "FLAME_NEUTRAL.npz")
    with open(folder / "flame_static_embedding.pkl", "wb") as file:  # smplx wants landmarks; any triangle will do
        pickle.dump(dict(lmk_face_idx=np.zeros(1, int), lmk_b_coords=np.full((1, 3), 1 / 3)), file)
    return smplx.FLAMELayer(folder, ext="npz", num_betas=IDENTITY, num_expression_coeffs=EXPRESSION)


def test_equals_smplx_on_the_same_file(head, peer):
    draw = torch.Generator().manual_seed(5)
    for _ in range(3):
        betas, psi = torch.randn(IDENTITY, generator=draw), torch.randn(4, EXPRESSION, generator=draw)
        pose = 0.5 * torch.randn(4, 5, 3, generator=draw)
        ours = Flame(head, betas).articulate(psi, pose, torch.zeros(4, 2))
        named = dict(zip(("global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose"),
                         rotation_matrix(pose).split(1, dim=1), strict=True))
        theirs = peer(betas=betas.expand(4, -1), expression=psi, **named).vertices
        assert (ours - theirs).abs().max() < 1e-5


def test_motion_is_the_part_of_it_that_has_58_numbers(head, flame):
    motion = random_motion(3)
    pose = torch.zeros(3, 5, 3)
    pose[:, 0], pose[:, 2] = motion[:, MotionConfig.rotation], motion[:, MotionConfig.jaw]
    whole = flame.articulate(motion[:, MotionConfig.expression], pose, motion[:, MotionConfig.eyelid])
    torch.testing.assert_close(flame(motion), whole, atol=1e-6, rtol=0)


def test_any_leading_shape_and_any_subset(head, flame):
    motion = random_motion(2, 3)
    full = flame(motion)
    assert full.shape == (2, 3, 5023, 3) and full.dtype == torch.float32
    torch.testing.assert_close(flame(motion[1, 2]), full[1, 2], atol=1e-6, rtol=0)
    for name in ("lips", "left_eyeball"):
        part = flame(motion, vertices=head.regions[name])
        torch.testing.assert_close(part, full[:, :, head.regions[name]], atol=1e-6, rtol=0)


def test_zero_pose_knows_no_rotation_but_keeps_the_jaw(head, flame):
    motion = random_motion(4)
    turned = motion.clone()
    turned[:, MotionConfig.rotation] = torch.randn(4, 3)
    torch.testing.assert_close(flame(motion, zero_pose=True), flame(turned, zero_pose=True), atol=0, rtol=0)
    closed = motion.clone()
    closed[:, MotionConfig.jaw] = 0
    assert (flame(motion, zero_pose=True) - flame(closed, zero_pose=True)).abs().max() > 1e-3


def test_a_trait_is_the_field_that_the_sculptor_gave_it(head, sculpted):
    fields = Identity(sculpted.anatomy).fields()
    assert head.traits == list(fields)
    for name, field in fields.items():
        moved = head.shapedirs[..., :IDENTITY] @ head.identity(**{name: 1.0})
        assert np.abs(moved.numpy() - 1e-3 * field).max() < 3e-5, name


def test_global_rotation_is_rigid_for_every_identity_lids_included(head):
    draw = torch.Generator().manual_seed(2)
    flame = Flame(head, torch.randn(30, generator=draw))
    motion = random_motion(1, seed=3)[0]
    still, turned = flame(motion, zero_pose=True), flame(motion)
    root = flame.joints[0] + torch.einsum("k,kd->d", motion[MotionConfig.expression], flame.joint_basis[:USED, 0])
    rotation = rotation_matrix(motion[MotionConfig.rotation])
    torch.testing.assert_close((still - root) @ rotation.T + root, turned, atol=1e-6, rtol=0)


def test_identity_moves_the_joints(head):
    for betas in torch.eye(20)[:5] * 2:
        flame = Flame(head, betas)
        eyes = flame(torch.zeros(MotionConfig.dim))[head.regions["left_eyeball"]]
        ball = head.v_template[head.regions["left_eyeball"]] - Flame(head).joints[3]
        scale, offset = np.polyfit(ball.flatten().numpy(), (eyes - flame.joints[3]).flatten().numpy(), 1)
        assert abs(offset) < 1e-5 and 0.7 < scale < 1.3  # the joint stays in the middle of its eyeball


def test_gradients_agree_with_finite_differences(head):
    flame = Flame(head).double()
    vertices = head.regions["lips"][:7]
    for motion in (random_motion(2).double(), torch.zeros(1, MotionConfig.dim, dtype=torch.float64)):
        assert torch.autograd.gradcheck(lambda m: flame(m, vertices=vertices), motion.requires_grad_(), atol=1e-6)


def test_rotation_matrix_is_the_exponential(head):
    vectors = torch.tensor([[0.3, -0.2, 0.5], [3.0, 0.0, 0.0], [1e-4, 0, 0], [0.0, 0, 0]], dtype=torch.float64)
    cross = torch.zeros(4, 3, 3, dtype=torch.float64)
    cross[:, 2, 1], cross[:, 0, 2], cross[:, 1, 0] = vectors.T
    torch.testing.assert_close(rotation_matrix(vectors), torch.linalg.matrix_exp(cross - cross.mT))


# ---------------------------------------------------------------- eyelids


def clearance(head, flame: Flame, motion: torch.Tensor, side: int) -> float:
    """Least distance of a lid (corners, edges and middles of its triangles) from the eyeball, millimetres."""
    name, centre, vertices = ("left", "right")[side], flame.joints[3 + side], flame(motion)
    ball = vertices[head.regions[f"{name}_eyeball"]]
    lid = torch.zeros(5023, dtype=torch.bool)
    lid[head.regions[f"{name}_eye_region"]] = True
    triangle = vertices[head.faces[lid[head.faces].all(1)]]
    points = torch.cat([triangle.flatten(0, 1), triangle.mean(1), (triangle + triangle.roll(1, 1)).flatten(0, 1) / 2])

    def polar(p):
        q = p - centre
        return torch.rad2deg(torch.arccos(q[:, 2] / q.norm(dim=1))).numpy(), q.norm(dim=1).numpy()

    ball_angle, ball_radius = polar(ball)
    order = np.argsort(ball_angle)
    angle, radius = polar(points)
    return 1e3 * float((radius - np.interp(angle, ball_angle[order], ball_radius[order])).min())


def test_a_quadratic_lid_clears_the_eyeball_where_a_linear_one_cuts_it(head, flame):
    linear = head.eyelids.clone()
    linear[:, 1] = 0
    straight = Flame(replace(head, eyelids=linear))
    for side in range(2):
        for a in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0):
            gap = clearance(head, flame, motion_of(head, lids=(a, a)), side)
            assert gap > 0.1, f"{gap:.2f} mm at closure {a}"
        gap = clearance(head, straight, motion_of(head, lids=(0.5, 0.5)), side)
        assert gap < -0.3


@pytest.mark.parametrize("units", [dict(squint=1.0), dict(smile=1.0, cheek=0.9, squint=0.7), dict(brow_lower=1.0),
                                   dict(inner_brow=1.0, outer_brow=1.0), dict(lid_up=1.0)])
def test_lids_stay_outside_the_eyeball_in_expressions(head, flame, units):
    for a in (0.0,) if "lid_up" in units else (0.0, 0.5, 1.0):  # nobody raises and closes a lid at once
        gap = clearance(head, flame, motion_of(head, lids=(a, a), **units), 0)
        assert gap > -0.05, f"{gap:.2f} mm at closure {a}"


def test_lids_fit_other_people(head):
    for betas in 0.9 * torch.randn(4, 20, generator=torch.Generator().manual_seed(1)):
        person = Flame(head, betas)
        for a in (0.0, 0.5, 1.0):
            gap = clearance(head, person, motion_of(head, lids=(a, a)), 0)
            assert gap > -0.1, f"{gap:.2f} mm at closure {a}"


def test_linear_lids_as_smirk_has_them(head):
    lids = torch.zeros(2, 2, 5023, 3)
    lids[0, 0, :10, 1] = -0.002  # left, a (5023, 3) array
    made = Flame(replace(head, eyelids=lids))
    motion = torch.zeros(MotionConfig.dim)
    rest = made(motion)
    motion[MotionConfig.eyelid] = torch.tensor([0.5, 1.0])
    torch.testing.assert_close(made(motion) - rest, 0.5 * lids[0, 0], atol=1e-8, rtol=0)


def test_the_eyes_turn_about_their_middle_and_the_lids_follow(head, flame):
    pose = torch.zeros(2, 5, 3)
    pose[1, 3:, 0] = 0.3  # both eyes look down
    straight, down = flame.articulate(torch.zeros(2, 50), pose, torch.zeros(2, 2))
    pupil = head.regions["left_eyeball"][0]
    assert 3e-3 < (straight - down)[pupil, 1] < 5e-3
    assert (straight - down)[head.landmarks["left_upper_lid"], 1] > 5e-4
    assert (straight - down)[head.regions["lips"]].abs().max() < 1e-6


# ---------------------------------------------------------------- the file and its errors


def test_the_file_has_flames_own_keys(head, tmp_path):
    head.save_npz(tmp_path / "head.npz")
    with np.load(tmp_path / "head.npz", allow_pickle=False) as file:
        shapes = {key: file[key].shape for key in file.files}
        assert file["kintree_table"][0].tolist() == [-1, 0, 1, 1, 1]
        assert str(file["bs_style"]) == "lbs" and str(file["bs_type"]) == "lrotmin"
    assert shapes["posedirs"] == (5023, 3, 36) and shapes["shapedirs"] == (5023, 3, 400)
    assert shapes["f"] == (9976, 3) and shapes["weights"] == (5023, 5) and shapes["J_regressor"] == (5, 5023)


def test_a_missing_or_changed_head_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors: the head is missing; restore the file"):
        load_head(tmp_path / "absent.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"cut\.safetensors: sha256 is [0-9a-f]{12}…, expected"):
        load_head(tmp_path / "cut.safetensors")


def test_wrong_shapes_are_named(head, flame):
    with pytest.raises(ValueError, match=r"motion: expected \(\.\.\., 58\), got \(4, 56\)"):
        flame(torch.zeros(4, 56))
    with pytest.raises(ValueError, match=r"betas: expected \(n,\) with n <= 300, got \(1, 10\)"):
        Flame(head, torch.zeros(1, 10))
