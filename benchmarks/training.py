"""A training step of A2-LLM against the one that a user would write with transformers' Trainer and peft.

    python benchmarks/training.py --json      # one run, the contenders in turns; ratios are what counts

The shipped language model with LoRA and connector, on the shipped samples (four subtasks), batches of 16, bfloat16
where the processor has it. The Trainer's model computes the same losses plainly: all logits, transformers' own
cross-entropy over every position, the same connector, batches as its own sampler draws them; "grouped" lets it group
by length as well.
Each contender works in a process of its own, one thread each: ``tokens_per_second`` counts real positions of the
language model (no padding), medians over rounds, and ``tokens_per_cpu_second`` by the process's own time, which other
work on the machine does not lengthen. ``peak_mb`` are the tensors alive at once, weights included, in one
step on the same batch, the sixteen longest dialogues; ``process_mb`` is the process's own peak above what it held
before the first step (Linux only), with all that the allocator keeps and the kernels' scratch.
The floor is the matrix products alone, 4 FLOPs per frozen and 6 per trained weight and token, at the rate at which this
processor multiplies large matrices. ``logits`` compares one cross-entropy over the published vocabulary, whole and in
chunks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from full_size import LiveBytes
from torch import nn

from a2lite.a2llm import A2LLM, AvatarBatch, Example, examples_of, mixed
from a2lite.backbone import Backbone, align_tail
from a2lite.backbone.model import Batch, cross_entropies
from a2lite.backbone.tasks import prepare
from a2lite.config import load_config
from a2lite.connector import motion_loss
from a2lite.fit import native_bfloat16
from a2lite.flame_qa import load_samples
from a2lite.rvq import load as load_rvq
from a2lite.sizes import ROWS
from a2lite.speech import load as load_speech
from a2lite.training import Stage, train
from a2lite.workplace import SHIPPED

CONTENDERS, CHUNKS = ("a2lite", "Trainer", "Trainer, grouped"), ("whole", "chunks")
STEPS, WARM = 8, 4  # steps of a round; steps before the first
BATCH = 16


def load_all(lora: bool = True) -> tuple[A2LLM, list[Example]]:
    os.environ["A2LITE_QUIET"] = "1"
    config = load_config("laptop").override(training=dict(batch=BATCH))
    backbone, rvq = Backbone.load(SHIPPED / "backbone.safetensors"), load_rvq(SHIPPED / "rvq.safetensors")
    speech = load_speech(SHIPPED / "speech.safetensors")
    samples = [s for split in ("train", "train_read") for s in load_samples("tiny", split)]
    examples = examples_of(prepare(samples, speech, backbone.config), [s.motion for s in samples], rvq)
    torch.manual_seed(0)
    return A2LLM(config, backbone, rvq, lora), 4 * mixed(examples)


def positions(batch: Batch) -> int:
    """Real positions: those up to the last label of each row, which ends the turn."""
    places = torch.arange(batch.labels.shape[1]) * (batch.labels >= 0)
    return int((places.max(1).values + 1).sum())


class Turns:
    """Waits for its turn before every round, and tells how long the round before took and how many tokens it had."""

    def __init__(self):
        self.step, self.tokens, self.start, self.out = 0, 0, (0.0, 0.0), sys.stdout

    def begin(self) -> None:
        if self.step >= WARM and (self.step - WARM) % STEPS == 0:
            if self.step > WARM:
                clock, work = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
                print(clock, work, self.tokens, file=self.out, flush=True)
            else:
                print("ready", file=self.out, flush=True)
            sys.stdin.readline()
            self.start, self.tokens = (time.perf_counter(), time.process_time()), 0
        self.step += 1

    def saw(self, batch: AvatarBatch) -> None:
        self.tokens += positions(batch.sequence)


# ---------------------------------------------------------------- the contenders


def ours(rounds: int, turns: Turns) -> None:
    model, examples = load_all()
    collate = model.collate

    def watched(*args) -> AvatarBatch:
        turns.begin()
        batch = collate(args[0])  # no augmentation, which the other one does not have
        turns.saw(batch)
        return batch

    model.collate = watched
    turns.before, turns.model, turns.loss = restart_peak(), model, model.loss
    turns.longest = collate(longest(examples))
    train(model, [Stage("benchmark", WARM + rounds * STEPS + 1, examples)])


class Plain(nn.Module):
    """A2-LLM's losses as one writes them with transformers: all logits at once."""

    def __init__(self, model: A2LLM):
        from peft import LoraConfig, get_peft_model

        super().__init__()
        c, self.motion_weight = model.config.lora, model.config.training.motion_weight
        self.backbone, self.connector, self.group = model.backbone, model.connector, model.rvq.config.group
        adapter = LoraConfig(r=c.rank, lora_alpha=c.alpha, lora_dropout=c.dropout, target_modules=list(c.targets))
        self.backbone.lm = get_peft_model(model.backbone.lm, adapter)

    def forward(self, batch: AvatarBatch) -> dict[str, torch.Tensor]:
        sequence = batch.sequence
        embedded = self.backbone.embed(sequence)
        out = self.backbone.lm(inputs_embeds=embedded, labels=sequence.labels, output_hidden_states=True)
        hidden = self.backbone.audio_hidden(sequence, self.backbone.read(out.hidden_states))
        rows = nn.utils.rnn.pad_sequence([align_tail(h, self.group) for h in hidden], True)
        motion = motion_loss(self.connector(rows, batch.codes, batch.lengths), batch.codes, batch.lengths)
        return {"loss": out.loss + self.motion_weight * motion["motion"]}


def theirs(rounds: int, turns: Turns, grouped: bool) -> None:
    import transformers

    plain, examples = load_all(lora=False)
    model = Plain(plain).requires_grad_(False)
    for name, p in model.named_parameters():
        p.requires_grad_("lora_" in name or name.startswith("connector."))

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return len(examples)

        def __getitem__(self, i):
            return {"example": examples[i], "input_ids": [0] * examples[i].item.length}  # by which it groups

    def collate(rows):
        turns.begin()
        batch = plain.collate([row["example"] for row in rows])
        turns.saw(batch)
        return {"batch": batch}

    sampling = dict(train_sampling_strategy="group_by_length") if grouped else {}
    with tempfile.TemporaryDirectory() as folder:
        args = transformers.TrainingArguments(
            folder, per_device_train_batch_size=BATCH, max_steps=WARM + rounds * STEPS + 1, learning_rate=1e-3,
            bf16=native_bfloat16(torch.device("cpu")), use_cpu=True, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, remove_unused_columns=False, dataloader_drop_last=True,
            **sampling,
        )  # fmt: skip
        trainer = transformers.Trainer(model, args, train_dataset=Data(), data_collator=collate)
        turns.before, turns.model, turns.loss = restart_peak(), model, model
        turns.longest = plain.collate(longest(examples))
        trainer.train()


# ---------------------------------------------------------------- what nobody can beat, and one loss alone


def multiply_rate(size: int = 1024) -> float:
    """FLOPs per second of one thread at large products, in the format that the contenders use."""
    dtype = torch.bfloat16 if native_bfloat16(torch.device("cpu")) else torch.float32
    x, best = torch.randn(size, size).to(dtype), float("inf")
    for _ in range(20):
        start = time.perf_counter()
        x @ x
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def floor() -> float:
    """Tokens per second if a step were its matrix products alone."""
    torch.set_num_threads(1)
    model, _ = load_all()
    sizes = {p: p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n}
    head = model.backbone.lm.get_input_embeddings().weight  # tied: the last matrix
    frozen = head.numel() + sum(n for p, n in sizes.items() if not p.requires_grad and p is not head)
    lora = sum(p.numel() for p in model.lora_parameters())
    return multiply_rate() / (4 * frozen + 6 * lora)


def logits(name: str, positions: int = 2048, width: int = 256) -> None:
    """Cross-entropy of ``positions`` labels over the published vocabulary, forward and backward; one round."""
    head = nn.Linear(width, ROWS, bias=False).requires_grad_(False)
    last, target = torch.randn(positions, width, requires_grad=True), torch.randint(ROWS, (positions,))
    print("ready", flush=True)
    sys.stdin.readline()
    before, start = restart_peak(), (time.perf_counter(), time.process_time())
    cross_entropies(head, last, target, *([10**12] if name == "whole" else [])).mean().backward()
    print(time.perf_counter() - start[0], time.process_time() - start[1], positions, flush=True)
    sys.stdin.readline()
    with LiveBytes([head.weight, last]) as live:
        cross_entropies(head, last, target, *([10**12] if name == "whole" else [])).mean().backward()
    print(resident("VmHWM") - before, live.peak / 2**20, flush=True)


# ---------------------------------------------------------------- a process for each


def work(name: str, rounds: int) -> None:
    torch.set_num_threads(1)
    if name in CHUNKS:
        return logits(name)
    turns = Turns()
    ours(rounds, turns) if name == "a2lite" else theirs(rounds, turns, grouped="grouped" in name)
    print(resident("VmHWM") - turns.before, alive(turns), flush=True)


def longest(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda example: example.item.length)[-BATCH:]


def alive(turns: Turns) -> float:
    """MB of tensors at the peak of a step on the longest dialogues."""
    model = turns.model.train()
    model.zero_grad()
    with LiveBytes([*model.parameters(), *model.buffers()]) as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bfloat16(torch.device("cpu"))):
            loss = turns.loss(turns.longest)["loss"]
        loss.backward()
    return live.peak / 2**20


def restart_peak() -> float:
    """Forget the peak that loading has left, which may hide a smaller one; MB held now."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(name: str) -> float:
    """VmRSS (now) or VmHWM (at most) of this process in MB; nan where there is no /proc."""
    if sys.platform != "linux":
        return float("nan")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":")]
    return int(line.split()[1]) / 1024


def heard(name: str, worker: subprocess.Popen) -> str:
    """The next line of a worker."""
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"{name}: its process ended early with code {worker.wait()}; what it said stands above")
    return line.strip()


def in_turns(names: Sequence[str], rounds: int) -> dict[str, dict]:
    """Contenders take turns, so that what else the machine does falls on all of them."""
    command = [sys.executable, __file__, "--rounds", str(rounds), "--work"]
    pipes = dict(text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ, A2LITE_QUIET="1"))
    workers = {name: subprocess.Popen([*command, name], **pipes) for name in names}
    for name, worker in workers.items():
        while heard(name, worker) != "ready":
            pass
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, worker in workers.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            clock, cpu, tokens = map(float, heard(name, worker).split())
            rates[name].append((tokens / clock, tokens / cpu))
    out = {}
    for name, worker in workers.items():
        worker.stdin.close()
        process, peak = map(float, worker.stdout.read().split()[-2:])  # after whatever a Trainer says at its end
        clock, cpu = np.median(rates[name], 0).round().tolist()
        rounds_of = [round(rate) for rate, _ in rates[name]]
        out[name] = dict(tokens_per_second=clock, tokens_per_cpu_second=cpu, rounds=rounds_of, peak_mb=round(peak),
                         process_mb=round(process))  # fmt: skip
        worker.wait()
    return out


def measure(rounds: int) -> dict:
    out = in_turns(CONTENDERS, rounds)
    mine = out["a2lite"]
    for name in CONTENDERS[1:]:
        out[f"times as fast as {name}"] = round(mine["tokens_per_second"] / out[name]["tokens_per_second"], 2)
        work = mine["tokens_per_cpu_second"] / out[name]["tokens_per_cpu_second"]
        out[f"times less processor time than {name}"] = round(work, 2)
        out[f"share of the peak of {name}"] = round(mine["peak_mb"] / out[name]["peak_mb"], 2)
        out[f"share of the process of {name}"] = round(mine["process_mb"] / out[name]["process_mb"], 2)
    out["share of the floor's speed"] = round(mine["tokens_per_cpu_second"] / floor(), 2)
    out["logits"] = in_turns(CHUNKS, 1)
    whole, chunks = (out["logits"][name]["peak_mb"] for name in CHUNKS)
    out["logits"]["share of the memory"] = round(chunks / whole, 2)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else on stdout")
    parser.add_argument("--work", choices=[*CONTENDERS, *CHUNKS], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work, args.rounds)
    found = measure(args.rounds)
    print(json.dumps(found, indent=None if args.json else 1))


if __name__ == "__main__":
    main()
