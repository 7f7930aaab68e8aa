"""Bytes and arithmetic of one training step of A2-LLM, from the configuration and the shape of a batch alone.

The formulas follow the code line by line: frozen weights in bf16, trained ones in float32 under autocast, LoRA as peft
computes it (a float32 copy of each input, dropout, a bf16 copy), transformers' Qwen2 layer, the loss in chunks. On a
processor they hold against every tensor that is really alive (tests/test_plan.py); ``plan.py`` adds what a GPU adds.
"""

from __future__ import annotations

from dataclasses import dataclass

from a2lite.backbone.model import LOGITS
from a2lite.backbone.tokens import AUDIO_PER_TEXT
from a2lite.config import Config
from a2lite.flame import load_head
from a2lite.sizes import count, empty_backbone, sizes

STATE = 16  # bytes per trained parameter: float32 weight, gradient, AdamW's two moments
HEARD = 12.5  # LLM positions per second of question


@dataclass(frozen=True)
class Shape:
    """The examples of one forward pass: how many, seconds asked and answered, positions of the prompt's text."""

    examples: int = 8
    question: float = 5.0
    answer: float = 8.0
    prompt: int = 30

    @property
    def heard(self) -> int:
        return round(HEARD * self.question)

    def codes(self, config: Config) -> int:
        """Audio tokens of one answer."""
        return round(config.audio.token_rate * self.answer)

    def spoken(self, config: Config) -> int:
        """LLM positions of one answer, each with a label: TA4 has a text token for every four of sound."""
        return (AUDIO_PER_TEXT + 1) * -(-self.codes(config) // AUDIO_PER_TEXT)

    def motions(self, config: Config) -> int:
        """Motion tokens of one answer."""
        return -(-self.codes(config) // config.rvq.group)

    def length(self, config: Config) -> int:
        """LLM positions of one example."""
        return self.prompt + self.heard + self.spoken(config)


@dataclass(frozen=True)
class Counts:
    """Parameters by the part they play; ``matrices`` are the language model's that every position goes through."""

    layers: int  # decoder layers, frozen
    rest: int  # embedding, output matrix, encoder and adaptor, frozen
    head: int  # of these the output matrix
    encoder: int  # of these what listens
    rvq: int  # with its codebooks; frozen, in float32
    matrices: int
    lora: int
    connector: int
    rows: int  # of the vocabulary

    @property
    def trained(self) -> int:
        return self.lora + self.connector


def counts(config: Config) -> Counts:
    """Made on the meta device, as ``sizes`` does; at full size it takes seconds."""
    found, model = sizes(config), empty_backbone(config)
    layers, rows = model.lm.model.layers, len(model.vocabulary)
    head = rows * config.backbone.hidden
    return Counts(
        layers=count(layers), rest=found["backbone"] - count(layers), head=head, rvq=found["rvq"], rows=rows,
        encoder=count(model.encoder) + count(model.adapter), lora=found["lora"],
        matrices=head + sum(p.numel() for p in layers.parameters() if p.ndim > 1),
        connector=found["connector"] + found["connector_positions"],
    )  # fmt: skip


# ---------------------------------------------------------------- memory, in bytes


def layer_bytes(config: Config, cpu: bool = False) -> tuple[int, int]:
    """Per position: what one decoder layer keeps for its backward pass, and what it holds beyond that at its widest.

    LoRA keeps of each projection's input a dropout mask and a bf16 copy; the widest moment is before ``down_proj``,
    where that input lies in bf16 and twice in float32. On a processor a mask is float32, and so is attention.
    """
    b, drop = config.backbone, config.lora.dropout > 0
    d, f, kv = b.hidden, b.intermediate, b.hidden // b.heads * b.kv_heads
    wide, mask = (4, 4 * drop) if cpu else (2, 1 * drop)
    norms = 2 * (4 * d + 4)
    lora = (2 + mask) * (6 * d + f) + 7 * 2 * config.lora.rank
    attention = wide * (2 * d + 2 * kv) + 4 * b.heads
    gated = 3 * 2 * f  # gate, its activation, up
    return norms + lora + attention + gated, (2 + 4 + 4 * drop) * f + 3 * 2 * d


def kept_bytes(config: Config, shape: Shape, checkpointing: bool, cpu: bool = False) -> int:
    """What the language model's forward pass leaves for the backward pass.

    The states after every layer are all returned, in bf16; without checkpointing what the layers keep comes on top.
    """
    b, positions = config.backbone, shape.examples * shape.length(config)
    states = 2 * b.hidden * (b.layers + 2) + 4 * b.hidden
    inside = 0 if checkpointing else b.layers * layer_bytes(config, cpu)[0]
    labelled = 2 * b.hidden * shape.examples * (shape.spoken(config) + shape.codes(config))  # for the logits, and H
    return positions * (states + inside) + labelled


def connector_bytes(config: Config, shape: Shape) -> int:
    """What the connector keeps of its forward pass, with segments of the greatest length, as the CPU computes it."""
    c, r = config.connector, config.rvq
    layer = 52 * c.width + 6 * c.feedforward + 24 * c.heads * max(c.segments)
    ends = 22 * c.width + (2 + 2 * r.group) * config.backbone.hidden + 4 * r.quantizers * r.codes
    return shape.examples * shape.motions(config) * (c.layers * layer + ends)


def encoder_bytes(config: Config, shape: Shape) -> int:
    """The frozen encoder's widest moment: a block's MLP, at 50 vectors per second of question."""
    return round(shape.examples * 50 * shape.question * config.backbone.encoder_width * (2 + 4 + 2 * 2 * 4))


def logits_bytes(config: Config, n: Counts, shape: Shape) -> int:
    """Cross-entropy on the way back: log-probabilities and two gradients of them, in float32, chunk by chunk."""
    return 12 * min(shape.examples * shape.spoken(config) * n.rows, LOGITS)


def memory(
    config: Config, n: Counts, shape: Shape, gpus: int = 1, fsdp: bool = False, checkpointing: bool = True,
    cpu: bool = False,
) -> dict[str, int]:
    """Bytes of one process by component, and their ``peak``: states, then the widest of what follows one another.

    Under FSDP each decoder layer is cut over ``gpus`` and two are whole at a time; the rest is whole during a step.
    """
    share = gpus if fsdp else 1
    frozen, lora = 2 * n.layers, n.lora * STATE
    whole = 2 * (frozen + 4 * n.lora) // config.backbone.layers + 4 * n.connector if fsdp else 0
    found = {
        "frozen weights": frozen // share + 2 * n.rest + 4 * n.rvq + whole,
        "trained weights": (lora + n.connector * STATE) // share,
        "activations kept": kept_bytes(config, shape, checkpointing, cpu),
    }
    kept, widest = layer_bytes(config, cpu)
    copies, positions = 2 * n.trained, shape.examples * shape.length(config)
    layer = positions * ((kept if checkpointing else 0) + widest) + (0 if checkpointing else copies)
    loss = logits_bytes(config, n, shape) + connector_bytes(config, shape) + copies
    step = 0 if cpu else 4 * n.trained // share - found["activations kept"]  # AdamW's square roots, all at once
    moments = {"one layer again": layer, "loss and connector": loss, "encoder": encoder_bytes(config, shape)}
    return found | moments | {"peak": sum(found.values()) + max(*moments.values(), step)}


def rvq_bytes(config: Config, clips: int) -> int:
    """The motion tokenizer's training on ``clips`` crops: convolutions, and the head's vertices five times over."""
    r, head = config.rvq, load_head()
    sets = (len(head.regions["lips"]), len(head.regions["face"]), len(head.v_template))
    vertices = sum(min(size, r.vertices or size) for size in sets)
    return round(clips * r.crop * (80 * r.width + 1200 + 5.2 * 12 * vertices))


# ---------------------------------------------------------------- arithmetic, in floating-point operations


def model_flops(config: Config, n: Counts, shape: Shape) -> int:
    """Of one forward and backward pass as an MFU counts it: nothing twice, the encoder left out.

    4 per frozen matrix weight and 6 per trained one for every LLM position, causal attention, and 6 per weight of the
    connector for every motion token.
    """
    length, b = shape.length(config), config.backbone
    attention = 6 * length * b.hidden * b.layers
    per_position = 4 * n.matrices + 6 * n.lora + attention
    return shape.examples * (length * per_position + 6 * n.connector * shape.motions(config))


def more_flops(config: Config, n: Counts, shape: Shape, checkpointing: bool) -> int:
    """What comes on top: the encoder's forward pass, and with checkpointing every layer's once more."""
    b, length = config.backbone, shape.length(config)
    again = length * (2 * (n.matrices - n.head) + 2 * n.lora + 2 * length * b.hidden * b.layers)
    return shape.examples * (round(2 * n.encoder * 50 * shape.question) + (again if checkpointing else 0))
