"""Samples from plans: speak the question and the answer, perform the face; write a split as Parquet shards.

Stands in for FLAME-QA's pipeline (Sec. 4, App. A); notebook 02. Needs espeak-ng (extra ``world``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path

import numpy as np

from a2lite.audio import RATE
from a2lite.config import Config, MotionConfig, WorldConfig
from a2lite.fit import Progress
from a2lite.flame_qa import Sample, load_samples, samples_folder, save_samples, shard_name
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
        question_text=plan.turns[-1], question_voice=plan.question_voice,
        question_audio=questions[-1],
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

    ``count`` defaults to the profile's; several shards are made on several cores. A shard that is there is kept, so
    an interrupted run goes on where it stopped. ValueError for an unknown split, or where files of another count, seed
    or version of the world lie.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    folder = folder or samples_folder(config.profile)
    count = count or getattr(config.world, "test" if split.startswith("test") else split)
    shards = [(start, min(count, start + SHARD)) for start in range(0, count, SHARD)]
    names = {shard_name(split, number, len(shards)) for number in range(len(shards))}
    foreign = sorted(path.name for path in folder.glob(f"{split}-*.parquet") if path.name not in names)
    if foreign:
        raise ValueError(f"{folder / foreign[0]}: is of a {split} of another size; delete it to generate this one")
    paths = [folder / shard_name(split, number, len(shards)) for number in range(len(shards))]
    missing = [(str(path), *shard) for path, shard in zip(paths, shards) if not path.exists()]
    for path, (start, _) in zip(paths, shards):
        if path.exists():
            _check_kept(path, sample(config.world, split, start))
    progress, world = Progress(f"world {split}", count), asdict(config.world)
    alone = (index for shard in missing for index in write_shard(world, split, *shard))
    already = count - sum(stop - start for _, start, stop in missing)
    for done, _ in enumerate(_share_out(world, split, missing) if len(missing) > 1 else alone, already + 1):
        progress.update(done)
    return folder


def _check_kept(path: Path, first: Sample) -> None:
    """ValueError unless a file that is there begins with the sample that would be made now."""
    kept = load_samples(path, first.split)[0]
    said = lambda s: (s.question_text, s.question_voice, s.answer_text, s.avatar_voice, s.emotion)  # noqa: E731
    heard = np.array_equal(kept.answer_audio, first.answer_audio)
    if not heard or said(kept) != said(first) or not np.allclose(kept.motion, first.motion, atol=2e-3):
        raise ValueError(f"{path}: is of another seed or version of the world; delete it to generate this one")


def write_shard(world: dict, split: str, path: str, start: int, stop: int) -> Iterator[int]:
    """One file with the samples ``start`` to ``stop`` of a split, whose indices are given one by one when made.

    ``world`` holds the fields of a ``WorldConfig``.
    """
    samples = []
    for index in range(start, stop):
        samples.append(sample(WorldConfig(**world), split, index))
        yield index
    save_samples(samples, path)


def _share_out(world: dict, split: str, shards: list[tuple]) -> Iterator[str]:
    """A process for each core, since espeak-ng keeps its state per process; gives a line for each sample made."""
    code = "import json, sys; from a2lite.world.generation import write_shard; *job, part = json.load(sys.stdin)\n"
    code += "for shard in part:\n for index in write_shard(*job, *shard): print(index, flush=True)"
    cores = min(os.cpu_count() or 1, len(shards))
    with tempfile.TemporaryFile("w+") as errors:
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        workers = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(cores)]
        try:
            for core, worker in enumerate(workers):
                worker.stdin.write(json.dumps([world, split, shards[core::cores]]))
                worker.stdin.close()
            for lines in zip_longest(*(worker.stdout for worker in workers)):
                yield from filter(None, lines)
                if None in lines and any(worker.poll() for worker in workers):
                    break  # one has failed; do not wait for the others
            else:
                [worker.wait() for worker in workers]
            if any(worker.poll() for worker in workers):
                errors.seek(0)
                last = " ".join(errors.read().strip().splitlines()[-1:])
                raise RuntimeError(f"world {split}: a process failed ({last}); what is written is kept")
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
