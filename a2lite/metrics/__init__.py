"""What a talking face is measured by (A2-LLM App. C, Eq. 11-17), and whether its emotion can be read.

Notebook 07_metrics builds this room by hand. Torch tensors go in, Python floats come out; it knows vertices,
signals and feature matrices, and no model. The paper measures "in the canonical zero-pose space": vertices
have to come without global rotation, jaw kept (``flame(motion, zero_pose=True)``), which no function here can
check. Vertices are (T, V, 3) in metres, y up, x to the subject's left; ``landmarks`` maps upper_lip,
lower_lip, left_corner and right_corner to vertex numbers.

One rule where a measure is undefined: if the truth gives nothing to measure against (it does not move, it
has no peaks), the result is nan, and the sample is left out of means; if only the prediction is empty, it
gets what an unrelated one would (correlation 0, the whole clip as lag): a dead face cannot hide behind nan.
"""

from a2lite.metrics.emotion import EmotionReadout, emotion_features
from a2lite.metrics.judge import Judge, Verdict
from a2lite.metrics.motion import (
    EPSILON,
    FLAT,
    FPS,
    MOUTH,
    MotionMetrics,
    Spread,
    control_table,
    controls,
    correlation,
    lip_width_correlation,
    liveliness_ratio,
    measured_vertices,
    motion_metrics,
    mouth_opening,
    mouth_opening_distance,
    mouth_width,
    peak_alignment,
    peaks,
    summarise,
    temporal_correlation,
    upper_face_dynamics,
    velocity_correlation,
)
from a2lite.metrics.shares import Accuracy, accuracy, wilson

__all__ = [
    "Accuracy",
    "EPSILON",
    "EmotionReadout",
    "FLAT",
    "FPS",
    "Judge",
    "MOUTH",
    "MotionMetrics",
    "Spread",
    "Verdict",
    "accuracy",
    "control_table",
    "controls",
    "correlation",
    "emotion_features",
    "lip_width_correlation",
    "liveliness_ratio",
    "measured_vertices",
    "motion_metrics",
    "mouth_opening",
    "mouth_opening_distance",
    "mouth_width",
    "peak_alignment",
    "peaks",
    "summarise",
    "temporal_correlation",
    "upper_face_dynamics",
    "velocity_correlation",
    "wilson",
]
