"""Token by token: cached generation that obeys TA4 and hands out every step, so that realtime can stream it.

Rows of a batch stand padded on the left, which puts their slots side by side: one step, one kind of slot. A
batch gives what each dialogue gives alone, and the cache gives what a full forward pass gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from a2lite.backbone.model import Backbone, collate
from a2lite.backbone.tokens import Dialogue, SlotGrammar


@dataclass
class Step:
    """One generated token: its id, its kind (see ``Vocabulary.kind``) and, for a real audio code, its H (hidden,)."""

    token: int
    kind: str
    hidden: Tensor | None = None


@dataclass
class Answer:
    """A whole answer, or as much of it as the limit allowed (``ended`` is False then)."""

    text: str
    codes: Tensor  # (A,) int64, 0..K-1
    hidden: Tensor  # (A, hidden)
    ids: list[int] = field(default_factory=list)
    ended: bool = True


@torch.no_grad()
def stream(
    model: Backbone,
    dialogues: Sequence[Dialogue],
    limit: int | None = None,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    forced: Sequence[Sequence[int]] | None = None,
) -> Iterator[list[Step | None]]:
    """Speak for each opened dialogue; yields one ``Step`` per row and token, None for a row that has ended.

    Greedy at ``temperature`` 0. After ``limit`` tokens, or when the context is full, the iteration just stops.
    ``forced`` gives the tokens instead of the model's own choice (teacher forcing through the cache). ValueError
    for a prompt that leaves no room to answer.
    """
    limit = min(model.config.max_new_tokens if limit is None else limit, _room(model, dialogues))
    masks = {state: mask.to(model.device) for state, mask in model.vocabulary.slot_masks.items()}
    grammars = [SlotGrammar(model.vocabulary) for _ in dialogues]
    logits, hidden, cache, mask = _prefill(model, dialogues)
    for step in range(limit):
        if forced is None:
            allowed = torch.stack([masks[g.state] for g in grammars])  # (B, vocabulary)
            tokens = _choose(logits, allowed, temperature, generator)
        else:
            tokens = [row[step] if step < len(row) else model.vocabulary.eot for row in forced]
        running = [g.state != "over" for g in grammars]
        steps = [
            Step(t, g.advance(t)) if on else None for t, g, on in zip(tokens, grammars, running, strict=True)
        ]
        before, over = hidden, all(g.state == "over" for g in grammars)
        if not over:
            mask = torch.cat([mask, mask.new_ones(len(dialogues), 1)], 1)
            ids = torch.tensor(tokens, device=model.device)[:, None]
            logits, hidden, cache = _forward(model, model.lm.get_input_embeddings()(ids), mask, cache)
        state = before if model.config.hidden_state == "before" else hidden
        for row, item in enumerate(steps):
            if item and item.kind == "code":
                item.hidden = state[row]
        yield steps
        if over:
            return


def _room(model: Backbone, dialogues: Sequence[Dialogue]) -> int:
    """How many tokens the context holds after the longest prompt."""
    longest, context = max(len(d.ids) for d in dialogues), model.config.max_positions
    if longest >= context:
        raise ValueError(
            f"the prompt has {longest} tokens, the context {context}; ask less, or drop old turns"
        )
    return context - longest


def _prefill(model: Backbone, dialogues: Sequence[Dialogue]):
    """Run the prompts, shifted to end together."""
    batch = collate(dialogues).to(model.device)
    x = model.embed(batch)
    lengths = torch.tensor([len(d.ids) for d in dialogues], device=model.device)
    shift = x.shape[1] - lengths
    order = (torch.arange(x.shape[1], device=model.device) - shift[:, None]) % x.shape[1]  # (B, L)
    x = x.gather(1, order[:, :, None].to(x.device).expand_as(x))
    mask = (torch.arange(x.shape[1], device=model.device) >= shift[:, None]).long()
    return *_forward(model, x, mask, None), mask


def _forward(model: Backbone, x: Tensor, mask: Tensor, cache):
    """One cached pass: logits (B, vocabulary) and H (B, hidden) of the last position, and the cache."""
    mask = mask.to(x.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -x.shape[1] :]
    whole = bool(mask.all())
    out = model.lm(
        inputs_embeds=x,
        attention_mask=None if whole else mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=True,
        logits_to_keep=1,
    )
    logits, hidden = out.logits[:, -1].float(), model.read(out.hidden_states)[:, -1]
    return logits.to(model.device), hidden.to(model.device), out.past_key_values


def _choose(
    logits: Tensor, allowed: Tensor, temperature: float, generator: torch.Generator | None
) -> list[int]:
    """The next token of each row among the allowed ones (a row that is over gets an arbitrary one)."""
    logits = torch.where(allowed, logits, -1e9)
    if temperature <= 0:
        return logits.argmax(-1).tolist()
    chances = (logits / temperature).softmax(-1)
    return torch.multinomial(chances, 1, generator=generator)[:, 0].tolist()


def generate(model: Backbone, dialogue: Dialogue, **options) -> Iterator[Step]:
    """``stream`` for one dialogue: a ``Step`` per token, as soon as it is known."""
    for (step,) in stream(model, [dialogue], **options):
        yield step


def answer(model: Backbone, dialogues: Sequence[Dialogue], **options) -> list[Answer]:
    """Whole spoken answers to opened dialogues; options as in ``stream``."""
    rows: list[list[Step]] = [[] for _ in dialogues]
    for steps in stream(model, dialogues, **options):
        for row, step in zip(rows, steps, strict=True):
            if step is not None:
                row.append(step)
    return [_collect(model, row) for row in rows]


def _collect(model: Backbone, steps: list[Step]) -> Answer:
    v = model.vocabulary
    codes = [step for step in steps if step.kind == "code"]
    hidden = [step.hidden for step in codes]
    return Answer(
        text=v.decode([step.token for step in steps if step.kind == "text"]),
        codes=torch.tensor([step.token - v.audio0 for step in codes], dtype=torch.long),
        hidden=torch.stack(hidden) if hidden else torch.zeros(0, model.config.hidden),
        ids=[step.token for step in steps],
        ended=bool(steps) and steps[-1].kind == "eot",
    )
