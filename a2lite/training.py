"""Three-stage training: connector and LoRA together, LoRA reset, affective tuning.

Sec. 5.3 of A2-LLM; built in notebooks/06_three_stage_training.ipynb. The stages are one run over one step count,
so that a killed run resumes in whatever stage it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import torch

from a2lite.a2llm import A2LLM, AvatarBatch, Example
from a2lite.config import TrainingConfig
from a2lite.fit import Trace, fit, schedule, shuffled
from a2lite.parallel import place, share
from a2lite.shards import Shards

T = TypeVar("T")
UNDECIDING = dict(part=None, gradient_checkpointing=False)  # a run may go on with others, where memory is another


@dataclass(frozen=True)
class Stage:
    """Some steps on some examples; ``reset_lora`` throws the LoRA weights and their optimiser state away first."""

    name: str
    steps: int
    examples: Sequence[Example]
    reset_lora: bool = False


def three_stages(config: TrainingConfig, examples: Sequence[Example], affective: Sequence[Example]) -> list[Stage]:
    """Sec. 5.3: 1 connector pre-training (LoRA trains too), 2 joint alignment with LoRA reset, 3 affective tuning."""
    return [
        Stage("stage 1", config.stage1_steps, examples),
        Stage("stage 2", config.stage2_steps, examples, reset_lora=True),
        Stage("stage 3", config.stage3_steps, affective),
    ]


def stage_ends(stages: Sequence[Stage]) -> list[int]:
    """The step at which each stage ends, counted over all of them; a stage of no steps has none."""
    return list(accumulate(stage.steps for stage in stages if stage.steps))


def lengths_of(examples: Sequence[Example]) -> list[int]:
    """About how many positions each takes; examples on disk know it without being read."""
    return examples.lengths if isinstance(examples, Shards) else [e.item.length for e in examples]


def optimizer_for(model: A2LLM) -> torch.optim.AdamW:
    """AdamW with the paper's two rates (Sec. 5.3): LoRA's and the connector's."""
    c = model.config.training
    connector = c.connector_lr if c.lite_connector_lr is None else c.lite_connector_lr
    fresh = [*model.connector.parameters(), *(model.emotion.parameters() if model.emotion else ())]
    groups = [dict(params=fresh, lr=connector)]
    if model.lora:
        lora = c.lora_lr if c.lite_lora_lr is None else c.lite_lora_lr
        groups.append(dict(params=model.lora_parameters(), lr=lora))
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02)


def train(
    model: A2LLM,
    stages: Sequence[Stage],
    path: Path | None = None,
    evaluate: Callable[[A2LLM], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    seed: int = 0,
    fsdp: bool = False,
    log_with: str | None = None,
    save_seconds: float = 60.0,
    watch: Callable[[AvatarBatch], None] = lambda batch: None,
) -> Trace:
    """Run the stages one after the other, each with its own warm-up and decay of the two rates.

    With ``path`` a killed run resumes (see ``fit``). Several processes share each batch; with ``fsdp`` they share the
    language model's layers too. ``watch`` sees every batch of this process. Returns one ``Trace`` over all steps.
    ValueError where LoRA has been merged into the language model, as ``Avatar`` does, or a batch cannot be divided as
    ``config.training.part`` asks.
    """
    if any(layer.merged for layer in model.lora_layers()):
        raise ValueError("train: LoRA has been merged into the language model; load the model anew")
    stages = [stage for stage in stages if stage.steps]
    ends = stage_ends(stages)
    starts = [end - stage.steps for end, stage in zip(ends, stages)]
    optimizer = optimizer_for(model)
    batch, part = model.config.training.batch, model.config.training.part
    pick = [shuffled(lengths_of(stage.examples), batch, seed + i) for i, stage in enumerate(stages)]
    stage_of = lambda step: next(i for i, end in enumerate(ends) if step < end)  # noqa: E731

    def batches(step: int) -> list[AvatarBatch]:
        stage = stage_of(step)
        chosen = [(i, (seed * 1_000_003 + step) << 16 | k) for k, i in enumerate(pick[stage](step))]
        if part and len(chosen) % place()[1]:
            raise ValueError(f"a batch of {len(chosen)} in parts, among {place()[1]} processes: expected a multiple")
        parts = divided(share(chosen), part)
        made = [model.collate([stages[stage].examples[i] for i, _ in some], [s for _, s in some]) for some in parts]
        for some in made:
            watch(some)
        return made

    def factor(step: int) -> float:
        return schedule(step - starts[stage_of(step)], stages[stage_of(step)].steps)

    def before_step(step: int) -> None:
        if step in starts and stages[stage_of(step)].reset_lora:
            reset_lora(model, optimizer, seed * 1_000_003 + step)

    if model.config.training.gradient_checkpointing and model.lora:
        checkpoint_layers(model)
    c = model.config
    settings = dict(
        stages=[(stage.name, stage.steps, len(stage.examples)) for stage in stages], base=model.backbone.identity,
        codes=model.rvq.identity, training=asdict(replace(c.training, **UNDECIDING)), connector=asdict(c.connector),
        lora=asdict(c.lora) if model.lora else None,
    )  # fmt: skip
    return fit(
        model, lambda m, b: m.loss(b), batches, steps=ends[-1], optimizer=optimizer, factor=factor,
        before_step=before_step, name=" > ".join(stage.name for stage in stages), path=path, evaluate=evaluate,
        evaluate_every=evaluate_every, seed=seed, bfloat16=True, settings=settings,
        sharded=list(model.backbone.lm.model.layers) if fsdp else (), log_with=log_with, save_seconds=save_seconds,
    )


def checkpoint_layers(model: A2LLM) -> None:
    """From now on each decoder layer keeps its input alone, and is computed again on the way back."""
    lm = model.backbone.lm  # the name before transformers 5.20 was another
    enable = getattr(lm, "activation_checkpointing_enable", None) or lm.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def divided(batch: Sequence[T], part: int | None) -> list[Sequence[T]]:
    """A process's share of a batch in as many parts as leave each at most ``part`` members, alike in size."""
    if not part or len(batch) <= part:
        return [batch]
    count = -(-len(batch) // part)
    return [batch[i::count] for i in range(count)]


def reset_lora(model: A2LLM, optimizer: torch.optim.Optimizer, seed: int = 0) -> None:
    """Stage 2's beginning: fresh LoRA weights without optimiser state; the connector keeps both."""
    model.reset_lora(seed)
    for parameter in model.lora_parameters():
        optimizer.state.pop(parameter, None)


@torch.no_grad()
def predict(model: A2LLM, examples: Sequence[Example], batch: int = 16) -> list[torch.Tensor]:
    """Motion codes (N, N_q) per example, N = 0 where it carries no motion.

    From true text and audio tokens and the model's own previous motion tokens.
    """
    model.eval()
    out: list[torch.Tensor] = []
    for start in range(0, len(examples), batch):
        some = examples[start : start + batch]
        together = model.collate(some).to(model.backbone.device)
        _, hidden = model.hidden(together.sequence)
        codes = model.connector.generate(hidden, lengths=together.lengths)
        out += [row[:n] for row, n in zip(codes, together.lengths.tolist())]
    return out
