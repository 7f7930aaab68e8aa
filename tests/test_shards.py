"""Examples on disk are those in memory, whatever the shards' size, and are made once."""

import pytest
import torch

from a2lite.a2llm import examples_of, mix, mixed
from a2lite.backbone.tasks import prepare
from a2lite.config import load_config
from a2lite.flame_qa import load_samples
from a2lite.rvq import MotionRVQ
from a2lite.shards import Shards, prepare_shards
from a2lite.training import lengths_of

CONFIG = load_config("tiny", size="nano")


@pytest.fixture(scope="module")
def samples():
    every = load_samples("tiny", "train")
    turns = [i for i, history in enumerate(every.column("history")) if history]
    return every.select([0, *turns[:1], 3, 4, 5])


class Hash:
    """As much of a speech tokenizer as preparing asks for: a code for every 640 samples."""

    identity = "hash"

    def encode(self, wave):
        return (1000 * wave.unfold(1, 640, 640).abs().sum(-1)).long() % 64


@pytest.fixture(scope="module")
def rvq():
    torch.manual_seed(0)
    return MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58)).eval()


def write(samples, folder, rvq, size=2):
    return prepare_shards(samples, folder, "train", Hash(), rvq, CONFIG.backbone, size)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_shards_hold_the_examples_that_memory_would(samples, rvq, tmp_path, size):
    shards = write(samples, tmp_path, rvq, size)
    wanted = examples_of(prepare(samples, Hash(), CONFIG.backbone), [s.motion for s in samples], rvq)
    assert len(shards) == len(wanted) == 5 and lengths_of(shards) == lengths_of(wanted)
    for found, example in zip(shards, wanted, strict=True):
        assert (found.item.id, found.item.task, found.task) == (example.item.id, example.item.task, example.task)
        assert torch.equal(found.codes, example.codes)
        for ours, theirs in zip(found.item.exchanges, example.item.exchanges, strict=True):
            assert (ours.question, ours.answer) == (theirs.question, theirs.answer)
            assert torch.equal(ours.codes, theirs.codes)
            for side in ("question_mels", "answer_mels"):
                for a, b in zip(getattr(ours, side), getattr(theirs, side), strict=True):
                    assert torch.equal(a, b)
    assert [entry["emotion"] for entry in shards.entries] == samples.column("emotion")


def test_the_mix_of_tasks_is_the_same_on_disk_and_in_memory(samples, rvq, tmp_path):
    shards = write(samples, tmp_path, rvq)
    chosen = shards.select(mix([entry["task"] for entry in shards.entries]))
    wanted = mixed(list(shards))
    assert [(e.item.id, e.task, e.codes is None) for e in chosen] == [
        (e.item.id, e.task, e.codes is None) for e in wanted
    ]


def test_a_shard_that_is_there_is_not_made_again(samples, rvq, tmp_path):
    write(samples, tmp_path, rvq)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "train-00001-of-00003.safetensors").unlink()
    write(samples, tmp_path, rvq)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(before) == set(after) and sum(before[name] != after[name] for name in before) == 1


def test_shards_of_another_tokenizer_or_torn_ones_are_named_in_one_line(samples, rvq, tmp_path):
    write(samples, tmp_path, rvq)
    torch.manual_seed(1)
    other = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58)).eval()
    with pytest.raises(ValueError, match="train-00000-of-00003.safetensors: was made of other samples or by other"):
        write(samples, tmp_path, other)
    (tmp_path / "train-00002-of-00003.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="train-00002-of-00003.safetensors: is no shard .*delete it") as caught:
        Shards([tmp_path / "train-00002-of-00003.safetensors"])
    assert "\n" not in str(caught.value)


def test_motion_is_read_without_sound(samples):
    for some in (samples, samples.select([4, 0, 3, 0])):
        for motion, sample in zip(some.motions(), some, strict=True):
            assert (motion == sample.motion).all()
