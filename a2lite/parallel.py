"""Several processes that train as one: each takes its share of a batch, and every mean is over all of them.

Ground floor, under ``fit``. ``accelerate launch`` (or torchrun) starts the processes and ``accelerate`` connects them;
weights lie in each process whole (DDP) or in slices (FSDP, torch's ``fully_shard``, which needs no GPU to be tested).
In a single process everything here is the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


def place() -> tuple[int, int]:
    """This process's number and how many there are: (0, 1) for one alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def share(batch: Sequence[T]) -> Sequence[T]:
    """Of a global batch, the same in every process, what this process works on: every n-th member.

    ValueError where there are fewer members than processes.
    """
    rank, count = place()
    if len(batch) < count:
        raise ValueError(f"a batch of {len(batch)} among {count} processes: expected at least one example for each")
    return batch[rank::count]


def mean_over(x: Tensor) -> Tensor:
    """Mean over processes of tensors of one shape."""
    if place()[1] > 1:
        x = x.clone()
        dist.all_reduce(x)
        x /= place()[1]
    return x


def gather(x: Tensor) -> Tensor:
    """Rows (n, ...) of every process as (all n, ...), in the order in which one process would have had them."""
    rank, count = place()
    if count == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(count)]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


def agreed(x: Tensor) -> Tensor:
    """The first process's ``x`` in every process: for what is drawn at random."""
    if place()[1] > 1:
        dist.broadcast(x, 0)
    return x


def same(number: int, device: torch.device) -> bool:
    """Whether every process has this number."""
    own = torch.tensor([number, -number], device=device)
    if place()[1] > 1:
        dist.all_reduce(own, dist.ReduceOp.MAX)
    return bool(own[0] == -own[1])


@contextmanager
def together() -> Iterator[None]:
    """No process goes on before all have come to its end, be one hours later than another.

    Other calls give up on the latecomer after minutes, and NCCL's return before anybody else has come.
    """
    if place()[1] == 1:
        yield
        return
    waiting = dist.new_group(timeout=timedelta(days=30))
    yield
    dist.barrier(waiting)


def counted(parts: Sequence[Any]) -> Sequence[Any]:
    """The parts of a batch, told how many terms the sums of the whole batch have.

    A batch that has ``counts`` (k,) divides its sums by them. Given the mean over processes of the counts of all
    parts, sums and gradients of the parts add up, and their mean over processes is that of one large batch.
    """
    if not hasattr(parts[0], "counts"):
        return parts
    whole = mean_over(torch.stack([part.counts for part in parts]).sum(0))
    return [replace(part, counts=whole) for part in parts]


# ---------------------------------------------------------------- a model in several processes


class Step(nn.Module):
    """A training step's loss as a forward pass, which is where DDP and FSDP do their work."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Any], dict[str, Tensor]]):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return self.loss(self.model, batch)


def spread(step: Step, optimizer: torch.optim.Optimizer, sharded: Sequence[nn.Module] = ()) -> nn.Module:
    """``step`` for several processes: by DDP, or by FSDP where ``sharded`` names the modules to be cut one by one.

    Under FSDP the optimiser, which must not have stepped yet, is given the slices in the place of the weights.
    """
    if place()[1] == 1:
        return step
    if not sharded:
        device = next(step.parameters()).device
        ids = None if device.type == "cpu" else [device]
        return DistributedDataParallel(step, device_ids=ids, gradient_as_bucket_view=True)
    names = {id(p): name for name, p in step.named_parameters()}
    mesh = dist.device_mesh.init_device_mesh(next(step.parameters()).device.type, (place()[1],))
    for module in (*sharded, step):
        fully_shard(module, mesh=mesh)
    slices = dict(step.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [slices[names[id(p)]] for p in group["params"]]
    return step


def without_sync(step: nn.Module) -> AbstractContextManager:
    """Gradients stay in each process: for all parts of a batch but the last."""
    return step.no_sync() if isinstance(step, DistributedDataParallel) else nullcontext()


@contextmanager
def readable(step: nn.Module) -> Iterator[None]:
    """The weights that FSDP's root holds are whole inside: for evaluating the model beside the training step."""
    if not isinstance(step, FSDPModule):
        yield
        return
    step.unshard()
    try:
        yield
    finally:
        step.reshard()


def whole(state: Any) -> Any:
    """A state dict with every slice put together on the CPU; a call for all processes at once."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    return [whole(value) for value in state] if isinstance(state, list) else state


def like(value: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor cut as ``pattern`` is."""
    if not isinstance(pattern, DTensor):
        return value
    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)


def learned(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: trainable parameters and buffers. A frozen language model is not written again."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


@torch.no_grad()
def restore(model: nn.Module, optimizer: torch.optim.Optimizer, weights: dict[str, Tensor], state: dict) -> None:
    """What ``whole(learned(model))`` and ``whole(optimizer.state_dict())`` gave; RuntimeError on other names."""
    own = learned(model)
    if set(own) != set(weights):
        raise RuntimeError(f"other weights: {sorted(set(own) ^ set(weights))[0]}")
    for name, value in weights.items():
        own[name].copy_(like(value, own[name]))
    optimizer.load_state_dict(state)
    for p, values in optimizer.state.items():
        values.update({k: like(v, p) for k, v in values.items() if isinstance(v, Tensor) and v.shape == p.shape})
