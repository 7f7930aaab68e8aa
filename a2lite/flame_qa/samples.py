"""FLAME-QA samples: the schema of (Q, R_text, R_audio, R_visual), and Parquet files in and out.

Sec. 3.3 and 4; notebook 02. Sound is stored as FLAC bytes in the ``Audio(decode=False)`` feature of
``datasets`` and decoded by soundfile when a sample is asked for, so a split costs no memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet

from a2lite import ROOT
from a2lite.audio import RATE, decode_audio, encode_flac
from a2lite.config import PROFILES, MotionConfig

SCHEMA_VERSION = 1
ROWS = 8  # samples in a row group, the unit that is read at once
_SOUNDS = ("question_audio", "answer_audio")


class Task(NamedTuple):
    """What a subtask of Sec. 4 takes and gives; ``motion`` also says whether L_motion of Eq. 6 applies."""

    hears: bool
    reads: bool
    text: bool
    audio: bool
    motion: bool


TASKS = {
    "AQAA": Task(hears=True, reads=False, text=True, audio=True, motion=True),  # a question, its answer
    "Repeat": Task(hears=True, reads=False, text=True, audio=True, motion=True),  # speech, the same again
    "TTS": Task(hears=False, reads=True, text=True, audio=True, motion=True),  # text, read aloud
    "ASR": Task(hears=True, reads=False, text=True, audio=False, motion=False),  # speech, its words
}


@dataclass
class Sample:
    """One dialogue: a question Q, and the answer R as text, audio and motion (Sec. 3.3).

    Waves are (samples,) float32 at 16 kHz; ``answer_audio`` is a multiple of 3200 samples; ``motion`` is
    (T, 58) float32 at 25 fps with T = len(answer_audio) / 640. ``history`` holds earlier turns as dicts with
    question_text, question_audio, answer_text and answer_audio; ``phonemes`` (start in seconds, symbol) pairs.
    """

    id: str
    split: str
    task: str
    topic: str
    emotion: str
    style: str
    high_dynamic: bool
    gesture: str
    question_text: str
    question_voice: str
    question_audio: np.ndarray
    answer_text: str
    avatar_voice: str
    answer_audio: np.ndarray
    motion: np.ndarray
    history: list[dict[str, Any]] = field(default_factory=list)
    phonemes: list[tuple[float, str]] = field(default_factory=list)

    @property
    def dialogue(self) -> str:
        """All that was asked, earlier turns first."""
        return " ".join([turn["question_text"] for turn in self.history] + [self.question_text])


def subtask(sample: Sample, task: str) -> Sample:
    """The same recording as another of the four subtasks (Sec. 4).

    ASR hears the question and answers with its words. Repeat hears the answer, TTS reads it; both need an
    answer whose words decide the face, so ValueError for an ambiguous one.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r}: expected one of {', '.join(TASKS)}")
    if task == sample.task:
        return sample
    if task == "ASR":
        nothing = np.zeros(0, np.float32)
        return replace(
            sample, task="ASR", answer_text=sample.question_text, answer_audio=nothing, avatar_voice="",
            motion=np.zeros((0, MotionConfig.dim), np.float32), history=[], phonemes=[],
        )  # fmt: skip
    if task == "AQAA" or sample.style != "plain":
        raise ValueError(f"{sample.id}: cannot serve as {task}; its words alone do not tell what the face does")
    heard = sample.answer_audio if task == "Repeat" else np.zeros(0, np.float32)
    voice = sample.avatar_voice if task == "Repeat" else ""
    return replace(
        sample, task=task, question_text=sample.answer_text, question_audio=heard, question_voice=voice, history=[]
    )


# ---------------------------------------------------------------- files


def samples_folder(profile: str) -> Path:
    """Where a profile's samples lie: data_samples/ for tiny, runs/<profile>/artefacts/world/ else."""
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r}: expected one of {', '.join(PROFILES)}")
    return ROOT / "data_samples" if profile == "tiny" else ROOT / "runs" / profile / "artefacts" / "world"


def shard_name(split: str, shard: int, shards: int) -> str:
    return f"{split}-{shard:05d}-of-{shards:05d}.parquet"


def schema():
    """The columns as ``datasets.Features``."""
    from datasets import Audio, Features, List, Value

    sound = Audio(sampling_rate=RATE, decode=False)
    columns = {f.name: Value("bool" if f.name == "high_dynamic" else "string") for f in fields(Sample)}
    turn = {"question_text": Value("string"), "question_audio": sound, "answer_text": Value("string")}
    return Features({
        **columns, "question_audio": sound, "answer_audio": sound,
        "motion": List(List(Value("float16"), length=MotionConfig.dim)),
        "history": List({**turn, "answer_audio": sound}),
        "phonemes": List({"start": Value("float32"), "symbol": Value("string")}),
    })  # fmt: skip


def save_samples(samples: Iterable[Sample], path: str | Path) -> None:
    """Write one Parquet file, atomically; motion as float16, sound as FLAC (16 bits)."""
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar

    path, samples = Path(path), list(samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    wanted = schema().arrow_schema  # filled by hand: encoding Audio through datasets would need torchcodec
    columns = [pyarrow.array([_stored(s, c.name) for s in samples], c.type) for c in wanted if c.name != "motion"]
    columns.insert(wanted.get_field_index("motion"), _motion_column([s.motion for s in samples], wanted))
    disable_progress_bar()
    try:
        Dataset(pyarrow.Table.from_arrays(columns, schema=wanted)).to_parquet(partial, batch_size=ROWS)
    finally:
        enable_progress_bar()
    os.replace(partial, path)


def _motion_column(motions: list[np.ndarray], wanted: pyarrow.Schema) -> pyarrow.Array:
    flat = pyarrow.array(np.concatenate(motions).astype(np.float16).reshape(-1))  # (all frames * 58,)
    frames = pyarrow.FixedSizeListArray.from_arrays(flat, MotionConfig.dim)
    ends = np.cumsum([0] + [len(motion) for motion in motions]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(pyarrow.array(ends), frames).cast(wanted.field("motion").type)


def _stored(sample: Sample, name: str) -> Any:
    """A field as Parquet holds it."""
    value = getattr(sample, name)
    if name in _SOUNDS:
        return _to_flac(value)
    if name == "history":
        return [{k: _to_flac(v) if k in _SOUNDS else v for k, v in turn.items()} for turn in value]
    if name == "phonemes":
        return [{"start": start, "symbol": symbol} for start, symbol in value]
    return value


def _to_flac(wave: np.ndarray) -> dict[str, Any] | None:
    return {"bytes": encode_flac(wave), "path": None} if len(wave) else None


def _from_flac(stored: dict[str, Any] | None, name: str) -> np.ndarray:
    if stored is None or not stored["bytes"]:
        return np.zeros(0, np.float32)
    return decode_audio(stored["bytes"], name).numpy()


def _to_sample(row: dict[str, Any], motion: np.ndarray) -> Sample:
    for name in _SOUNDS:
        row[name] = _from_flac(row[name], f"{row['id']}.{name}")
    for turn in row["history"]:
        turn.update({name: _from_flac(turn[name], f"{row['id']}.history.{name}") for name in _SOUNDS})
    row["phonemes"] = [(round(p["start"], 3), p["symbol"]) for p in row["phonemes"]]
    return Sample(**{**row, "motion": motion})


class Samples(Sequence):
    """Samples of some Parquet files, decoded one by one when asked for: ``samples[3]``, ``for s in samples``.

    ``column("emotion")`` reads one column only (no sound); ``select(indices)`` gives a part.
    """

    def __init__(self, files: list[Path], places: list[tuple[int, int, int]] | None = None):
        self.files, self._open, self._group = files, {}, (None, None)
        if places is None:
            places = []
            for i in range(len(files)):
                meta = self._file(i).metadata
                for group in range(meta.num_row_groups):
                    places += [(i, group, row) for row in range(meta.row_group(group).num_rows)]
        self.places = places  # (file, row group, row) of each sample

    def _file(self, i: int) -> pyarrow.parquet.ParquetFile:
        if i not in self._open:
            self._open[i] = _checked_file(self.files[i])
        return self._open[i]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> Sample:
        file, group, row = self.places[i]
        if self._group[0] != (file, group):
            self._group = ((file, group), self._file(file).read_row_group(group))
        table = self._group[1].slice(row, 1)
        return _to_sample(table.drop_columns(["motion"]).to_pylist()[0], _motion(table).astype(np.float32))

    def motions(self) -> list[np.ndarray]:
        """The motion (T, 58) of every sample, float32, without decoding any sound."""
        rows: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for i, (file, group, row) in enumerate(self.places):
            rows.setdefault((file, group), []).append((i, row))
        found: dict[int, np.ndarray] = {}
        for (file, group), wanted in rows.items():  # of which one at a time is held
            table = self._file(file).read_row_group(group, columns=["motion"])
            found |= {i: _motion(table.slice(row, 1)).astype(np.float32) for i, row in wanted}
        return [found[i] for i in range(len(self))]

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def column(self, name: str) -> list[Any]:
        """One column of every sample; ValueError for an unknown name."""
        if name not in {f.name for f in fields(Sample)}:
            raise ValueError(f"column {name!r}: expected one of {', '.join(f.name for f in fields(Sample))}")
        used = sorted({(file, group) for file, group, _ in self.places})
        groups = {key: self._file(key[0]).read_row_group(key[1], columns=[name])[name].to_pylist() for key in used}
        return [groups[file, group][row] for file, group, row in self.places]

    def select(self, indices: Iterable[int]) -> Samples:
        """The samples at ``indices``, in that order."""
        return Samples(self.files, [self.places[i] for i in indices])

    def where(self, **values: Any) -> Samples:
        """Those whose columns equal ``values``: ``samples.where(style="ambiguous")``."""
        columns = {name: self.column(name) for name in values}
        return self.select(i for i in range(len(self)) if all(columns[n][i] == v for n, v in values.items()))


def _motion(row: pyarrow.Table) -> np.ndarray:
    motion = row["motion"].combine_chunks().flatten().flatten().to_numpy(zero_copy_only=False)
    return motion.reshape(-1, MotionConfig.dim)  # (T, 58)


def load_samples(source: str | Path, split: str) -> Samples:
    """The samples of ``split`` from a profile's folder, another folder, or one Parquet file.

    FileNotFoundError where nothing lies, ValueError for missing shards or a foreign schema; one line each.
    """
    folder = samples_folder(source) if source in PROFILES else Path(source)
    if folder.is_file():
        return Samples([folder]).where(split=split)
    files = sorted(folder.glob(f"{split}-?????-of-?????.parquet"))
    if not files:
        remedy = f"expected files such as {shard_name(split, 0, 1)}; notebook 02 makes those of the synthetic world"
        if source == "tiny":
            remedy = "restore data_samples/"
        raise FileNotFoundError(f"{folder}: no samples of split {split!r}; {remedy}")
    wanted = int(files[0].stem[-5:])
    if len(files) != wanted:
        raise ValueError(f"{folder}: {len(files)} of {wanted} files of split {split!r}; run the generation again")
    return Samples(files)


def _checked_file(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: is not a Parquet file ({str(error).splitlines()[0]})") from None
    missing = {f.name for f in fields(Sample)} - set(file.schema_arrow.names)
    if missing:
        raise ValueError(f"{path}: lacks column {sorted(missing)[0]!r} of schema version {SCHEMA_VERSION}")
    return file
