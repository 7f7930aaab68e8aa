"""Small training runs, the same in one process and in several: ``torchrun ... small_training.py FOLDER KIND ...``.

Nothing is drawn per process (no dropout), so that only rounding may differ.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file

from a2lite import fit, parallel, rvq
from a2lite.a2llm import A2LLM, Example, examples_of, mixed
from a2lite.backbone import Backbone, Vocabulary
from a2lite.backbone.tasks import Exchange, Item
from a2lite.config import Config, load_config
from a2lite.rvq import MotionRVQ
from a2lite.training import Stage, train

fit.native_bfloat16 = lambda device: False  # float32: bfloat16 would round what padding changes
TEXTS = ["the violin is here", "I lost the dinosaur", "we will look at it in the morning"]
SPOKEN = (7, 10, 13, 15, 31, 8)  # audio tokens of the answers
QUIET = dict(
    connector=dict(dropout=0.0, memory_dropout=0.0, code_replacement=0.0, segments=(2,), segment=2),
    lora=dict(dropout=0.0),
    rvq=dict(dropout=0.0, batch=8, crop=20, lite_steps=12),
)


def settings(**training) -> Config:
    training = dict(batch=5, lite_lora_lr=1e-2) | training
    return load_config("a100", size="nano").override(training=training, **QUIET)


def model_of(config: Config) -> A2LLM:
    torch.manual_seed(0)
    texts = [*TEXTS, "You are a helpful assistant.", "human", "assistant", "system"]
    vocabulary = Vocabulary.train(texts, config.backbone.text_vocab, config.backbone.audio_codes)
    backbone = Backbone(config.backbone, vocabulary)
    motion = MotionRVQ.from_statistics(config.rvq, torch.zeros(58), torch.ones(58)).eval()
    torch.nn.init.normal_(motion.quantizer.codebooks)
    return A2LLM(config, backbone, motion)


def examples_for(model: A2LLM) -> list[Example]:
    """Ragged dialogues, some without motion."""
    random, c = torch.Generator().manual_seed(0), model.config.backbone
    items, motions = [], []
    for i, tokens in enumerate(SPOKEN):
        question, answer = (torch.randn(50 + 30 * i, c.n_mels, generator=random) for _ in range(2))
        codes = torch.randint(c.audio_codes, (tokens,), generator=random)
        items.append(Item(f"e{i}", "AQAA", [Exchange(TEXTS[0], [question], TEXTS[i % 3], [answer], codes)]))
        motions.append(torch.randn(tokens, 58, generator=random))
    plain = examples_of(items, motions, model.rvq)
    return [*plain, *mixed(plain, asr_every=2)]


def run(kind: str, path: Path | None = None) -> tuple[dict[str, torch.Tensor], fit.Trace]:
    """Two stages with a reset between them, whose batches are "whole" or in "parts" (two for each of two processes); or
    "rvq".
    """
    if kind == "rvq":
        config, random = settings().rvq, torch.Generator().manual_seed(1)
        motions = [torch.randn(n, 58, generator=random).cumsum(0) for n in (30, 55, 80)]
        model, trace = rvq.train(config, motions, seed=3)
        return model.state_dict(), trace
    even = {"whole": dict(batch=4), "parts": dict(batch=4, part=1), "fsdp parts": dict(batch=4, part=1)}
    model = model_of(settings(**even.get(kind, {})))
    trace = train(model, stages_of(model), path, fsdp=kind in ("fsdp", "resumed", "fsdp parts"))
    return parallel.whole(model.state()), trace


def stages_of(model: A2LLM) -> list[Stage]:
    every = examples_for(model)
    return [Stage("first", 5, every), Stage("second", 4, every, reset_lora=True)]


def stopped_at(step: int, path: Path) -> None:
    """The run "ddp" in one process, interrupted when it evaluates after ``step`` steps."""
    model = model_of(settings())

    def stop(model):
        raise KeyboardInterrupt

    try:
        train(model, stages_of(model), path, evaluate=stop, evaluate_every=step)
    except KeyboardInterrupt:
        return
    raise AssertionError("nothing stopped it")


if __name__ == "__main__":
    PartialState(cpu=True)
    assert parallel.place()[1] == 2
    folder = Path(sys.argv[1])
    for kind in sys.argv[2:]:
        state, trace = run(kind, folder / f"{kind}.run")
        if parallel.place()[0] == 0:
            save_file({name: value.contiguous() for name, value in state.items()}, folder / f"{kind}.safetensors")
            torch.save(asdict(trace), folder / f"{kind}.trace")
    torch.distributed.destroy_process_group()
