"""Samples from plans: speak the question and the answer, perform the face; write a split as Parquet shards.

Stands in for FLAME-QA's pipeline (Sec. 4, App. A); notebook 02. Needs espeak-ng (extra ``world``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from a2lite.audio import RATE
from a2lite.config import Config, MotionConfig, WorldConfig
from a2lite.fit import Progress
from a2lite.flame_qa import Sample, samples_folder, save_samples, shard_name
from a2lite.world import domain
from a2lite.world.dialogue import PROSODY, SPLITS, Plan, plan
from a2lite.world.espeak import speak
from a2lite.world.performance import perform

PEAK = 0.7
GROUP = 5 * RATE // MotionConfig.fps  # 3200 samples, one group of motion frames (G of Sec. 5.1)
LEAD, TAIL = 0.08, 0.2  # seconds of silence before and, at least, after an answer
SHARD = 220  # samples in a file, about 30 MB


def sample(config: WorldConfig, split: str, index: int, emotion: str | None = None) -> Sample:
    """Sample ``index`` of ``split``, spoken and performed, the same on every call; see ``plan`` for ``emotion``."""
    return realise(plan(config, split, index, emotion), config)


def realise(plan: Plan, config: WorldConfig) -> Sample:
    """Speak and perform one plan."""
    wave, phonemes = speak_answer(plan.answer_text, plan.avatar_voice, plan.prosody)
    asking = (plan.question_voice, plan.question_rate, plan.question_pitch)
    questions = [speak_question(text, *asking) for text in plan.turns]
    history = []
    if len(plan.turns) == 2:
        reply, _ = speak_answer(domain.TURN_ONE_ANSWER, plan.avatar_voice, PROSODY["neutral"])
        first = dict(question_text=plan.turns[0], question_audio=questions[0])
        history = [dict(**first, answer_text=domain.TURN_ONE_ANSWER, answer_audio=reply)]
    return Sample(
        id=plan.id, split=plan.split, task=plan.task, topic=plan.topic, emotion=plan.emotion, style=plan.style,
        high_dynamic=plan.high_dynamic, gesture=plan.gesture,
        question_text=plan.turns[-1] if plan.turns else plan.answer_text, question_voice=plan.question_voice,
        question_audio=questions[-1] if questions else np.zeros(0, np.float32),
        answer_text=plan.answer_text, avatar_voice=plan.avatar_voice, answer_audio=wave,
        motion=perform(wave, phonemes, plan.emotion, plan.gesture, plan.generator(1), config),
        history=history, phonemes=phonemes,
    )  # fmt: skip


def speak_question(text: str, voice: str, rate: int, pitch: int) -> np.ndarray:
    """A question, (samples,) with 0.1 s of silence before and 0.2 s after; see ``speak`` for the arguments."""
    wave, _ = speak(text, voice, rate, pitch)
    return np.pad(sixteen_bit(wave), (int(0.1 * RATE), int(0.2 * RATE)))


def speak_answer(text: str, voice: str, prosody: tuple[int, int, int]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """An answer, padded to whole motion groups (a multiple of 3200 samples), and its phonemes in its own time."""
    wave, phonemes = speak(text, voice, *prosody)
    lead = int(LEAD * RATE)
    groups = -(-(lead + len(wave) + int(TAIL * RATE)) // GROUP)
    wave = np.pad(sixteen_bit(wave), (lead, groups * GROUP - lead - len(wave)))
    return wave, [(round(start + LEAD, 3), symbol) for start, symbol in phonemes]


def sixteen_bit(wave: np.ndarray) -> np.ndarray:
    """Peak 0.7, on the grid of 16-bit samples, so that FLAC gives back exactly what went in."""
    scaled = wave * (PEAK / max(np.abs(wave).max(), 1e-6))
    return (np.round(scaled * 32767) / 32768).astype(np.float32)


def generate(config: Config, split: str, folder: Path | None = None, count: int | None = None) -> Path:
    """Write ``split`` as Parquet shards into ``folder`` (that of the profile by default); returns the folder.

    ``count`` defaults to the profile's. A shard that is there is kept, so an interrupted run goes on where it
    stopped; delete the folder to start anew, as after a change of the seed.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    folder = folder or samples_folder(config.profile)
    world = config.world
    count = count or getattr(world, "test" if split.startswith("test") else split)
    shards = -(-count // SHARD)
    progress = Progress(f"world {split}", count)
    for shard in range(shards):
        path = folder / shard_name(split, shard, shards)
        wanted = range(shard * SHARD, min(count, (shard + 1) * SHARD))
        if path.exists():
            progress.update(wanted[-1] + 1)
            continue
        samples = []
        for index in wanted:
            samples.append(sample(world, split, index))
            progress.update(index + 1)
        save_samples(samples, path)
    return folder
