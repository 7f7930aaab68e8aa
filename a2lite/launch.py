"""Training as a command: ``python -m a2lite train rvq | a2llm``, in one process, on many GPUs, on several machines.

    accelerate launch --multi_gpu --num_processes 8 --num_machines 1 --mixed_precision no --dynamo_backend no \\
        -m a2lite train a2llm --profile a100 --model-dir ... --data-dir ...

A notebook has touched the GPU by the time it trains, so it starts this command as a child (``launch``) and shows what
it prints. Stages and losses are those of ``training`` and ``rvq.training``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from a2lite import rvq
from a2lite.a2llm import A2LLM, AvatarBatch, mix
from a2lite.config import PROFILES
from a2lite.course.figures import write_json
from a2lite.fit import Trace, load_checkpoint
from a2lite.flame import Flame
from a2lite.flame_qa import Samples
from a2lite.parallel import gather
from a2lite.parallel import place as process
from a2lite.rvq import Geometry, MotionRVQ
from a2lite.shards import SIZE, Shards, prepare_shards
from a2lite.training import stage_ends, three_stages, train
from a2lite.workplace import Workplace

_ERROR = re.compile(r"(\[rank\d+\]: ?)?[\w.]+(Error|Exception): ")  # a traceback's last line
MODELS = {"rvq": "rvq.safetensors", "a2llm": "a2llm.safetensors"}


def training_samples(place: Workplace) -> dict[str, Samples]:
    """The questions (``train``) and, where there are any, the sentences to be read or repeated (``train_read``)."""
    read = any(place.data_folder.glob("train_read-*.parquet"))
    return {split: place.samples(split) for split in ("train", *(["train_read"] if read else []))}


def train_rvq(place: Workplace, seed: int = 0, log_with: str | None = None) -> tuple[MotionRVQ, Trace]:
    """The motion tokenizer on the motion of all training samples (App. B); written as the artefact rvq.safetensors."""
    path = fresh(place, "rvq")
    samples = training_samples(place).values()
    motions = [torch.from_numpy(motion).half() for part in samples for motion in part.motions()]  # as it is stored
    head, config = place.head(), place.config.rvq
    geometry = Geometry.of(Flame(head), head.regions, len(head.v_template), config)
    return rvq.train(config, motions, path, geometry, seed, place.device, log_with)


def prepared(place: Workplace, speech, motion: MotionRVQ, size: int = SIZE) -> dict[str, Shards]:
    """The training samples as shards of examples under ``artefacts/prepared``, made where they are missing."""
    folder = place.artefact_path("prepared")
    c = place.config.backbone
    return {split: prepare_shards(samples, folder, split, speech, motion, c, size)
            for split, samples in training_samples(place).items()}  # fmt: skip


def train_a2llm(place: Workplace, seed: int = 0, memory: dict[str, Any] | None = None, **options) -> Trace:
    """The three stages (Sec. 5.3) on prepared shards; written as the artefact a2llm.safetensors.

    ``memory`` overrides the fields of ``config.training`` that decide it: part, gradient_checkpointing. ``options`` are
    those of ``training.train``: ``fsdp``, ``log_with``, ``save_seconds``. ValueError where no training
    sample is ``high_dynamic``: those are what stage 3 trains on.
    """
    path = fresh(place, "a2llm")
    motion = place.rvq().to(place.device)
    every = Shards.together(prepared(place, place.speech(), motion).values())
    lively = [(i, entry["task"]) for i, entry in enumerate(every.entries) if entry["high_dynamic"]]
    if not lively:
        raise ValueError(f"{place.data_folder}: no training sample is high_dynamic; stage 3 has nothing to train on")
    torch.manual_seed(seed)
    config = place.config.override(training=memory or {})
    model = A2LLM(config, place.backbone(), motion).to(place.device)
    tasks = [entry["task"] for entry in every.entries]
    stages = three_stages(config.training, every.select(mix(tasks)), every.select(lively))
    meter = Meter(model.backbone.vocabulary.endoftext)
    trace = train(model, stages, path, seed=seed, watch=meter, **options)
    meter.write(place)
    model.save(path, half=False, trace=trace, stage_ends=stage_ends(stages))
    return trace


def fresh(place: Workplace, what: str) -> Path:
    """Where the trained model goes; ValueError where one lies, on which others may have been built."""
    path = place.artefact_path(MODELS[what])
    if path.exists():
        raise ValueError(f"{path}: is there already; move it away to train anew")
    return path


class Meter:
    """Positions of the language model, padding not counted, and the time they took: what ``plan --compare`` reads."""

    def __init__(self, padding: int):
        self.padding, self.positions, self.start = padding, 0, time.perf_counter()

    def __call__(self, batch: AvatarBatch) -> None:
        self.positions += int((batch.sequence.ids != self.padding).sum())

    def write(self, place: Workplace) -> None:
        """``measured.json`` in the run's folder; the memory is the fullest GPU's, and of this process on a CPU none."""
        rank, count = process()
        cuda = place.device.type == "cuda"
        found = torch.tensor([self.positions, torch.cuda.max_memory_allocated() if cuda else 0], dtype=torch.double)
        every = gather(found.to(place.device)[None])  # (processes, 2)
        speed = float(every[:, 0].sum()) / (time.perf_counter() - self.start)
        memory = dict(peak_gib=float(every[:, 1].max()) / 2**30) if cuda else {}
        if rank == 0:
            write_json(place.folder / "measured.json", dict(
                profile=place.profile, size=place.size or None, device=place.device.type, gpus=count, stage="all",
                tokens_per_second=speed, **memory,
            ))  # fmt: skip


# ---------------------------------------------------------------- as a child


def launch(place: Workplace, what: str, *more: str) -> Trace:
    """Train ``what`` in ``place.num_gpus`` processes of their own, and show what they print; returns the ``Trace``.

    Where a run has no GPU the processes share the CPU. Interrupted, they end their step and save. ChildProcessError
    with the line that says why where they fail, ValueError for more processes than GPUs.
    """
    count, there = place.num_gpus, torch.cuda.device_count() if place.device.type == "cuda" else 0
    if count < 1 or 0 < there < count:
        raise ValueError(f"num_gpus {count}: expected 1 to {there or 'as many processes as the CPU bears'}")
    starter = []  # one process is the child itself: accelerate's launcher would not pass an interrupt on to it
    if count > 1 and there:
        starter = ["-m", "accelerate.commands.launch", "--num_processes", str(count), "--num_machines", "1",
                   "--mixed_precision", "no", "--dynamo_backend", "no", "--multi_gpu"]  # fmt: skip
    elif count > 1:
        starter = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    given = [f"--{name.replace('_', '-')}={value}" for name, value in vars(place).items()
             if name in _PARAMETERS and value]  # fmt: skip
    command = [sys.executable, *starter, "-m", "a2lite", "train", what, *given, *more]
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
                             start_new_session=True)  # fmt: skip
    said: deque[str] = deque(maxlen=200)
    try:
        for line in child.stdout:
            said.append(line.rstrip())
            print(line, end="", flush=True)
        code = child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    if code:
        why = [line for line in said if line.startswith("a2lite:")] or [line for line in said if _ERROR.match(line)]
        raise ChildProcessError(f"training {what} in {count} processes: {why[0] if why else f'ended with {code}'}")
    return Trace(**load_checkpoint(place.artefact_path(MODELS[what]))[1]["trace"])


# ---------------------------------------------------------------- the command

_PARAMETERS = [f.name for f in fields(Workplace) if f.name not in ("profile", "num_gpus")] + ["profile"]


def main(argv: Sequence[str]) -> int:
    """``python -m a2lite train rvq|a2llm [--profile a100] [--model-dir ...] ...``"""
    parser = argparse.ArgumentParser(prog="python -m a2lite train", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=MODELS)
    parser.add_argument("--profile", default="tiny", choices=PROFILES)
    parser.add_argument("--size", default="", choices=["", "nano"], help="shrunk, for tests")
    parser.add_argument("--model-dir", default="", help="the folder of Step-Audio-2-mini")
    parser.add_argument("--flame-path", default="", help="a published FLAME file, in the place of the kit's head")
    parser.add_argument("--data-dir", default="", help="a folder of FLAME-QA samples (Parquet)")
    parser.add_argument("--output-dir", default="", help="where artefacts go and come from; else runs/<profile>")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fsdp", action="store_true", help="share the language model's layers among the processes")
    parser.add_argument("--log-with", choices=["tensorboard", "wandb"], help="write the curves there too")
    parser.add_argument("--save-seconds", type=float, default=600.0, help="how often a2llm saves all (default 600)")
    parser.add_argument("--part", type=int, help="examples in one forward pass of a process; else its whole share")
    parser.add_argument("--no-checkpointing", action="store_true", help="a fourth faster where the memory is there")
    args = parser.parse_args(argv)
    if args.what == "rvq" and (args.fsdp or args.part or args.no_checkpointing):
        raise ValueError("--fsdp, --part, --no-checkpointing: are for a2llm; the motion tokenizer needs none of them")
    if args.part is not None and args.part < 1:
        raise ValueError(f"--part {args.part}: expected at least 1 example")
    place = Workplace(**{name: getattr(args, name) for name in _PARAMETERS})
    if "WORLD_SIZE" in os.environ:
        PartialState(cpu=place.device.type == "cpu")
    if process()[0] > 0:  # the first one speaks for all; errors have their own stream
        sys.stdout = open(os.devnull, "w")
    try:
        _train(place, args)
    except torch.OutOfMemoryError as error:
        raise ValueError(f"out of GPU memory ({str(error).splitlines()[0]}); --part 1 or --fsdp need less, "
                         "python -m a2lite plan says what fits") from None  # fmt: skip
    if process()[1] > 1:
        torch.distributed.destroy_process_group()
    return 0


def _train(place: Workplace, args: argparse.Namespace) -> None:
    """What the arguments ask for. Of several processes one that fails ends at once: NCCL would wait for the others."""
    try:
        if args.what == "rvq":
            train_rvq(place, args.seed, args.log_with)
        else:
            memory = dict(part=args.part) | (dict(gradient_checkpointing=False) if args.no_checkpointing else {})
            options = dict(fsdp=args.fsdp, log_with=args.log_with, save_seconds=args.save_seconds)
            train_a2llm(place, args.seed, memory, **options)
    except (ValueError, OSError, ImportError) as error:
        if process()[1] == 1:
            raise
        sys.stderr.write(f"a2lite: {' '.join(str(error).split())}\n")  # in one piece, beside what the others say
        sys.stderr.flush()
        os._exit(2)
