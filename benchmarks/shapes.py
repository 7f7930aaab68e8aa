"""A full-size training step without its numbers: every tensor of the real code by shape alone, on any processor.

    python benchmarks/shapes.py --json                            # about a minute and 2 GB
    python benchmarks/shapes.py --examples 16 --without-checkpointing

What ``full_size.py`` measures on a GPU, as far as shapes tell it: the bytes alive at the worst moment of a step, beside
the plan's. Weights and states are torch's fake tensors, which have shape and dtype but no memory; whole numbers (ids,
labels, lengths) are true, for they decide which positions are read. Dropout and attention are made to keep what CUDA's
kernels keep. Not seen: what kernels use inside, the allocator's slack, the optimiser's own step. Operations are torch's
count of all products, recomputing included.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry, shape_wrapper
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, masking_utils
from transformers.integrations.sdpa_attention import sdpa_attention_forward

sys.path.insert(0, str(Path(__file__).resolve().parent))
import full_size  # noqa: E402

from a2lite.a2llm import A2LLM  # noqa: E402
from a2lite.backbone.model import ATTENTION, Batch  # noqa: E402
from a2lite.config import PROFILES, SIZES, Config, load_config  # noqa: E402
from a2lite.footprint import Shape, counts, memory, model_flops, more_flops  # noqa: E402
from a2lite.plan import GIB  # noqa: E402

aten = torch.ops.aten


def attended(query: Sequence[int], key: Sequence[int], *_, **__) -> int:
    """Operations of causal attention, shapes (B, heads, L, d): two products over half of all pairs."""
    return 2 * math.prod(query) * key[-2]


KERNELS = {  # for which torch's counter has no formula
    aten._scaled_dot_product_flash_attention_for_cpu: attended,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda _, q, k, *__, **___: 2 * attended(q, k),
}
FORMULAS = flop_registry | {kernel: shape_wrapper(formula) for kernel, formula in KERNELS.items()}


class WholeNumbers(TorchDispatchMode):
    """Inside a ``FakeTensorMode``: tensors made of whole numbers alone keep a true twin.

    Where a mask decides how many rows are read, or Python asks for a number, the twin answers. ``flops`` counts.
    """

    def __init__(self, fake: FakeTensorMode):
        super().__init__()
        self.fake, self.twins, self.flops = fake, WeakIdKeyDictionary(), 0

    def adopt(self, true: Tensor) -> Tensor:
        """A fake tensor in the place of ``true``, which becomes its twin if it holds whole numbers."""
        made = self.fake.from_tensor(true)
        if not true.is_floating_point():
            self.twins[made] = true
        return made

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is aten.index.Tensor:
            args = (args[0], self._places(args[1]))
        known = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        true = all(x in self.twins for x in known)
        if func is aten._local_scalar_dense.default and true:
            with torch._C._DisableTorchDispatch():
                return self.twins[args[0]].item()
        out = func(*args, **kwargs)
        if func._overloadpacket in FORMULAS:
            self.flops += FORMULAS[func._overloadpacket](*args, **kwargs, out_val=out)
        made = [x for x in tree_leaves(out) if isinstance(x, FakeTensor)]
        if true and made and all(not x.is_floating_point() and x.numel() < 10**7 for x in made):
            swap = lambda x: self.twins[x] if isinstance(x, Tensor) else x  # noqa: E731
            with torch._C._DisableTorchDispatch():
                twins = func(*tree_map(swap, args), **tree_map(swap, kwargs))
            for x, twin in zip(made, (t for t in tree_leaves(twins) if isinstance(t, Tensor)), strict=True):
                self.twins[x] = twin
        return out

    def _places(self, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
        """A mask among the indices as the places where its twin is true."""
        out: list[Tensor | None] = []
        for index in indices:
            if index is None or index.dtype != torch.bool:
                out.append(index)
            else:
                with torch._C._DisableTorchDispatch():
                    places = self.twins[index].nonzero().unbind(1)
                out += [self.adopt(place) for place in places]
        return out


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """As CUDA does it: the mask that is kept has a byte for each element."""
    return torch.native_dropout(x, p, training)[0]


def hollow(model: A2LLM) -> None:
    """Every weight and buffer of a model on the meta device as a fake one on the processor."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            empty = torch.empty(value.shape, dtype=value.dtype)
            module._parameters[name] = nn.Parameter(empty, requires_grad=value.requires_grad)
        for name, value in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(value.shape, dtype=value.dtype)


def trace(config: Config, shape: Shape, checkpointing: bool = True) -> dict[str, Any]:
    """GiB of one step (weights, what the forward pass leaves, the peak), its operations, and the plan of the same."""
    config = config.override(connector=dict(segments=(max(config.connector.segments),)))  # as the plan has it
    model = full_size.build(config, torch.device("meta"), checkpointing)
    true = full_size.batch(config, model.backbone.vocabulary, shape)
    with ExitStack() as inside:
        inside.enter_context(patch.object(torch.nn.functional, "dropout", dropout))
        inside.enter_context(patch.dict(AttentionInterface._global_mapping, {ATTENTION: sdpa_attention_forward}))
        inside.enter_context(patch.object(masking_utils, "is_tracing", lambda *_: False))  # else it makes causal masks
        fake = inside.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        hollow(model)
        live = inside.enter_context(full_size.LiveBytes([*model.parameters(), *model.buffers()]))
        whole = inside.enter_context(WholeNumbers(fake))
        adopted = lambda of: {name: whole.adopt(x) for name, x in vars(of).items() if isinstance(x, Tensor)}  # noqa: E731
        data = replace(true, sequence=Batch(**adopted(true.sequence)), **adopted(true))
        start = live.now
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(data)["loss"]
        kept = live.now - start
        loss.backward()
    n = counts(config)
    moments = 8 * n.trained  # AdamW's, which lie there all the time
    planned = memory(config, n, shape, checkpointing=checkpointing)["peak"]
    work = model_flops(config, n, shape) + more_flops(config, n, shape, checkpointing)
    rows = dict(weights_gib=start / GIB, kept_gib=kept / GIB, peak_gib=(live.peak + moments) / GIB,
                flops=whole.flops)  # fmt: skip
    ratios = dict(peak_ratio=(live.peak + moments) / planned, flops_ratio=rows["flops"] / work)
    return rows | dict(planned_gib=planned / GIB, planned_flops=work) | ratios


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="a100", choices=PROFILES)
    parser.add_argument("--size", choices=[name for name in SIZES if name], help="shrunk, for tests")
    parser.add_argument("--examples", type=int, nargs="+", default=[Shape.examples], help="in one forward pass")
    parser.add_argument("--question", type=float, default=Shape.question, help="seconds")
    parser.add_argument("--answer", type=float, default=Shape.answer, help="seconds")
    parser.add_argument("--without-checkpointing", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else on stdout")
    args = parser.parse_args(argv)
    config, found = load_config(args.profile, args.size), []
    torch.manual_seed(0)
    for examples in args.examples:
        shape = Shape(examples, args.question, args.answer)
        found.append(asdict(shape) | trace(config, shape, not args.without_checkpointing))
    print(json.dumps(dict(runs=found), indent=None if args.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
