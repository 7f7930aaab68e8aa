"""Examples on disk: what a batch needs of each dialogue, prepared once, in shards, read when it is their turn.

At the paper's size (Sec. 4: 100k dialogues) features are tens of gigabytes, and computing them takes longer than an
epoch. Every process prepares its share of the shards and reads its share of a batch; one that is there is not made
again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from a2lite.a2llm import Example, as_task, example_of
from a2lite.backbone.tasks import Exchange, Item, prepare_one
from a2lite.config import BackboneConfig
from a2lite.fit import Progress
from a2lite.flame_qa import Sample, Samples
from a2lite.parallel import place, together
from a2lite.rvq import MotionRVQ
from a2lite.speech import SpeechTokenizer

SIZE = 256  # dialogues in a shard


class Shards(Sequence):
    """Examples of some shard files, read one by one: ``shards[3]``; ``lengths`` and ``entries`` without reading sound.

    ``entries`` has a dict per example: id, task, emotion, high_dynamic, length.
    """

    def __init__(self, files: Sequence[Path], places: list[tuple[int, int, str]] | None = None):
        self.files, self._open = list(files), {}
        self.heads = [_head(path) for path in self.files]
        if places is None:
            places = [(f, i, e["task"]) for f, head in enumerate(self.heads) for i, e in enumerate(head["examples"])]
        self.places = places  # (file, place in it, task) of each example

    @classmethod
    def together(cls, parts: Iterable[Shards]) -> Shards:
        return cls([path for part in parts for path in part.files])

    def __len__(self) -> int:
        return len(self.places)

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [self.heads[file]["examples"][i] for file, i, _ in self.places]

    @property
    def lengths(self) -> list[int]:
        return [entry["length"] for entry in self.entries]

    def __getitem__(self, i: int) -> Example:
        file, number, task = self.places[i]
        entry, tensor = self.heads[file]["examples"][number], lambda name: self._tensor(file, f"{number}.{name}")
        exchanges = []
        for turn, told in enumerate(entry["exchanges"]):
            mels = lambda side: [tensor(f"{turn}.{side}.{k}") for k in range(told[f"{side}_mels"])]  # noqa: E731, B023
            codes = tensor(f"{turn}.codes").long()
            exchanges.append(Exchange(told["question"], mels("question"), told["answer"], mels("answer"), codes))
        item = Item(entry["id"], entry["task"], exchanges, self.heads[file]["made"]["speech"])
        return as_task(Example(item, tensor("motion").long(), entry["task"], entry["emotion"]), task)

    def _tensor(self, file: int, name: str) -> Tensor:
        if file not in self._open:
            self._open[file] = safe_open(self.files[file], "pt")
        return self._open[file].get_tensor(name)

    def select(self, chosen: Iterable[tuple[int, str]]) -> Shards:
        """The examples at some indices, each under a task (``a2llm.mix``)."""
        new = Shards([], [(*self.places[i][:2], task) for i, task in chosen])
        new.files, new.heads, new._open = self.files, self.heads, self._open
        return new


def prepare_shards(
    samples: Samples, folder: Path, split: str, speech: SpeechTokenizer, rvq: MotionRVQ, config: BackboneConfig,
    size: int = SIZE,
) -> Shards:
    """Write what ``folder`` lacks of the shards of ``samples``, this process its share, and give all of them.

    ValueError where shards of another tokenizer, or of other samples, lie there.
    """
    made = dict(speech=speech.identity, motion=rvq.identity, n_mels=config.n_mels, piece=config.piece, size=size,
                samples=len(samples))  # fmt: skip
    count = -(-len(samples) // size)
    files = [folder / f"{split}-{number:05d}-of-{count:05d}.safetensors" for number in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    rank, processes = place()
    own = range(rank, count, processes)
    progress = Progress(f"preparing {split}", len(own))
    with together():
        for done, number in enumerate(own):
            if not files[number].exists():
                part = [samples[i] for i in range(number * size, min((number + 1) * size, len(samples)))]
                _write(files[number], part, speech, rvq, config, made)
            progress.update(done + 1)
    shards = Shards(files)
    for path, head in zip(files, shards.heads):
        if head["made"] != made:
            raise ValueError(f"{path}: was made of other samples or by other tokenizers; delete {folder} to start anew")
    return shards


def _write(path: Path, samples: list[Sample], speech, rvq: MotionRVQ, config: BackboneConfig, made: dict) -> None:
    tensors, entries = {}, []
    for number, sample in enumerate(samples):
        item = prepare_one(sample, speech, config)
        tensors[f"{number}.motion"] = example_of(item, torch.from_numpy(sample.motion), rvq).codes.short()
        told = []
        for turn, e in enumerate(item.exchanges):
            tensors[f"{number}.{turn}.codes"] = e.codes.short()
            for side, mels in (("question", e.question_mels), ("answer", e.answer_mels)):
                tensors |= {f"{number}.{turn}.{side}.{k}": mel.half().contiguous() for k, mel in enumerate(mels)}
            told.append(dict(question=e.question, answer=e.answer, question_mels=len(e.question_mels),
                             answer_mels=len(e.answer_mels)))  # fmt: skip
        entries.append(dict(id=sample.id, task=sample.task, emotion=sample.emotion, high_dynamic=sample.high_dynamic,
                            length=item.length, exchanges=told))  # fmt: skip
    header = dict(made=json.dumps(made), examples=json.dumps(entries))
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(save(tensors, metadata=header))
    os.replace(partial, path)


def _head(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            return {name: json.loads(text) for name, text in file.metadata().items()}
    except (SafetensorError, OSError, AttributeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: is no shard of prepared examples ({reason}); delete it to make it again") from None
