"""Eq. 11-17 against scipy and numpy; what a measure ignores, what fools it, what a perfect face gets."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch

from a2lite import metrics
from a2lite.flame import Flame, load_head

LANDMARKS = {"upper_lip": 3, "lower_lip": 1, "left_corner": 0, "right_corner": 2}
UPPER_FACE = torch.arange(10, 24)
NEUTRAL = 0.1 * torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def smooth_clip(seed: int, frames: int = 80) -> torch.Tensor:
    """A small mesh in slow random motion about NEUTRAL, (frames, 30, 3) metres."""
    noise = torch.randn(frames + 8, 30, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return NEUTRAL + 0.002 * noise.unfold(0, 9, 1).mean(-1)


def openings(seed: int, frames: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    signals = [metrics.mouth_opening(smooth_clip(s, frames), LANDMARKS) for s in (seed, seed + 1000)]
    return signals[0] + signals[1], signals[1]  # related, not equal


def measure(predicted: torch.Tensor, true: torch.Tensor) -> dict[str, float]:
    return asdict(metrics.motion_metrics(predicted, true, LANDMARKS, UPPER_FACE, NEUTRAL))


# ---------------------------------------------------------------- against independent oracles


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_scipys(seed):
    predicted, true = openings(seed)
    p, t = predicted.numpy(), true.numpy()
    assert metrics.temporal_correlation(predicted, true) == pytest.approx(scipy.stats.pearsonr(p, t)[0])
    assert metrics.lip_width_correlation(predicted, true) == pytest.approx(scipy.stats.pearsonr(p, t)[0])
    oracle = scipy.stats.pearsonr(np.diff(p), np.diff(t))[0]
    assert metrics.velocity_correlation(predicted, true) == pytest.approx(oracle)


@pytest.mark.parametrize("seed", range(3))
def test_opening_distance_liveliness_and_dynamics_are_what_numpy_says(seed):
    predicted, true = openings(seed)
    p, t = predicted.numpy(), true.numpy()
    assert metrics.mouth_opening_distance(predicted, true) == pytest.approx(np.mean(np.abs(p - t)) * 1000)
    ratio = np.std(np.diff(p)) / (np.std(np.diff(t)) + 1e-8)
    assert metrics.liveliness_ratio(predicted, true) == pytest.approx(ratio)
    clip = smooth_clip(seed)
    total = 0.0  # Eq. 12 as it is printed, one term at a time
    for frame in range(1, len(clip)):
        for vertex in UPPER_FACE.tolist():
            now, before = (np.linalg.norm(clip[f, vertex] - NEUTRAL[vertex]) for f in (frame, frame - 1))
            total += abs(now - before) / len(UPPER_FACE)
    oracle = total / (len(clip) - 1) * 1e5
    assert metrics.upper_face_dynamics(clip, UPPER_FACE, NEUTRAL) == pytest.approx(oracle)


@pytest.mark.parametrize("seed", range(20))
def test_peaks_are_scipys_on_signals_full_of_plateaus(seed):
    signal = torch.randint(0, 4, (200,), generator=torch.Generator().manual_seed(seed))
    assert metrics.peaks(signal).tolist() == scipy.signal.find_peaks(signal.numpy())[0].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_peak_alignment_is_the_median_distance_to_scipys_peaks(seed):
    predicted, true = openings(seed)
    at_predicted, at_true = (scipy.signal.find_peaks(s.numpy())[0] for s in (predicted, true))
    lags = [min(abs(frame - other) for other in at_predicted) for frame in at_true]
    assert metrics.peak_alignment(predicted, true, fps=25) == pytest.approx(np.median(lags) * 40)


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (1, 1), (53, 320), (319, 320)])
def test_wilson_interval_is_scipys(hits, n):
    for confidence in (0.95, 0.99):
        oracle = scipy.stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
        assert metrics.wilson(hits, n, confidence) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


# ---------------------------------------------------------------- golden values


def test_golden_values_of_a_signal_one_can_check_by_head():
    true = torch.tensor([0.0, 4, 0, 2, 0, 6, 0]) / 1000
    predicted = torch.tensor([0.0, 0, 4, 0, 0, 3, 0]) / 1000
    assert metrics.peaks(true).tolist() == [1, 3, 5]
    assert metrics.peaks(predicted).tolist() == [2, 5]
    assert metrics.mouth_opening_distance(predicted, true) == pytest.approx((4 + 4 + 2 + 3) / 7)
    assert metrics.peak_alignment(predicted, true) == 40.0  # lags of 1, 1 and 0 frames
    assert metrics.temporal_correlation(predicted, true) == pytest.approx(6 / math.sqrt(18 * 248 / 7))
    assert metrics.velocity_correlation(predicted, true) == pytest.approx(12 / math.sqrt(50 * 112))
    assert metrics.liveliness_ratio(predicted, true) == pytest.approx(math.sqrt(50 / 112), abs=1e-4)


def test_opening_is_vertical_and_signed_and_width_horizontal():
    face = torch.zeros(1, 30, 3)
    face[0, 3] = torch.tensor([0.5, -0.010, 0.2])
    face[0, 1] = torch.tensor([0.0, -0.004, 0.1])
    face[0, 0] = torch.tensor([0.020, 0.3, 0.0])
    face[0, 2] = torch.tensor([-0.025, 0.0, 0.7])
    assert metrics.mouth_opening(face, LANDMARKS).item() == pytest.approx(-0.006)  # the lips have crossed
    assert metrics.mouth_width(face, LANDMARKS).item() == pytest.approx(0.045)


def test_dynamics_do_not_see_motion_at_a_constant_distance_from_neutral():
    angle = torch.linspace(0, 6, 40, dtype=torch.float64)
    circle = 0.003 * torch.stack([angle.cos(), angle.sin(), torch.zeros(40)], dim=-1)  # (T, 3)
    clip = NEUTRAL + circle[:, None]
    assert metrics.upper_face_dynamics(clip, UPPER_FACE, NEUTRAL) == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------- on the head


@pytest.fixture(scope="module")
def face():
    head = load_head()
    flame = Flame(head)

    def frame(jaw=0.0, turn=0.0, **units):
        motion = torch.zeros(1, 58)
        motion[:, 50], motion[:, 53], motion[:, :50] = jaw, turn, head.expression(**units)
        return flame(motion, zero_pose=True)

    return head, frame


def test_signals_say_what_the_mouth_does(face):
    head, frame = face
    opening = [metrics.mouth_opening(frame(jaw=j), head.landmarks).item() for j in (0.0, 0.1, 0.2)]
    assert abs(opening[0]) < 1e-3 and opening == sorted(opening) and opening[2] > 0.008
    poses = {"rest": frame(), "smile": frame(smile=1.0), "pucker": frame(pucker=1.0)}
    width = {name: metrics.mouth_width(pose, head.landmarks).item() for name, pose in poses.items()}
    assert width["pucker"] < 0.9 * width["rest"] and width["smile"] > 1.05 * width["rest"]


def test_dynamics_see_the_brow_and_hardly_the_jaw_or_the_turning_head(face):
    head, frame = face
    upper_face, neutral = head.regions["upper_face"], head.v_template

    def dynamics(pose):
        return metrics.upper_face_dynamics(torch.cat([frame(), pose]), upper_face, neutral)

    assert dynamics(frame(inner_brow=1.0)) > 10 * dynamics(frame(jaw=0.2))
    assert dynamics(frame(turn=0.3)) == pytest.approx(0, abs=1e-3)


# ---------------------------------------------------------------- what a measure ignores, what fools it


def test_truth_against_itself_is_perfect():
    clip = smooth_clip(0)
    result = measure(clip, clip)
    assert result["mod"] == 0 and result["peak_ms"] == 0 and result["ufd"] == result["ufd_true"] > 0
    for name in ("temporal", "velocity", "width", "liveliness"):
        assert result[name] == pytest.approx(1, abs=1e-4)


def test_a_rigid_shift_of_the_head_changes_nothing_at_the_mouth():
    predicted, true = smooth_clip(0), smooth_clip(1)
    shifted = measure(predicted + torch.tensor([0.1, -0.2, 0.3]), true)
    for name, value in measure(predicted, true).items():
        if name != "ufd":
            assert shifted[name] == pytest.approx(value, abs=1e-9), name


def test_correlations_ignore_scale_and_offset_and_liveliness_measures_scale():
    predicted, true = openings(0)
    for scale in (0.01, 0.5, 30.0):
        other = 0.02 + scale * predicted
        for score in (metrics.temporal_correlation, metrics.velocity_correlation):
            assert score(other, true) == pytest.approx(score(predicted, true))
        expected = scale * metrics.liveliness_ratio(predicted, true)
        assert metrics.liveliness_ratio(other, true) == pytest.approx(expected)
        assert metrics.peak_alignment(other, true) == metrics.peak_alignment(predicted, true)


def test_more_jitter_is_more_dynamics_though_the_face_gets_worse():
    true = smooth_clip(3)
    noisy = [metrics.controls(true, NEUTRAL, jitter=sd)["jittered truth"] for sd in (0, 2e-4, 5e-4, 1e-3)]
    scores = [measure(clip, true) for clip in noisy]
    ufd, mod = [s["ufd"] for s in scores], [s["mod"] for s in scores]
    assert ufd == sorted(ufd) and ufd[-1] > 2 * ufd[0]
    assert mod == sorted(mod)


def test_jitter_that_nobody_sees_fools_peak_alignment():
    frames = torch.arange(100, dtype=torch.float64)
    true = 0.005 * torch.sin(frames / 5)
    held = 0.002 + 1e-6 * torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert metrics.peak_alignment(held, true) <= 40


def test_controls_show_what_was_done_to_them():
    table = metrics.control_table([smooth_clip(s) for s in range(4)], LANDMARKS, UPPER_FACE, NEUTRAL)
    assert list(table) == list(metrics.controls(smooth_clip(0), NEUTRAL))
    assert table["truth"]["mod"].mean == 0
    for held in ("mean face", "static face"):
        assert table[held]["ufd"].mean == pytest.approx(0, abs=1e-6)
        assert table[held]["temporal"].mean == table[held]["velocity"].mean == 0
        assert table[held]["peak_ms"].mean == 80 * 40  # no peaks: the clip's length
    assert table["mean face"]["mod"].mean <= table["static face"]["mod"].mean
    assert 40 <= table["late truth"]["peak_ms"].mean <= 80  # a stranger's peak may be nearer than one's own
    assert table["flattened truth"]["liveliness"].mean == pytest.approx(0.5, abs=1e-3)
    assert table["flattened truth"]["temporal"].mean == pytest.approx(1)
    assert table["jittered truth"]["ufd"].mean > table["truth"]["ufd"].mean


def test_the_fast_path_measures_the_same_face():
    predicted, true = smooth_clip(0), smooth_clip(1)
    numbers, landmarks, upper_face = metrics.measured_vertices(LANDMARKS, UPPER_FACE)
    few = metrics.motion_metrics(
        predicted[:, numbers], true[:, numbers], landmarks, upper_face, NEUTRAL[numbers]
    )
    assert asdict(few) == measure(predicted, true)


# ---------------------------------------------------------------- where a measure is undefined


def test_a_truth_without_motion_gives_nan_and_is_left_out_of_means():
    still, moving = NEUTRAL.expand(80, -1, -1), smooth_clip(0)
    result = measure(moving, still)
    for name in ("temporal", "velocity", "width", "liveliness", "peak_ms"):
        assert math.isnan(result[name]), name
    rows = [metrics.motion_metrics(moving, t, LANDMARKS, UPPER_FACE, NEUTRAL) for t in (still, moving)]
    spread = metrics.summarise(rows)
    assert spread["temporal"] == metrics.Spread(pytest.approx(1), 0.0, 1)
    assert spread["mod"].n == 2


def test_spreads_are_numpys():
    rows = [metrics.MotionMetrics(float(m), *[1.0] * 7) for m in (4, 5, 9)]
    spread = metrics.summarise(rows)["mod"]
    assert (spread.mean, spread.sd) == pytest.approx((6.0, np.std([4, 5, 9], ddof=1)))
    assert str(spread) == "6.00 ± 2.65"


# ---------------------------------------------------------------- the emotion read-out


def emotional_clip(emotion: int, seed: int) -> torch.Tensor:
    held = torch.randn(30, 3, generator=torch.Generator().manual_seed(900 + emotion), dtype=torch.float64)
    return smooth_clip(seed) + 0.0003 * held


def test_readout_reads_held_emotions_off_moving_faces():
    def rows(seeds):
        labels = [name for name in ("glad", "sad", "wry") for _ in seeds]
        clips = [emotional_clip(e, 100 * e + s) for e in range(3) for s in seeds]
        args = (LANDMARKS, UPPER_FACE, NEUTRAL)
        return torch.stack([metrics.emotion_features(c, *args) for c in clips]), labels

    features, labels = rows(range(8))
    assert features.shape == (24, 3 * (len(UPPER_FACE) + 2))
    readout = metrics.EmotionReadout.fit(features, labels)
    unseen, truth = rows(range(50, 60))
    assert readout.labels == ("glad", "sad", "wry")
    assert metrics.accuracy(readout.predict(unseen), truth).value == 1


def test_readout_does_not_care_for_the_units_of_a_feature():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=generator)
    labels = ["up" if row[0] + 0.3 * row[3] > 0 else "down" for row in features]
    units = torch.tensor([1.0, 20.0, 0.1, 3.0, 7.0])
    plain = metrics.EmotionReadout.fit(features, labels).predict(features)
    assert metrics.EmotionReadout.fit(features * units, labels).predict(features * units) == plain


def test_accuracy_prints_its_interval_and_knows_chance():
    result = metrics.accuracy(["a"] * 304 + ["b"] * 16, ["a"] * 320)
    assert str(result) == "0.95 [0.92, 0.97] (304/320)"
    assert not result.contains(1 / 6)
    assert metrics.Accuracy(53, 320).contains(1 / 6)


# ---------------------------------------------------------------- errors


def test_errors_say_what_was_wrong():
    clip, signal = smooth_clip(0), openings(0)[0]
    broken = clip.clone()
    broken[4, 7, 2] = math.nan
    with pytest.raises(ValueError, match=r"true: no finite number at index \[4, 7, 2\]"):
        measure(clip, broken)
    with pytest.raises(ValueError, match=r"\(70, 30, 3\) and \(80, 30, 3\) differ; cut both to one length"):
        measure(clip[:70], clip)
    with pytest.raises(ValueError, match="predicted has 70 frames, true 80"):
        metrics.temporal_correlation(signal[:70], signal)
    with pytest.raises(ValueError, match=r"expected a signal \(T,\), T >= 3, got shape \(2,\)"):
        metrics.mouth_opening_distance(signal[:2], signal[:2])
    with pytest.raises(ValueError, match=r"expected vertices \(T, V, 3\), got shape \(30, 3\)"):
        metrics.mouth_opening(clip[0], LANDMARKS)
    with pytest.raises(ValueError, match="T >= 2"):
        metrics.upper_face_dynamics(clip[:1], UPPER_FACE, NEUTRAL)
    with pytest.raises(ValueError, match="at least one MotionMetrics"):
        metrics.summarise([])
    with pytest.raises(ValueError, match="3 predictions, 2 truths"):
        metrics.accuracy("abc", "ab")
    with pytest.raises(ValueError, match="6 hits of 5"):
        metrics.wilson(6, 5)
    with pytest.raises(ValueError, match="3 rows, 3 labels of 1 kinds"):
        metrics.EmotionReadout.fit(torch.randn(3, 4), ["glad"] * 3)
    readout = metrics.EmotionReadout.fit(torch.randn(4, 4), ["glad", "sad"] * 2)
    with pytest.raises(ValueError, match="5 columns, this read-out has 4"):
        readout.predict(torch.randn(2, 5))
