"""Eq. 11-17 of A2-LLM (App. C) on vertices and signals, their summary over clips, and controls made of the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

FPS = 25  # Sec. 5.1
EPSILON = 1e-8  # of Eq. 16, metres per frame; open in the paper, far below any motion
FLAT = 1e-7  # metres; less than this is the rounding of float32 coordinates, not motion
MOUTH = ("upper_lip", "lower_lip", "left_corner", "right_corner")


# ---------------------------------------------------------------- signals


def mouth_opening(vertices: Tensor, landmarks: Mapping[str, int]) -> Tensor:
    """h(V) of Eq. 11: height of the mid upper lip over the mid lower lip, (T, V, 3) -> (T,) metres.

    Signed, so lips that cross have a negative opening. The paper names no vertices: ours are the inner pair.
    """
    check_vertices("vertices", vertices)
    return vertices[:, landmarks["upper_lip"], 1] - vertices[:, landmarks["lower_lip"], 1]


def mouth_width(vertices: Tensor, landmarks: Mapping[str, int]) -> Tensor:
    """W of Eq. 15: horizontal distance between the corners of the mouth, (T, V, 3) -> (T,) metres."""
    check_vertices("vertices", vertices)
    return (vertices[:, landmarks["left_corner"], 0] - vertices[:, landmarks["right_corner"], 0]).abs()


def peaks(signal: Tensor) -> Tensor:
    """Frames of the local maxima, (T,) -> (P,) int64; a flat top counts once, at its middle, as in scipy.

    The first and the last frame are no peaks. There is no threshold: the paper (Eq. 17) names none.
    """
    values, lengths = torch.unique_consecutive(signal, return_counts=True)
    starts = lengths.cumsum(0) - lengths
    higher = (values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])
    return (starts[1:-1] + (lengths[1:-1] - 1) // 2)[higher]


# ---------------------------------------------------------------- Eq. 11-17


def mouth_opening_distance(predicted: Tensor, true: Tensor) -> float:
    """MOD, Eq. 11: mean |O_pred - O_true| x 1000 of two openings (T,); millimetres, lower is better.

    Weak spot: it rewards caution. A face that only holds its mean opening can score like a published model
    (Table 3: 4.6 to 5.8), so print that control beside it.
    """
    predicted, true = _pair(predicted, true)
    return ((predicted - true).abs().mean() * 1000).item()


def upper_face_dynamics(vertices: Tensor, upper_face: Tensor, neutral: Tensor) -> float:
    """UFD, Eq. 12: mean |d_t - d_(t-1)| x 1e5, d how far each upper-face vertex is from its neutral place.

    ``vertices`` (T, V, 3) with T >= 2, ``upper_face`` (N,) vertex numbers, ``neutral`` (V, 3). Unit: 1e-5
    metres per frame; in the paper higher is better. Weak spots: it has no reference, so any jitter raises it;
    and what moves at a constant distance from neutral goes unseen. Print the truth's own UFD beside it.
    """
    check_vertices("vertices", vertices)
    if len(vertices) < 2 or neutral.shape != vertices.shape[1:]:
        given = f"{tuple(vertices.shape)} and {tuple(neutral.shape)}"
        raise ValueError(f"vertices and neutral: expected (T, V, 3) with T >= 2 and (V, 3), got {given}")
    offset = vertices[:, upper_face].double() - neutral[upper_face].double()  # (T, N, 3)
    distance = offset.norm(dim=-1)  # (T, N)
    return (distance.diff(dim=0).abs().mean() * 1e5).item()


def correlation(predicted: Tensor, true: Tensor) -> float:
    """Pearson's correlation of two signals (T,), -1..1; nan for a constant truth, 0 for a constant guess."""
    predicted, true = _pair(predicted, true)
    predicted, true = predicted - predicted.mean(), true - true.mean()
    if _is_flat(true):
        return math.nan
    if _is_flat(predicted):
        return 0.0
    return (predicted @ true / (predicted.norm() * true.norm())).clamp(-1, 1).item()


def temporal_correlation(predicted: Tensor, true: Tensor) -> float:
    """Eq. 13: correlation of two openings (T,); -1..1, higher is better.

    Weak spot: blind to size and offset. A mouth that opens a tenth as far, or never closes, can reach 1.
    """
    return correlation(predicted, true)


def velocity_correlation(predicted: Tensor, true: Tensor) -> float:
    """Eq. 14: correlation of the frame differences of two openings (T,); -1..1, higher is better.

    Stricter in time than Eq. 13: two frames late and the sign may turn. As blind to size and offset.
    """
    predicted, true = _pair(predicted, true)
    return correlation(predicted.diff(), true.diff())


def lip_width_correlation(predicted: Tensor, true: Tensor) -> float:
    """Eq. 15: correlation of two mouth widths (T,); -1..1, higher is better. Blind to size and offset."""
    return correlation(predicted, true)


def liveliness_ratio(predicted: Tensor, true: Tensor) -> float:
    """Eq. 16: sd of the velocity of the predicted opening over (that of the true one + 1e-8); target 1.

    Takes openings (T,). Below 1 over-smoothed, above 1 jittery; nan if the true velocity never changes. Weak
    spot: it knows how much a mouth moves, not when. Any signal of the right energy scores 1.
    """
    predicted, true = _pair(predicted, true)
    moved, should = predicted.diff(), true.diff()
    if _is_flat(should - should.mean()):
        return math.nan
    return (moved.std(correction=0) / (should.std(correction=0) + EPSILON)).item()


def peak_alignment(predicted: Tensor, true: Tensor, fps: float = FPS) -> float:
    """Peak Align, Eq. 17: median over true peaks of the time to the nearest predicted one, openings (T,).

    Milliseconds, lower is better; nan if the truth has no peak, the clip's length if only the prediction has
    none. Weak spots: it counts in frames of 40 ms, and the more peaks a prediction has, the nearer one always
    is: jitter scores well, micrometres are enough.
    """
    predicted, true = _pair(predicted, true)
    at_true, at_predicted = peaks(true), peaks(predicted)
    if len(at_true) == 0:
        return math.nan
    if len(at_predicted) == 0:
        return 1000 * len(true) / fps
    lag = (at_true[:, None] - at_predicted).abs().amin(dim=1)  # (P true, P predicted) -> (P true,)
    return (lag.double().quantile(0.5) * 1000 / fps).item()


# ---------------------------------------------------------------- all of them


@dataclass(frozen=True)
class MotionMetrics:
    """Eq. 11-17 of one clip, and the truth's own UFD, without which the predicted one says nothing."""

    mod: float  # mm, lower is better
    ufd: float  # 1e-5 m per frame; the paper: higher is better; here: near ufd_true
    ufd_true: float
    temporal: float  # -1..1, higher
    velocity: float  # -1..1, higher
    width: float  # -1..1, higher
    liveliness: float  # target 1
    peak_ms: float  # ms, lower


def motion_metrics(
    predicted: Tensor, true: Tensor, landmarks: Mapping[str, int], upper_face: Tensor, neutral: Tensor
) -> MotionMetrics:
    """All of App. C for one clip at 25 fps: zero-pose vertices ``predicted`` and ``true`` (T, V, 3), T >= 4.

    ``upper_face`` (N,) vertex numbers, ``neutral`` (V, 3). ValueError for unequal shapes or nan in them.
    """
    check_vertices("predicted", predicted)
    check_vertices("true", true)
    if predicted.shape != true.shape:
        shapes = f"{tuple(predicted.shape)} and {tuple(true.shape)}"
        raise ValueError(f"predicted and true: shapes {shapes} differ; cut both to one length")
    openings = mouth_opening(predicted, landmarks), mouth_opening(true, landmarks)
    widths = mouth_width(predicted, landmarks), mouth_width(true, landmarks)
    return MotionMetrics(
        mod=mouth_opening_distance(*openings),
        ufd=upper_face_dynamics(predicted, upper_face, neutral),
        ufd_true=upper_face_dynamics(true, upper_face, neutral),
        temporal=temporal_correlation(*openings),
        velocity=velocity_correlation(*openings),
        width=lip_width_correlation(*widths),
        liveliness=liveliness_ratio(*openings),
        peak_ms=peak_alignment(*openings),
    )


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over the ``n`` samples where the measure is defined."""

    mean: float
    sd: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.sd:.2f}"


def summarise(rows: Sequence[MotionMetrics]) -> dict[str, Spread]:
    """Each measure over many clips, every clip weighing the same: the form of the paper's Table 3."""
    if not rows:
        raise ValueError("summarise: expected at least one MotionMetrics, got none")
    spreads = {}
    for name in asdict(rows[0]):
        column = torch.tensor([getattr(row, name) for row in rows], dtype=torch.float64)
        defined = column[~column.isnan()]
        sd = defined.std().item() if len(defined) > 1 else 0.0
        spreads[name] = Spread(defined.mean().item(), sd, len(defined))
    return spreads


def measured_vertices(
    landmarks: Mapping[str, int], upper_face: Tensor
) -> tuple[Tensor, dict[str, int], Tensor]:
    """What App. C looks at, for the fast path ``flame(motion, vertices=numbers, zero_pose=True)``.

    Returns the vertex numbers (4 + N,), then ``landmarks`` and ``upper_face`` renumbered to match.
    """
    numbers = torch.cat([torch.tensor([landmarks[name] for name in MOUTH]), upper_face])
    return numbers, {name: place for place, name in enumerate(MOUTH)}, torch.arange(4, len(numbers))


def controls(
    true: Tensor, neutral: Tensor, *, jitter: float = 2e-4, delay: int = 2, gain: float = 0.5, seed: int = 0
) -> dict[str, Tensor]:
    """Faces made of the truth alone (T, V, 3), so that it is known what is wrong with each.

    The truth; the clip's own mean face, held; the neutral face, held; the truth with white noise of sd
    ``jitter`` metres on each coordinate; the truth ``delay`` frames late; the truth at ``gain`` of its size.
    """
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(seed), dtype=true.dtype)
    late = (torch.arange(len(true)) - delay).clamp(0, len(true) - 1)
    return {
        "truth": true,
        "mean face": true.mean(0).expand_as(true),
        "static face": neutral.expand_as(true),
        "jittered truth": true + jitter * noise,
        "late truth": true[late],
        "flattened truth": neutral + gain * (true - neutral),
    }


def control_table(
    clips: Sequence[Tensor], landmarks: Mapping[str, int], upper_face: Tensor, neutral: Tensor, **options
) -> dict[str, dict[str, Spread]]:
    """Control -> measure -> spread over true clips (T, V, 3); ``options`` go to ``controls``."""
    rows: dict[str, list[MotionMetrics]] = {}
    for true in clips:
        for name, face in controls(true, neutral, **options).items():
            rows.setdefault(name, []).append(motion_metrics(face, true, landmarks, upper_face, neutral))
    return {name: summarise(measured) for name, measured in rows.items()}


# ---------------------------------------------------------------- checks


def _pair(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    for name, signal in (("predicted", predicted), ("true", true)):
        if signal.ndim != 1 or len(signal) < 3:
            raise ValueError(f"{name}: expected a signal (T,), T >= 3, got shape {tuple(signal.shape)}")
        check_finite(name, signal)
    if len(predicted) != len(true):
        raise ValueError(f"predicted has {len(predicted)} frames, true {len(true)}: cut both to one length")
    return predicted.double(), true.double()


def _is_flat(centred: Tensor) -> bool:
    return centred.abs().max().item() < FLAT


def check_vertices(name: str, vertices: Tensor) -> None:
    if vertices.ndim != 3 or vertices.shape[-1] != 3 or len(vertices) == 0:
        raise ValueError(f"{name}: expected vertices (T, V, 3), got shape {tuple(vertices.shape)}")
    check_finite(name, vertices)


def check_finite(name: str, values: Tensor) -> None:
    if not values.isfinite().all():
        place = (~values.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"{name}: no finite number at index {place}; look at what computed it")
