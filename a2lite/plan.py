"""What a training run will take, before it is started: ``python -m a2lite plan --profile a100 --gpus 8``.

Memory of one GPU, hours and cost of the stages, which batch fits on which card, and what one 24-GB card can answer with
(``footprint.py`` has the formulas). ``--compare run/`` sets beside it what a run measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from a2lite.backbone.step_audio import CODES
from a2lite.config import PROFILES, SIZES, Config, load_config
from a2lite.footprint import Counts, Shape, counts, memory, model_flops, more_flops, rvq_bytes

GIB = 2**30
CONTEXT = 1.0  # GiB of CUDA, cuBLAS and NCCL; an assumption
SLACK = 1.08  # what PyTorch's allocator holds over what is allocated; an assumption
USABLE = 0.985  # GiB that can be had of a card's nominal GB
DIALOGUES = 100_000  # Sec. 4: about as many, whose answers the motion tokens are learned from
TOKEN2WAV = 4 * (155_802_352 + 20_821_295) + 2_240_000_000  # Step-Audio 2's flow and HiFT, with their caches
WIDTHS = {"bf16": 2.0, "int8": 1.0, "nf4": 0.5 + 4 / 64}  # bytes per matrix weight; nf4's scales: one in 64
MEASURES = ("peak_gib", "tokens_per_second")


@dataclass(frozen=True)
class Card:
    """A GPU: GB of memory, dense bf16 TFLOP/s, GB/s of memory, and what an hour is assumed to cost in $."""

    memory: float
    tflops: float
    bandwidth: float
    price: float
    name: str = ""


CARDS = {
    "a100": Card(80, 312, 2039, 2.0, "A100"),
    "h100": Card(80, 989, 3350, 3.0, "H100"),
    "h200": Card(141, 989, 4800, 4.0, "H200"),
}
SMALL = Card(24, 71, 936, 0.3)  # an RTX 3090


@dataclass(frozen=True)
class Setup:
    """On what it runs. ``utilisation`` is the share of the card's peak at which it computes, recomputing included."""

    gpus: int = 1
    card: Card = CARDS["a100"]
    fsdp: bool = False
    checkpointing: bool = True
    utilisation: float = 0.45  # an assumption, until a full-size run has been measured

    def __post_init__(self):
        for name, value in (("gpus", self.gpus), ("memory", self.card.memory), ("price", self.card.price)):
            if not isinstance(value, int | float) or value < (1 if name == "gpus" else 0) or not value < float("inf"):
                raise ValueError(f"{name} {value}: expected {'at least 1' if name == 'gpus' else 'a positive number'}")
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation {self.utilisation}: expected a share of the peak, above 0 and at most 1")


def on_card(allocated: float) -> float:
    """GiB that a card must have for bytes allocated at the peak."""
    return SLACK * allocated / GIB + CONTEXT


def largest(config: Config, n: Counts, shape: Shape, setup: Setup) -> int:
    """The most examples that fit in one forward pass; 0 where not even one does."""
    room = USABLE * setup.card.memory

    def fits(examples: int) -> bool:
        parts = memory(config, n, replace(shape, examples=examples), setup.gpus, setup.fsdp, setup.checkpointing)
        return on_card(parts["peak"]) <= room

    low, high = 0, 1
    while fits(high) and high < 2048:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def estimate(config: Config, setup: Setup | None = None, shape: Shape | None = None, part: int | None = None) -> dict:
    """Memory, speed, hours and cost of training with ``config``, as one JSON-able object.

    ``shape`` says how long the examples are; how many go through a GPU at once is its share of the batch, in parts of
    ``part`` (``config.training.part``) if it is given, as ``train`` does it. ``peak_gib`` is what
    ``torch.cuda.max_memory_allocated`` should say, ``tokens_per_second`` the LLM positions of all GPUs, ``spared`` the
    share of the work that checkpointing costs where memory would do without it. ValueError where it cannot be.
    """
    setup = setup or Setup(checkpointing=config.training.gradient_checkpointing)
    n, batch = counts(config), config.training.batch
    share = -(-batch // setup.gpus)
    if setup.gpus > batch:
        raise ValueError(f"gpus {setup.gpus}: a batch of {batch} has not one example for each; use at most {batch}")
    shape = shape or Shape()
    if min(shape.question, shape.answer) <= 0 or shape.prompt < 0:
        raise ValueError(f"question {shape.question} s, answer {shape.answer} s: expected more than 0 of each")
    part = config.training.part if part is None else part
    if part is not None and part < 1:
        raise ValueError(f"part {part}: expected at least 1 example at once")
    most = largest(config, n, shape, setup)
    examples = min(part or share, share)
    shape = replace(shape, examples=examples)
    parts = memory(config, n, shape, setup.gpus, setup.fsdp, setup.checkpointing)
    if most < examples:
        tried = examples if most else 1
        least = memory(config, n, replace(shape, examples=tried), setup.gpus, setup.fsdp, setup.checkpointing)["peak"]
        need = f"{tried} example{'s' * (tried > 1)} at once need{'s' * (tried == 1)} {on_card(least):.1f} GiB of a GPU"
        remedy = f"--part {most} fits" if most else "--fsdp on several, or a larger card"
        raise ValueError(f"{setup.card.memory:g} GB: {need}; {remedy}")
    work, more = model_flops(config, n, shape), more_flops(config, n, shape, setup.checkpointing)
    positions, spared = examples * shape.length(config), 0.0
    if setup.checkpointing and examples <= largest(config, n, shape, replace(setup, checkpointing=False)):
        spared = 1 - (work + more_flops(config, n, shape, False)) / (work + more)
    speed = setup.gpus * setup.utilisation * setup.card.tflops * 1e12 * positions / (work + more)
    return dict(
        profile=config.profile, size=config.size, gpus=setup.gpus, stage="any", card=asdict(setup.card),
        sharding="FSDP" if setup.fsdp else "DDP", checkpointing=setup.checkpointing, shape=asdict(shape), spared=spared,
        positions=shape.length(config), batch=batch, memory_gib={name: size / GIB for name, size in parts.items()},
        peak_gib=parts["peak"] / GIB, card_gib=on_card(parts["peak"]), largest=most, tokens_per_second=speed,
        utilisation=setup.utilisation, mfu=setup.utilisation * work / (work + more),
        flops_per_position=work / positions, stages=_stages(config, setup, shape, speed),
    )  # fmt: skip


def _stages(config: Config, setup: Setup, shape: Shape, speed: float) -> list[dict]:
    """Steps, hours and cost of the motion tokenizer and of the three stages; where the numbers of steps come from."""
    t, r = config.training, config.rvq
    clips = -(-r.batch // setup.gpus)
    frames = DIALOGUES * shape.codes(config)
    tokens = r.lite_steps or max(1, r.epochs * frames // (r.batch * r.crop))
    moved = 4 * rvq_bytes(config, clips) / (1e9 * setup.card.bandwidth) + 0.02  # read and written twice; launches
    each = t.batch * shape.length(config) / speed
    said = ["paper: 6 epochs, batch 512", "open", "open; paper: significantly fewer", "open; paper: about 1k samples"]
    if config.profile != "a100" or config.size:
        said = ["of this profile"] * 4
    steps = (tokens, t.stage1_steps, t.stage2_steps, t.stage3_steps)
    names = ("motion tokens", "stage 1", "stage 2", "stage 3")
    rows = list(zip(names, steps, (moved, each, each, each), said))
    hours = [steps * seconds / 3600 for _, steps, seconds, _ in rows]
    return [
        dict(name=name, steps=steps, source=source, hours=h, gpu_hours=setup.gpus * h,
             dollars=setup.gpus * h * setup.card.price)
        for (name, steps, _, source), h in zip(rows, hours)
    ]  # fmt: skip


def cards(config: Config, shape: Shape) -> list[dict]:
    """How many examples fit at once on cards of 40 and 80 GB, one and eight of them, with checkpointing and without."""
    n, rows = counts(config), []
    for size in (40, 80):
        for gpus, fsdp in ((1, False), (8, False), (8, True)):
            setup = Setup(gpus, replace(CARDS["a100"], memory=size), fsdp)
            without = largest(config, n, shape, replace(setup, checkpointing=False))
            most, clips = largest(config, n, shape, setup), -(-config.rvq.batch // gpus)
            rows.append(dict(gpus=gpus, memory=size, sharding="FSDP" if fsdp else "DDP", checkpointing=most,
                             without=without, rvq_gib=on_card(rvq_bytes(config, clips))))  # fmt: skip
    return rows


def inference(config: Config, card: Card = SMALL) -> list[dict]:
    """Answering on one card: GiB at 1k, 4k and 16k positions, and the least share of real time that memory allows.

    What transformers quantises is the decoder's matrices; LoRA then stays beside them, in bf16 it is merged.
    """
    n, b = counts(config), config.backbone
    per_position = 2 * 2 * b.layers * b.kv_heads * (b.hidden // b.heads)
    voice = TOKEN2WAV if b.audio_codes == CODES else 0
    inner = n.matrices - n.head
    steps = config.audio.token_rate * 1.25  # LLM positions per second of answer
    rows = []
    for kind, width in WIDTHS.items():
        matrices, beside = width * inner, 4 * n.lora if width < 2 else 0
        whole = matrices + 2 * (n.layers - inner + n.rest) + beside + 4 * (n.connector + n.rvq) + 6 * n.rows + voice
        sizes = {f"{k}k": on_card(whole + per_position * 1024 * k) for k in (1, 4, 16)}
        read = matrices + 2 * n.head + beside + per_position * 4096
        rows.append(dict(weights=kind, gib=sizes, kv_bytes=per_position, fits={
            k: size <= USABLE * card.memory for k, size in sizes.items()
        }, real_time=steps * read / (1e9 * card.bandwidth)))  # fmt: skip
    return rows


# ---------------------------------------------------------------- afterwards


def compare(planned: Mapping[str, Any], measured: Mapping[str, Any]) -> list[dict]:
    """What was measured beside what was planned: rows of ``name, planned, measured, ratio`` (measured / planned).

    ``measured`` is ``{"peak_gib", "tokens_per_second", "gpus", "stage"}``: the allocator's peak of the fullest GPU, LLM
    positions per second over all of them. ValueError where the two are of different numbers of GPUs or share no figure.
    """
    if "gpus" not in planned:
        raise ValueError(f"plan {dict(planned)}: expected what estimate gives")
    if measured.get("gpus", planned["gpus"]) != planned["gpus"]:
        raise ValueError(f"measured on {measured['gpus']} GPUs, planned for {planned['gpus']}: plan for as many")
    both = [name for name in MEASURES if None not in (planned.get(name), measured.get(name))]
    rows = [(name, planned[name], measured[name]) for name in both]
    if not rows or any(not isinstance(value, int | float) or value <= 0 for _, *values in rows for value in values):
        raise ValueError(f"measured {dict(measured)}: expected {' or '.join(MEASURES)}, numbers above 0")
    return [dict(name=name, planned=plan, measured=value, ratio=value / plan) for name, plan, value in rows]


def read_measured(path: Path) -> tuple[dict, dict | None]:
    """What a run wrote: measured.json, and the plan.json beside it where there is one; or a file of the former."""
    folder = path if path.is_dir() else path.parent
    plan = folder / "plan.json"
    return _json(path / "measured.json" if path.is_dir() else path), _json(plan) if plan.is_file() else None


def _json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected what a training run writes beside its checkpoint")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds a {type(found).__name__}; expected an object")
    return found


# ---------------------------------------------------------------- as a table


def table(found: Mapping[str, Any], fits: Sequence[dict], answers: Sequence[dict]) -> str:
    """The plan for a person."""
    shape, card, memories = found["shape"], found["card"], found["memory_gib"]
    how = "gradient checkpointing" if found["checkpointing"] else "no gradient checkpointing"
    size = f", size {found['size']}" if found["size"] else ""
    unit, times = ("GiB", 1) if found["peak_gib"] >= 1 else ("MiB", 1024)
    lines = [
        f"Profile {found['profile']}{size} on {found['gpus']} x {card['name']} {card['memory']:g} GB: "
        f"{found['sharding']}, bf16, {how}",
        f"{shape['question']:g} s asked, {shape['answer']:g} s answered: {found['positions']} LLM positions an example;"
        f" {found['batch']} examples a step, {shape['examples']} in a GPU at once",
        "",
        f"memory of one GPU         {unit}",
    ]
    for name, gib in memories.items():
        widest = "   only the widest of the three counts" if name == "loss and connector" else ""
        lines.append(f"  {name:20} {gib * times:8.2f}{widest}")
    lines += [
        f"  {'to have on the card':20} {found['card_gib'] * times:8.2f}   x {SLACK}, + {CONTEXT:g} GiB: assumed", "",
        f"training                steps     hours  GPU-hours         $   at {card['price']:g} $ an hour, assumed",
    ]
    for row in found["stages"]:
        numbers = f"{row['steps']:9,} {row['hours']:9.1f} {row['gpu_hours']:10.1f} {row['dollars']:9.0f}"
        lines.append(f"  {row['name']:17} {numbers}   {row['source']}")
    whole = [sum(row[key] for row in found["stages"]) for key in ("hours", "gpu_hours", "dollars")]
    lines += [
        f"  {'together':27} {whole[0]:9.1f} {whole[1]:10.1f} {whole[2]:9.0f}",
        f"  {found['tokens_per_second']:,.0f} LLM positions a second; {found['utilisation']:.0%} of the peak assumed, "
        f"recomputing included: MFU {found['mfu']:.0%}",
    ]  # fmt: skip
    if found["spared"]:
        lines.append(f"  memory would do without checkpointing, which costs {found['spared']:.0%} of the work")
    lines += ["", "examples at once        checkpointing   without   motion tokens, GiB"]
    for row in fits:
        name = f"{row['gpus']} x {row['memory']} GB, {row['sharding']}"
        most = [f"{'> ' if n > 999 else ''}{min(n, 999)}" if n else "-" for n in (row["checkpointing"], row["without"])]
        lines.append(f"  {name:22} {most[0]:>12} {most[1]:>9} {row['rvq_gib']:14.1f}")
    lines += ["", "answering on 24 GB     1k     4k    16k positions, GiB   least share of real time"]
    for row in answers:
        sizes = " ".join(f"{gib:5.1f}{' ' if row['fits'][k] else '!'}" for k, gib in row["gib"].items())
        lines.append(f"  {row['weights']:17} {sizes} {row['real_time']:32.2f}")
    last = "" if all(all(row["fits"].values()) for row in answers) else "! does not fit. "
    return "\n".join([*lines, f"  {last}All of it is an estimate: no run at full size has been measured yet."])


def main(argv: Sequence[str]) -> int:
    """``python -m a2lite plan [--profile a100] [--gpus 8] [--compare run/] [--json]``"""
    parser = argparse.ArgumentParser(prog="python -m a2lite plan", description=__doc__.split("\n\n")[0])
    parser.add_argument("--profile", choices=PROFILES, help="a100, or that of the run to compare")
    parser.add_argument("--size", choices=[name for name in SIZES if name], help="shrunk, for tests")
    parser.add_argument("--gpus", type=int, help="default 1; with --compare as many as the run had")
    parser.add_argument("--gpu", default="a100", choices=CARDS)
    parser.add_argument("--memory", type=float, help="GB of each; else the card's")
    parser.add_argument("--price", type=float, help="$ per GPU and hour; else a guess")
    parser.add_argument("--utilisation", type=float, default=Setup.utilisation, help="share of the peak, a guess")
    parser.add_argument("--fsdp", action="store_true", help="cut the decoder layers over the GPUs")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations")
    parser.add_argument("--part", type=int, help="examples in one forward pass of a GPU; else its whole share")
    parser.add_argument("--question", type=float, default=Shape.question, help="seconds")
    parser.add_argument("--answer", type=float, default=Shape.answer, help="seconds")
    parser.add_argument("--compare", type=Path, help="a run's folder, or its measured.json")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else on stdout")
    args = parser.parse_args(argv)
    measured, planned = read_measured(args.compare) if args.compare else ({}, None)
    if measured.get("device") == "cpu":
        raise ValueError(f"{args.compare}: was measured on a CPU; the plan is for GPUs")
    profile, size = args.profile or measured.get("profile", "a100"), args.size or measured.get("size")
    config, card = load_config(profile, size), CARDS[args.gpu]
    card = replace(card, memory=card.memory if args.memory is None else args.memory,
                   price=card.price if args.price is None else args.price)  # fmt: skip
    gpus = measured.get("gpus", 1) if args.gpus is None else args.gpus
    checkpointing = config.training.gradient_checkpointing and not args.no_checkpointing
    setup = Setup(gpus, card, args.fsdp, checkpointing, args.utilisation)
    shape = Shape(question=args.question, answer=args.answer)
    if args.compare:
        rows = compare(planned or estimate(config, setup, shape, args.part), measured)
        lines = [f"{'':20} {'planned':>12} {'measured':>12}   ratio"]
        lines += [f"{r['name']:20} {r['planned']:12,.2f} {r['measured']:12,.2f} {r['ratio']:7.2f}" for r in rows]
        print(json.dumps(rows) if args.json else "\n".join(lines))
        return 0
    found = estimate(config, setup, shape, args.part)
    fits, answers = cards(config, shape), inference(config)
    print(json.dumps(found | dict(cards=fits, inference=answers)) if args.json else table(found, fits, answers))
    return 0
