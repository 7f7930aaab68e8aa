"""The one training loop of the kit, its progress line and its checkpoints.

Ground floor: every room that trains calls ``fit``. A batch is a pure function of the step number, and the
random state of a step is set from it, so that work resumed after a kill ends with the same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from a2lite import parallel

# ---------------------------------------------------------------- progress


class Progress:
    """One line that rewrites itself in a terminal or notebook, and is printed every ten seconds into a log."""

    def __init__(self, name: str, total: int):
        self.name, self.total = name, total
        self.start = self.last = time.perf_counter()
        self.first: int | None = None
        self.live = sys.stdout.isatty() or "ipykernel" in sys.modules
        self.quiet = os.environ.get("A2LITE_QUIET") == "1"

    def update(self, done: int, **values: float) -> None:
        """Say that ``done`` of ``total`` are done, with a few figures beside."""
        now = time.perf_counter()
        if self.first is None:
            self.first = done - 1
        if self.quiet or (done < self.total and now - self.last < (0.5 if self.live else 10.0)):
            return
        self.last = now
        rate = (done - self.first) / max(now - self.start, 1e-9)
        figures = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        left = _clock((self.total - done) / max(rate, 1e-9))
        line = f"{self.name}  {done}/{self.total}  {figures}  {rate:.1f}/s  {left} left"
        if done >= self.total:
            line = f"{self.name}  {done}/{self.total}  {figures}  in {_clock(now - self.start)}"
        end = "\n" if done >= self.total or not self.live else ""
        print(("\r" if self.live else "") + line.ljust(100), end=end, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(round(seconds)), 60)
    return f"{minutes}:{seconds:02d}"


# ---------------------------------------------------------------- the loop


@dataclass
class Trace:
    """What a training run reported: per key of the loss (or of the evaluation) its steps and values."""

    steps: dict[str, list[int]] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, step: int, **figures: float) -> None:
        for key, value in figures.items():
            self.steps.setdefault(key, []).append(step)
            self.values.setdefault(key, []).append(float(f"{float(value):.6g}"))


def adamw(model: nn.Module, lr: float, weight_decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; biases and norms (1-d) are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        dict(params=[p for p in parameters if p.ndim > 1], lr=lr, weight_decay=weight_decay),
        dict(params=[p for p in parameters if p.ndim <= 1], lr=lr, weight_decay=0.0),
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.98))


def schedule(step: int, steps: int, warmup: int = 50, floor: float = 0.05) -> float:
    """Linear warm-up to 1, then linear decay to ``floor``: the factor on every group's rate at ``step``."""
    warmup = min(warmup, max(1, steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    return 1 - (1 - floor) * (step - warmup) / max(1, steps - warmup)


def shuffled(lengths: Sequence[int], batch: int, seed: int = 0, window: int = 8) -> Callable[[int], list[int]]:
    """The indices of the batch of any step: endless shuffled passes over ``lengths``, like lengths together.

    Every ``window`` batches of a pass are sorted by length, cut, and visited in random order: little padding, and
    still a pure function of the step. A remainder smaller than a batch waits for another pass.
    """
    count = len(lengths)
    if count == 0:
        raise ValueError("shuffled: nothing to train on; expected at least one example")
    batch = min(batch, count)
    per_pass = count // batch

    def indices(step: int) -> list[int]:
        epoch, place = divmod(step, per_pass)
        random = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=random).tolist()
        start = place // window * window * batch
        pool = sorted(order[start : min(start + window * batch, per_pass * batch)], key=lambda i: lengths[i])
        turn = torch.randperm(len(pool) // batch, generator=random.manual_seed(seed + start + epoch))
        first = int(turn[place % window]) * batch
        return pool[first : first + batch]

    return indices


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], dict[str, Tensor]],
    batches: Callable[[int], Any],
    *,
    steps: int,
    lr: float | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    factor: Callable[[int], float] | None = None,
    before_step: Callable[[int], None] | None = None,
    name: str = "fit",
    path: Path | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    log_every: int | None = None,
    clip: float = 1.0,
    seed: int = 0,
    save_seconds: float = 60.0,
    bfloat16: bool = False,
    settings: Any = None,
    sharded: Sequence[nn.Module] = (),
    log_with: str | None = None,
) -> Trace:
    """Train ``model`` for ``steps`` steps of AdamW (or of ``optimizer``) on ``loss(model, batches(step))["loss"]``.

    With ``path``, the whole state goes to ``<path>.resume`` at least every ``save_seconds`` and when the run is
    interrupted or finished; a run with the same ``path`` goes on from there, until ``save_checkpoint`` to that path
    removes the file. ``settings`` (JSON-able) is whatever else decides the outcome: a file of other ones is refused.
    Ctrl-C or SIGTERM waits for the end of the step; another Ctrl-C does not, and then the last save stands.

    It trains where the model's parameters are, and moves the batches there. ``factor(step)`` scales every group's rate
    (``schedule`` by default); ``before_step(step)`` may change the model. The trace has some hundred points, or one
    every ``log_every`` steps. ``bfloat16`` multiplies in that format where
    the processor does so natively, about twice as fast; weights stay float32. Returns the ``Trace``.

    Several processes (``accelerate launch``) train as one: ``batches`` gives each its ``parallel.share``, as a list
    where it is to be taken in parts whose gradients add up. ``sharded`` modules are cut by FSDP; none means DDP.
    ``log_with`` names a tracker that accelerate knows ("tensorboard", "wandb"), which writes beside ``path``.
    """
    from accelerate import Accelerator, PartialState
    from accelerate.utils import send_to_device

    if log_with and not find_spec(log_with):
        raise ValueError(f"log_with {log_with!r}: is not installed; pip install {log_with}")
    device = next(model.parameters()).device
    where = dict(log_with=log_with, project_dir=str(path.parent if path else ".")) if log_with else {}
    PartialState(cpu=device.type == "cpu")  # connects the processes, where nobody has done so
    accelerator = Accelerator(device_placement=False, **where)
    quick = bfloat16 and native_bfloat16(device)
    optimizer = optimizer or adamw(model, lr)
    trained = parallel.spread(parallel.Step(model, loss), optimizer, sharded)
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    rates = [group["lr"] for group in optimizer.param_groups]
    resume = path.with_name(path.name + ".resume") if path else None
    run = f"{name}, {steps} steps, seed {seed}, settings {_digest(settings)}"
    log_every = log_every or max(1, steps // 100)
    trace, first = Trace(), 0
    if resume and accelerator.is_main_process:
        for left in resume.parent.glob(f"{resume.name}.*.partial"):  # by a kill while it was written
            left.unlink()
    if resume and resume.exists():
        first, rates, trace = _load_resume(resume, run, steps, model, optimizer)
    if resume and not parallel.same(first, device):
        raise ValueError(f"{resume}: is not what other processes see; put it where all machines read and write")
    if log_with:
        accelerator.init_trackers(path.stem if path else "a2lite")
    save = lambda: resume and _save_resume(resume, run, done, rates, trace, model, optimizer)  # noqa: E731
    progress, started, saved = Progress(name, steps), time.perf_counter() - trace.seconds, time.perf_counter()
    progress.quiet |= not accelerator.is_main_process
    done, sound, patience = first, True, _Patience()
    try:
        for step in range(first, steps):
            torch.manual_seed(seed * 1_000_003 + step + (parallel.place()[0] << 40))
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * (factor(step) if factor else schedule(step, steps))
            parts = batches(step)
            parts = send_to_device(parts if isinstance(parts, list) else [parts], device)
            sound = False
            if before_step:
                before_step(step)
            trained.train()
            optimizer.zero_grad()
            figures: dict[str, Tensor] = {}
            for left, part in reversed(list(enumerate(parallel.counted(parts)))):
                with parallel.without_sync(trained) if left else nullcontext():
                    with torch.autocast(device.type, torch.bfloat16, enabled=quick):
                        terms = trained(part)
                    terms["loss"].backward()
                figures = {key: value.detach().float() + figures.get(key, 0) for key, value in terms.items()}
            torch.nn.utils.clip_grad_norm_(weights, clip)
            optimizer.step()
            done, sound = step + 1, True
            due = time.perf_counter() - saved > save_seconds
            figures, stop, due = _together(figures, patience.asked, due)
            if not math.isfinite(figures["loss"]):
                raise ValueError(f"{name}: loss is {figures['loss']} at step {step}; lower the learning rate")
            last = step + 1 == steps
            if step % log_every == 0 or last:
                trace.add(step, **figures)
                accelerator.log(figures, step)
            if evaluate and (last or (evaluate_every and (step + 1) % evaluate_every == 0)):
                model.eval()
                with parallel.readable(trained):
                    trace.add(step, **evaluate(model))
            progress.update(step + 1, **figures)
            trace.seconds = time.perf_counter() - started
            if due:
                save()
                saved = time.perf_counter()
            if stop:
                raise KeyboardInterrupt
        if first < steps:  # until the caller has saved what it makes of the model
            save()
    except KeyboardInterrupt:
        if sound:
            save()
        raise
    finally:
        patience.over()
    for tracker in accelerator.trackers:
        tracker.finish()
    model.eval()
    return trace


def _together(figures: dict[str, Tensor], stop: bool, due: bool) -> tuple[dict[str, float], bool, bool]:
    """The figures' means over all processes, and whether any of them is to stop, or finds a save due."""
    values = torch.stack([*figures.values()])
    flags = values.new_tensor([stop, due])
    *values, stop, due = parallel.mean_over(torch.cat([values, flags])).tolist()
    return dict(zip(figures, values)), stop > 0, due > 0


class _Patience:
    """Lets the first Ctrl-C, or a cluster's SIGTERM, wait for the end of the step: half a step could not be resumed."""

    def __init__(self):
        self.asked, self.usual = False, {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            if number == signal.SIGTERM or callable(signal.getsignal(number)):
                self.usual[number] = signal.signal(number, self._ask)

    def _ask(self, number, frame) -> None:
        if self.asked and number == signal.SIGINT:  # a cluster and torchrun both send SIGTERM, which counts as one
            raise KeyboardInterrupt
        self.asked = True

    def over(self) -> None:
        for number, usual in self.usual.items():
            signal.signal(number, usual)


def _digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def native_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware; emulated it would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def _save_resume(
    path: Path, run: str, step: int, rates: list[float], trace: Trace, model: nn.Module, optimizer
) -> None:
    """Weights, optimiser, and the step: from it follow rates, random numbers, the next batch, and the stage.

    Every process calls it, for each holds a slice; the first one writes, and the file appears whole or not at all.
    """
    weights = parallel.whole(dict(model=parallel.learned(model), optimizer=optimizer.state_dict()))
    if parallel.place()[0] > 0:
        return
    state = dict(run=run, step=step, rates=rates, trace=asdict(trace), **weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _load_resume(path: Path, run: str, steps: int, model: nn.Module, optimizer) -> tuple[int, list[float], Trace]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        other = state["run"]
        if other == run:
            parallel.restore(model, optimizer, state["model"], state["optimizer"])
    except Exception as error:  # a half-written or foreign file, or another architecture
        raise ValueError(f"{path}: cannot be resumed ({type(error).__name__}); delete it to start anew") from error
    if other != run:
        raise ValueError(f"{path}: belongs to another run ({other}; wanted: {run}); delete it to start anew")
    finished = "; it is finished, delete the file to train anew" if state["step"] == steps else ""
    if parallel.place()[0] == 0:
        print(f"resumed at step {state['step']} from {path.name}{finished}")
    return state["step"], state["rates"], Trace(**state["trace"])


# ---------------------------------------------------------------- checkpoints


def fingerprint(weights: Tensor) -> str:
    """Twelve hex digits that tell one trained model from another: a hash of some of its weights, as stored in fp16."""
    return hashlib.sha256(parallel.whole(weights.detach()).half().cpu().contiguous().numpy().tobytes()).hexdigest()[:12]


def save_checkpoint(
    path: Path, module: nn.Module | dict[str, Tensor], config: Any, half: bool = True, **meta: Any
) -> None:
    """Write weights and buffers as safetensors, float ones in fp16 when ``half``; atomic. Ends ``fit``'s resuming.

    ``config`` (a dataclass section) and ``meta`` (JSON-able, a ``Trace`` too) go into the file's metadata.
    """
    state = module.state_dict() if isinstance(module, nn.Module) else module
    shrink = lambda t: t.half() if half and t.dtype == torch.float32 else t  # noqa: E731
    tensors = {key: shrink(value).contiguous().clone() for key, value in state.items()}
    meta = {key: asdict(value) if is_dataclass(value) else value for key, value in meta.items()}
    header = dict(config=json.dumps(asdict(config)), meta=json.dumps(meta))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(save(tensors, metadata=header))  # with the usual permissions, unlike save_file
    os.replace(partial, path)
    path.with_name(path.name + ".resume").unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_checkpoint`` wrote: float32 tensors, and ``dict(config=..., **meta)``.

    FileNotFoundError or ValueError with one line that names the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint; run the notebook that makes it, or restore data_samples/")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path}: is not a whole safetensors file ({error}); restore or retrain it") from None
    if "config" not in header:
        raise ValueError(f"{path}: carries no a2lite configuration; expected a checkpoint written by a2lite")
    widen = {key: value.float() if value.dtype == torch.float16 else value for key, value in tensors.items()}
    return widen, dict(config=json.loads(header["config"]), **json.loads(header["meta"]))
