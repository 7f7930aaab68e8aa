"""The validator: is a folder of samples fit to train on? One clear line per fault.

Sec. 4 names the faults that the paper filters out of its clips (broken alignment, unclear speech); notebook 02.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from a2lite.audio import RATE
from a2lite.config import MotionConfig
from a2lite.flame_qa.samples import SCHEMA_VERSION, TASKS, Sample, Samples

EMOTIONS = ("neutral", "happy", "sad", "angry", "surprised", "afraid")
STYLES = ("plain", "ambiguous")
RANGES = {  # lowest and highest sensible value
    "expression": (MotionConfig.expression, -12.0, 12.0),
    "jaw": (MotionConfig.jaw, -0.2, 0.7),  # rad
    "rotation": (MotionConfig.rotation, -1.0, 1.0),  # rad
    "eyelid": (MotionConfig.eyelid, -0.05, 1.05),
}
FRAME = RATE // MotionConfig.fps  # samples


def faults(sample: Sample) -> Iterator[str]:
    """What is wrong with one sample, a line each."""
    task = TASKS.get(sample.task)
    if task is None:
        yield f"task is {sample.task!r}; expected one of {', '.join(TASKS)}"
        return
    if sample.emotion not in EMOTIONS:
        yield f"emotion is {sample.emotion!r}; expected one of {', '.join(EMOTIONS)}"
    if sample.style not in STYLES:
        yield f"style is {sample.style!r}; expected one of {', '.join(STYLES)}"
    for name in ("question_text", "answer_text"):
        if not getattr(sample, name).strip():
            yield f"{name} is empty; expected words"
    if task.hears:
        yield from _sound_faults("question_audio", sample.question_audio)
    if task.audio:
        yield from _sound_faults("answer_audio", sample.answer_audio)
    if task.motion:
        yield from _motion_faults(sample)
    for turn in sample.history:
        yield from _sound_faults("history question_audio", turn["question_audio"])


def _sound_faults(name: str, wave: np.ndarray) -> Iterator[str]:
    if len(wave) == 0:
        yield f"{name} is missing"
    elif not np.isfinite(wave).all():
        yield f"{name} holds NaN or infinite samples"
    elif np.abs(wave).max() < 0.01:
        yield f"{name} is silence (peak {np.abs(wave).max():.4f})"
    elif (np.abs(wave) >= 0.999).mean() > 1e-3:
        yield f"{name} is clipped ({100 * (np.abs(wave) >= 0.999).mean():.1f} % of its samples at full scale)"


def _motion_faults(sample: Sample) -> Iterator[str]:
    motion, frames = sample.motion, len(sample.answer_audio) / FRAME
    if motion.ndim != 2 or motion.shape[1] != MotionConfig.dim:
        yield f"motion has shape {motion.shape}; expected (T, {MotionConfig.dim})"
        return
    if abs(len(motion) - frames) > 1:
        yield f"motion has {len(motion)} frames, answer_audio {frames:.1f}; expected the same within one"
    if not np.isfinite(motion).all():
        yield "motion holds NaN or infinite values"
        return
    for name, (where, low, high) in RANGES.items():
        part = motion[:, where]
        if len(part) and (part.min() < low or part.max() > high):
            yield f"{name} spans {part.min():.2f}..{part.max():.2f}; expected {low}..{high}"
    starts = [start for start, _ in sample.phonemes]
    if starts != sorted(starts) or (starts and starts[-1] > len(sample.answer_audio) / RATE + 0.04):
        yield "phonemes are not in order, or lie beyond the end of answer_audio"


def validate(path: str | Path) -> list[str]:
    """Every fault of every sample in a Parquet file or in the files of a folder, a line each; empty if sound.

    Also finds samples that ask the same question in the same recording in two splits. FileNotFoundError where no
    Parquet file lies; ValueError for a foreign schema.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{path}: no Parquet files; expected samples of schema version {SCHEMA_VERSION}")
    lines, first = [], {}
    for file in files:
        for sample in Samples([file]):
            lines += [f"{file.name}: {sample.id}: {fault}" for fault in faults(sample)]
            key, name = fingerprint(sample), (sample.split, sample.id)
            if key not in first:
                first[key] = name
            elif first[key] == name:
                lines.append(f"{file.name}: {sample.id}: stands there twice")
            elif first[key][0] != sample.split:
                lines.append(f"{file.name}: {sample.id}: the same recording as {first[key][1]} of another split")
    return lines


def fingerprint(sample: Sample) -> bytes:
    """Equal for samples that sound the same to a model: all questions, or the answer where none is asked."""
    heard = [turn["question_audio"] for turn in sample.history] + [sample.question_audio]
    if not sum(map(len, heard)):
        heard = [sample.answer_audio]
    return hashlib.sha1(b"|".join(wave.tobytes() for wave in heard)).digest()
