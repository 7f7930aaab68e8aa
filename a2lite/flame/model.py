"""FLAME's function: shape, expression and pose to vertices (Eq. 1 of A2-LLM; Li et al. 2017, Eq. 1-4).

Written from the papers on SMPL and FLAME; notebooks/01_flame.ipynb builds it by hand and holds it against
``smplx.FLAMELayer`` on the same file.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from a2lite.config import MotionConfig
from a2lite.flame.head import IDENTITY, JAW, ROOT, FlameHead


def rotation_matrix(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula, (..., 3) radians -> (..., 3, 3); smooth at zero."""
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    angle = (axis_angle.square().sum(-1) + 1e-16).sqrt()[..., None, None]
    sine, versine = torch.sinc(angle / torch.pi), 0.5 * torch.sinc(angle / (2 * torch.pi)).square()
    return torch.eye(3, dtype=x.dtype, device=x.device) + sine * cross + versine * (cross @ cross)


def skin(vertices: Tensor, joints: Tensor, rotations: Tensor, parents: list[int], weights: Tensor) -> Tensor:
    """Linear blend skinning: every vertex goes with the weighted mean of its joints' rigid motions.

    ``vertices`` (B, V, 3), ``joints`` (B, J, 3) at rest, ``rotations`` (B, J, 3, 3) relative to the parent,
    ``weights`` (V, J), or (V, J + 1) where the last is the share that stays -> (B, V, 3). Fastest where each of x, y
    and z lies in one piece, as in the result.
    """
    turns: list[Tensor] = []
    moves: list[Tensor] = []
    points, shares = vertices.mT, weights.T.contiguous()  # (B, 3, V), (J or J + 1, V)
    posed = points * shares[-1] if len(shares) > len(parents) else torch.zeros_like(points)
    for j, parent in enumerate(parents):
        turn, placed = rotations[:, j], joints[:, j]
        if parent >= 0:  # the parent carries the joint and all below it
            placed = _carry(turns[parent], placed) + moves[parent]
            turn = turns[parent] @ turn
        turns.append(turn)
        moves.append(placed - _carry(turn, joints[:, j]))
        posed.addcmul_(shares[j], torch.baddbmm(moves[j][..., None], turn, points))
    return posed.mT


def _carry(turn: Tensor, point: Tensor) -> Tensor:
    return (turn @ point[..., None])[..., 0]  # (B, 3)


class Flame(nn.Module):
    """58 numbers a frame -> vertices in metres, differentiable, over any leading shape.

    ``betas`` (up to 300,) is the identity; it is part of the rest shape, so that joints move with it and
    rotations come after it. The lids' travel is scaled with the eyeballs.

    ``lids="head"`` moves them at rest, so that they turn with the head. ``lids="smirk"`` adds them when all else is
    done, in the frame of the room, as SMIRK does: its meshes to the digit, and wrong where the head turns.
    """

    def __init__(self, head: FlameHead, betas: Tensor | None = None, lids: str = "head"):
        super().__init__()
        if lids not in ("head", "smirk"):
            raise ValueError(f"lids {lids!r}: expected head or smirk")
        if hasattr(betas, "betas") or isinstance(betas, str):
            raise ValueError(f"betas: got a {type(betas).__name__}; expected numbers, as PEOPLE['ada'].betas(head)")
        betas = torch.zeros(0) if betas is None else torch.as_tensor(betas, dtype=torch.float32)
        if betas.ndim != 1 or len(betas) > IDENTITY:
            raise ValueError(f"betas: expected (n,) with n <= {IDENTITY}, got {tuple(betas.shape)}")
        template = head.v_template + head.shapedirs[..., : len(betas)] @ betas
        expression = head.shapedirs[..., IDENTITY:]  # (V, 3, 100)
        travel = head.eyelids * _eye_scale(head, template)[:, None, None, None]
        self.lids = lids
        self.parents = head.parents.tolist()
        self.register_buffer("template", template, persistent=False)  # (V, 3)
        self.register_buffer("expression_basis", expression.permute(2, 0, 1).contiguous(), persistent=False)
        self.register_buffer("pose_basis", head.posedirs.unflatten(1, (-1, 3)).contiguous(), persistent=False)
        self.register_buffer("lid_basis", travel, persistent=False)  # (2 sides, 2 terms, V, 3)
        self.register_buffer("joints", head.J_regressor @ template, persistent=False)  # (5, 3)
        shifts = torch.einsum("jv,vdk->kjd", head.J_regressor, expression)
        self.register_buffer("joint_basis", shifts.contiguous(), persistent=False)  # (100, 5, 3)
        self.register_buffer("weights", head.lbs_weights.clone(), persistent=False)  # (V, 5)
        self._parts: dict[tuple, tuple[Tensor, Tensor, Tensor]] = {}

    def forward(self, motion: Tensor, vertices: Tensor | None = None, zero_pose: bool = False) -> Tensor:
        """Motion (..., 58) -> (..., V, 3), or (..., len(vertices), 3) of the chosen vertices.

        ``zero_pose`` leaves out the global rotation and keeps the jaw: the frame in which faces are compared. Where a
        gradient is asked for, x, y and z lie apart in memory: take ``reshape``, not ``view``.
        """
        if motion.shape[-1] != MotionConfig.dim:
            raise ValueError(f"motion: expected (..., {MotionConfig.dim}), got {tuple(motion.shape)}")
        turning = {} if zero_pose else {ROOT: motion[..., MotionConfig.rotation]}
        turning[JAW] = motion[..., MotionConfig.jaw]
        return self._mesh(motion[..., MotionConfig.expression], turning, motion[..., MotionConfig.eyelid], vertices)

    def articulate(self, expression: Tensor, pose: Tensor, eyelid: Tensor) -> Tensor:
        """All of FLAME: expression (..., n <= 100), pose (..., 5, 3), eyelid (..., 2) -> (..., V, 3).

        The joints are root, neck, jaw, left eye, right eye; the eyes' rotation is the gaze.
        """
        turning = {joint: pose[..., joint, :] for joint in range(5)}
        return self._mesh(expression, turning, eyelid, None)

    def _mesh(self, expression: Tensor, turning: dict[int, Tensor], lids: Tensor, vertices: Tensor | None) -> Tensor:
        """Joints that are not in ``turning`` cost nothing: their vertices go with the nearest one above that is.

        Where none is, they stay. The root, if it turns, comes first.
        """
        lead, count, joints = expression.shape[:-1], expression.shape[-1], tuple(turning)
        psi, lids = expression.reshape(-1, count), lids.reshape(-1, 2)
        rotations = torch.stack([rotation_matrix(turning[j]) for j in joints], -3).reshape(-1, len(joints), 3, 3)
        bending = rotations[:, 1:] if ROOT in turning else rotations
        bend = (bending - torch.eye(3, dtype=psi.dtype, device=psi.device)).flatten(1)  # (B, 9 (J - 1))
        lid_terms = torch.stack([lids, 4 * lids * (1 - lids)], -1).flatten(1)  # (B, 4)
        template, basis, weights = self._part(joints, count, vertices)
        last = len(basis) if self.lids == "head" else len(basis) - 4  # rows that act before the pose
        moved = torch.cat([psi, bend, lid_terms], 1)
        shaped = torch.addmm(template, moved[:, :last], basis[:last]).unflatten(-1, (3, -1)).mT  # (B, V, 3)
        at = self.joints[list(joints)] + torch.einsum("bk,kjd->bjd", psi, self.joint_basis[:count, list(joints)])
        parents = [self._carrier(self.parents[j], joints) for j in joints]
        posed = skin(shaped, at, rotations, parents, weights)
        if self.lids == "smirk":
            posed = posed + (moved[:, last:] @ basis[last:]).unflatten(-1, (3, -1)).mT
        if not posed.requires_grad:  # a loss does not mind how they lie; who takes them to numpy may
            posed = posed.contiguous()
        return posed.reshape(*lead, -1, 3)

    def _carrier(self, joint: int, joints: tuple[int, ...]) -> int:
        """The place in ``joints`` of the nearest one at or above ``joint``; -1 where there is none."""
        while joint >= 0 and joint not in joints:
            joint = self.parents[joint]
        return joints.index(joint) if joint >= 0 else -1

    def _part(self, joints: tuple[int, ...], count: int, vertices: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Template (3 V,), stacked bases (rows, 3 V), weights as ``skin`` takes them; sliced once, the last 8 kept.

        The rows: ``count`` of the expression, 9 for each joint but the root, 4 of the lids.
        """
        chosen = None if vertices is None else tuple(vertices.tolist())
        key = (joints, count, chosen, self.template.device, self.template.dtype)
        if key not in self._parts:
            if len(self._parts) >= 8:
                self._parts.pop(next(iter(self._parts)))
            self._parts[key] = self._slice(joints, count, slice(None) if vertices is None else vertices)
        return self._parts[key]

    def _slice(self, joints: tuple[int, ...], count: int, rows: slice | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bends = [self.pose_basis[9 * (j - 1) : 9 * j, rows] for j in joints if j != ROOT]
        basis = torch.cat([self.expression_basis[:count, rows], *bends, self.lid_basis.flatten(0, 1)[:, rows]])
        carriers = [self._carrier(j, joints) for j in range(len(self.parents))]
        columns = len(joints) + (-1 in carriers)  # -1 is the last: what stays
        weights = self.weights @ torch.eye(columns).to(self.weights)[carriers]  # (V, 5) -> (V, columns)
        return self.template[rows].T.flatten(), basis.mT.flatten(1).contiguous(), weights[rows]


def _eye_scale(head: FlameHead, template: Tensor) -> Tensor:
    """How large each eyeball of ``template`` is beside the mean head's: (2,)."""
    sizes = []
    for name in ("left_eyeball", "right_eyeball"):
        was, now = (points[head.regions[name]] for points in (head.v_template, template))
        sizes.append((now - now.mean(0)).norm() / (was - was.mean(0)).norm())
    return torch.stack(sizes)
