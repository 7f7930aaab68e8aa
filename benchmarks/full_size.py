"""A2-LLM at the paper's size on one GPU: a step of each stage, its speed and memory, beside what the plan says.

    python benchmarks/full_size.py --json                           # needs a CUDA GPU of 40 GB or more
    python benchmarks/full_size.py --examples 8 16 --without-checkpointing
    python benchmarks/full_size.py --size nano --device cpu         # a dry run of the very same code

Weights are random: they are made on the device, no checkpoint is needed, and nothing here says how good anything is.
The backbone is in bf16, LoRA and connector in float32 under autocast, as in training. Every stage is one step to warm
up, and the median of ``--rounds``. ``tokens_per_second`` counts LLM positions, padding included (there is none here);
MFU is (4 N_frozen + 6 N_trained + attention) x tokens/s / the card's peak, recomputing not counted, the connector's
weights once per motion token. Where it stays below ``--bar``, ``where`` says on which kernels the time goes.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from a2lite.a2llm import A2LLM, AvatarBatch
from a2lite.backbone import CONTROL, Backbone
from a2lite.backbone.encoder import patch_count
from a2lite.backbone.model import Batch
from a2lite.backbone.step_audio import CODES, ROWS
from a2lite.backbone.tokens import AUDIO_PER_TEXT, IGNORE
from a2lite.config import PROFILES, SIZES, Config, load_config
from a2lite.footprint import Shape, counts, memory, model_flops, more_flops
from a2lite.plan import Setup, compare
from a2lite.rvq import MotionRVQ
from a2lite.training import checkpoint_layers, optimizer_for, reset_lora

PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "RTX 4090": 165, "RTX 3090": 71}  # TFLOP/s, dense bf16
STAGES = ("stage 1", "stage 2", "stage 3")
GIB = 2**30


@dataclass(frozen=True)
class Ids:
    """A vocabulary's ids without its words: ``texts`` text tokens, the control tokens, ``codes`` audio tokens."""

    texts: int
    codes: int
    rows: int

    def __len__(self) -> int:
        return self.rows

    def __getattr__(self, name: str) -> int:
        for place, spelled in enumerate(CONTROL):
            if name == spelled.strip("<|>").lower():
                return self.texts + place
        raise AttributeError(name)

    @property
    def audio0(self) -> int:
        return self.texts + len(CONTROL)

    @property
    def audio_pad(self) -> int:
        return self.audio0 + self.codes

    def is_code(self, ids: Tensor) -> Tensor:
        return (ids >= self.audio0) & (ids < self.audio_pad)

    def is_audio(self, ids: Tensor) -> Tensor:
        return (ids >= self.audio0) | (ids == self.tts_pad)


def build(config: Config, device: torch.device, checkpointing: bool = True) -> A2LLM:
    """The whole model with random weights, made on ``device`` piece by piece."""
    b = config.backbone
    rows = ROWS if b.audio_codes == CODES else b.text_vocab + len(CONTROL) + b.audio_codes + 1
    with torch.device("meta"):
        model = A2LLM(config, Backbone(b, Ids(b.text_vocab, b.audio_codes, rows)), MotionRVQ(config.rvq))
        model.backbone.to(torch.bfloat16)
        for parameter in model.lora_parameters():
            parameter.data = parameter.data.float()
    model.to_empty(device=device)
    lm = model.backbone.lm
    lm.tie_weights()
    lm.model.rotary_emb = type(lm.model.rotary_emb)(lm.config).to(device)
    with torch.no_grad():
        for buffer in (*model.connector.buffers(), *model.rvq.buffers()):
            buffer.fill_(1)
        for module in model.modules():
            _fill(module)
    if checkpointing:
        checkpoint_layers(model)
    return model.train()


def _fill(module: nn.Module) -> None:
    """Matrices at random with std 0.02, norms at one, biases at zero."""
    norm = "Norm" in type(module).__name__
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim > 1:
            parameter.normal_(std=0.02)
        else:
            parameter.fill_(1.0 if norm and name == "weight" else 0.0)


def batch(config: Config, v: Ids, shape: Shape, seed: int = 0) -> AvatarBatch:
    """Examples at random, all of ``shape``: a prompt, what is heard, an answer of text and sound, and its motion."""
    draw = torch.Generator().manual_seed(seed)
    number = lambda high, *size: torch.randint(high, (shape.examples, *size), generator=draw)  # noqa: E731
    frames = next(n for n in range(100_000) if patch_count(n) == shape.heard and n > 4)
    codes, groups = shape.codes(config), shape.spoken(config) // (AUDIO_PER_TEXT + 1)
    sound = v.audio0 + number(v.codes, AUDIO_PER_TEXT * groups)
    sound[:, codes:] = v.audio_pad
    spoken = torch.cat([number(v.texts, groups, 1), sound.unflatten(1, (groups, AUDIO_PER_TEXT))], 2).flatten(1)
    heard = torch.full((shape.examples, shape.heard), v.audio_patch)
    ids = torch.cat([number(v.texts, shape.prompt), heard, spoken], 1)  # (B, L)
    labels = ids.clone()
    labels[:, : -spoken.shape[1]] = IGNORE
    audio = int(v.is_audio(spoken).sum())
    mine = torch.tensor([spoken.numel() - audio, audio], dtype=torch.float)
    tokens = shape.motions(config)
    mels = torch.randn(shape.examples, frames, config.backbone.n_mels, generator=draw)
    return AvatarBatch(
        sequence=Batch(ids, labels, mels, torch.full((shape.examples,), frames), mine),
        codes=number(config.rvq.codes, tokens, config.rvq.quantizers),
        lengths=torch.full((shape.examples,), tokens),
        emotions=torch.full((shape.examples,), -1),
        counts=torch.cat([mine, torch.tensor([float(shape.examples * tokens), 0.0])]),
    )


def step(model: A2LLM, optimizer: torch.optim.Optimizer, data: AvatarBatch) -> float:
    """One step of training as ``fit`` does it; the loss."""
    optimizer.zero_grad()
    with torch.autocast(model.backbone.device.type, torch.bfloat16):
        loss = model.loss(data)["loss"]
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    return float(loss.detach())


# ---------------------------------------------------------------- measuring


class LiveBytes(TorchDispatchMode):
    """Inside, ``peak`` follows the bytes of all tensors that are alive at once; those of ``known`` from the start."""

    def __init__(self, known: Sequence[Tensor] = ()):
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0
        for tensor in known:
            self._see(tensor)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live:
            return
        self.live[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.live.pop(key)


def peak_gib(model: A2LLM, optimizer: torch.optim.Optimizer, data: AvatarBatch) -> dict[str, float]:
    """The peak of one step: what the allocator says on CUDA, every live tensor counted on a processor."""
    device = model.backbone.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step(model, optimizer, data)
        allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return dict(peak_gib=allocated / GIB, reserved_gib=reserved / GIB)
    optimizer.zero_grad()
    moments = [x for state in optimizer.state.values() for x in state.values()]
    with LiveBytes([*model.parameters(), *model.buffers(), *moments]) as live:
        step(model, optimizer, data)
    return dict(peak_gib=live.peak / GIB)


def seconds(device: torch.device, work: Callable[[], Any], rounds: int) -> float:
    """The median time of ``work``, from one idle moment of the device to the next."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    found = []
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        work()
        wait()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def where(device: torch.device, work: Callable[[], Any], rows: int = 15) -> dict:
    """On what the time of ``work`` goes: kernels on CUDA, operators on a processor, as shares of the clock."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
        clock = 1e6 * seconds(device, work, 1)
    kind = DeviceType.CUDA if cuda else DeviceType.CPU
    spent = [
        (e.self_device_time_total if cuda else e.self_cpu_time_total, e.key, e.count)
        for e in seen.key_averages() if e.device_type == kind
    ]  # fmt: skip
    spent.sort(reverse=True)
    busy = sum(t for t, _, _ in spent)
    top = [dict(name=name[:80], share=round(t / clock, 4), calls=calls) for t, name, calls in spent[:rows]]
    return dict(busy=round(busy / clock, 3), top=top)


def peak_tflops(device: torch.device, given: float | None) -> float | None:
    """The card's peak by its name, or as given; None on a processor."""
    if given is not None or device.type != "cuda":
        return given
    name = torch.cuda.get_device_name(device)
    for known, value in PEAKS.items():
        if known in name:
            return value
    raise ValueError(f"{name}: not in the table of peaks ({', '.join(PEAKS)}); give --peak TFLOP/s")


def measure(config: Config, shape: Shape, device: torch.device, checkpointing: bool, rounds: int, tflops: float | None,
            bar: float) -> dict:  # fmt: skip
    """The three stages at one shape, and the plan beside them."""
    n = counts(config)
    model = build(config, device, checkpointing)
    optimizer = optimizer_for(model)
    flops, positions = model_flops(config, n, shape), shape.examples * shape.length(config)
    sizes = memory(config, n, shape, checkpointing=checkpointing, cpu=device.type == "cpu")
    planned = dict(gpus=1, peak_gib=sizes["peak"] / GIB)
    if tflops:
        whole = flops + more_flops(config, n, shape, checkpointing)
        planned["tokens_per_second"] = Setup.utilisation * 1e12 * tflops * positions / whole
    out: dict[str, Any] = dict(shape=asdict(shape), checkpointing=checkpointing, positions=positions,
                               gflops_per_position=flops / positions / 1e9)  # fmt: skip
    for number, stage in enumerate(STAGES):
        data = batch(config, model.backbone.vocabulary, shape, number).to(device)
        if number == 1:
            reset_lora(model, optimizer)
        work = lambda: step(model, optimizer, data)  # noqa: E731, B023
        first = work()
        took = seconds(device, work, rounds)
        row = dict(first_loss=first, seconds=took, tokens_per_second=positions / took, gpus=1, stage=stage,
                   **peak_gib(model, optimizer, data))  # fmt: skip
        row["plan"] = compare(planned, {name: row[name] for name in planned})
        if tflops:
            row["mfu"] = flops * row["tokens_per_second"] / positions / (1e12 * tflops)
            if row["mfu"] < bar:
                row["where"] = where(device, work)
        out[stage] = row
    out["plan_gib"] = {name: size / GIB for name, size in sizes.items()}
    return out


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="a100", choices=PROFILES)
    parser.add_argument("--size", choices=[name for name in SIZES if name], help="shrunk, for a dry run")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--examples", type=int, nargs="+", default=[Shape.examples], help="in one forward pass")
    parser.add_argument("--question", type=float, default=Shape.question, help="seconds")
    parser.add_argument("--answer", type=float, default=Shape.answer, help="seconds")
    parser.add_argument("--without-checkpointing", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", type=float, help="the device's TFLOP/s in bf16, where its name does not tell")
    parser.add_argument("--bar", type=float, default=0.35, help="an MFU below is explained by a profile")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else on stdout")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("full_size: no CUDA GPU here; --size nano --device cpu is the dry run", file=sys.stderr)
        return 2
    config, tflops = load_config(args.profile, args.size), peak_tflops(device, args.peak)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    found: dict[str, Any] = dict(device=name, peak_tflops=tflops, torch=torch.__version__, runs=[])
    torch.manual_seed(0)
    for examples in args.examples:
        shape = Shape(examples, args.question, args.answer)
        try:
            run = measure(config, shape, device, not args.without_checkpointing, args.rounds, tflops, args.bar)
        except torch.OutOfMemoryError as error:
            run = dict(shape=asdict(shape), out_of_memory=str(error).splitlines()[0])
        found["runs"].append(run)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(json.dumps(found, indent=None if args.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
