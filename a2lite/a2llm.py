"""A2-LLM whole: the audio language model, LoRA on its seven projections, and the Motion Connector on its H.

Sec. 3.3, 5.2-5.4 of A2-LLM; built in notebooks/06_three_stage_training.ipynb. The loss is Eq. 6; one forward
pass of the language model serves both of its terms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from a2lite.backbone import Backbone, Batch, Dialogue, align_tail, collate
from a2lite.backbone.listening import augment
from a2lite.backbone.model import cross_entropies, targets
from a2lite.backbone.tasks import Item, converse
from a2lite.config import Config, LoRAConfig
from a2lite.connector import MotionConnector, motion_loss
from a2lite.fit import load_checkpoint, save_checkpoint
from a2lite.parallel import like, place, whole
from a2lite.rvq import MotionRVQ


@dataclass
class Example:
    """One training example: a sample's sounds and texts, the task (Sec. 4), and the answer's motion codes (N, N_q).

    ASR has no spoken answer, so its ``codes`` are None and it carries no motion loss. ``emotion`` is the answer's
    label (App. A), which only ``emotion_aux`` asks for.
    """

    item: Item
    codes: Tensor | None
    task: str = "AQAA"
    emotion: str = ""


@dataclass
class AvatarBatch:
    """Dialogues with the motion codes (B, N, N_q) of their answers; ``lengths`` (B,) is 0 where there is no motion.

    ``emotions`` (B,) numbers the labels of ``emotion_aux``, -1 where there is none. ``counts`` (4,) are those of
    ``sequence``, of the motion tokens and of the emotions: by what the losses divide their sums.
    """

    sequence: Batch
    codes: Tensor
    lengths: Tensor
    emotions: Tensor
    counts: Tensor

    def to(self, device: torch.device | str) -> AvatarBatch:
        return AvatarBatch(**{name: value.to(device) for name, value in vars(self).items()})


def examples_of(items: Sequence[Item], motions: Sequence[Tensor], rvq: MotionRVQ) -> list[Example]:
    """Items, each under its own task, and their answers' motion (T, 58), tokenized once by the frozen tokenizer.

    ValueError names an item whose motion is not as long as its speech.
    """
    examples = []
    for item, motion in zip(items, motions, strict=True):
        examples.append(example_of(item, motion, rvq))
    return examples


def example_of(item: Item, motion: Tensor, rvq: MotionRVQ) -> Example:
    codes = rvq.encode(torch.as_tensor(motion)[None].to(rvq.mean.device))[0].cpu()
    if len(codes) != -(-len(item.last.codes) // rvq.config.group):
        raise ValueError(f"{item.id}: {len(motion)} frames of motion for {len(item.last.codes)} audio tokens")
    return Example(item, codes, item.task)


def mix(tasks: Sequence[str], asr_every: int = 6) -> list[tuple[int, str]]:
    """The four subtasks of Sec. 4 from what was asked (AQAA) and what is to be said again (Repeat): (index, task).

    Questions count twice; every other sentence is read (TTS) instead of heard; every ``asr_every``-th example is also
    to be written down, without motion (``flame_qa.TASKS`` says which carry the motion loss). The paper has no shares.
    """
    asked, again = ([i for i, task in enumerate(tasks) if task == kind] for kind in ("AQAA", "Repeat"))
    if len(asked) + len(again) < len(tasks):
        raise ValueError("mixed: expected examples of AQAA and Repeat alone; it makes those of TTS and ASR itself")
    shares = dict(AQAA=asked + asked, Repeat=again[::2], TTS=again[1::2], ASR=range(0, len(tasks), asr_every))
    return [(i, task) for task, share in shares.items() for i in share]


def mixed(examples: Sequence[Example], asr_every: int = 6) -> list[Example]:
    """``mix`` of examples in memory."""
    return [as_task(examples[i], task) for i, task in mix([e.task for e in examples], asr_every)]


def as_task(example: Example, task: str) -> Example:
    """The same dialogue under another task."""
    return replace(example, task=task, codes=None if task == "ASR" else example.codes)


class A2LLM(nn.Module):
    """Backbone + LoRA + connector (Fig. 1). ``lora=False`` freezes the language model: Table 6's Adapter-Only.

    The motion tokenizer is frozen and serves to decode.
    """

    def __init__(self, config: Config, backbone: Backbone, rvq: MotionRVQ, lora: bool = True):
        super().__init__()
        if any(isinstance(module, LoraLayer) for module in backbone.modules()):
            raise ValueError("backbone: has LoRA in it already; load a fresh one")
        config = replace(config, backbone=backbone.config, rvq=rvq.config)  # sizes are those of what was loaded
        self.config, self.lora = config, lora
        self.backbone = backbone.requires_grad_(False)
        self.rvq = rvq.requires_grad_(False)
        codebooks = rvq.quantizer.codebooks
        self.connector = MotionConnector(config.connector, config.rvq, config.backbone.hidden, codebooks)
        self.emotion = None
        if config.training.emotion_aux:
            self.emotion = nn.Linear(config.backbone.hidden, len(config.training.emotions))
        if lora:
            try:
                inject_adapter_in_model(lora_config(config.lora), self.backbone.lm)
            except ValueError as error:  # matrices of a quantiser that peft does not know
                reason = str(error).splitlines()[0]
                raise ValueError(f"backbone: takes no LoRA ({reason}); quantise it by bitsandbytes") from None
            for layer in self.lora_layers():
                _place(layer)

    def train(self, mode: bool = True) -> A2LLM:
        super().train(mode)
        self.rvq.eval()
        return self

    # ---- Eq. 6

    def collate(self, examples: Sequence[Example], seeds: Sequence[int] | None = None) -> AvatarBatch:
        """Examples side by side, padded on the right; with ``seeds``, one for each, what is heard is augmented."""
        seeds = [None] * len(examples) if seeds is None else seeds
        none = torch.zeros(0, self.rvq.config.quantizers, dtype=torch.long)
        codes = [none if example.codes is None else example.codes for example in examples]
        if self.backbone.config.tail == "drop":
            codes = [m[: len(e.item.last.codes) // self.rvq.config.group] for m, e in zip(codes, examples)]
        sequence = collate([self._dialogue(e, seed) for e, seed in zip(examples, seeds, strict=True)])
        names = self.config.training.emotions
        emotions = torch.tensor([names.index(e.emotion) if e.emotion in names else -1 for e in examples])
        own = torch.tensor([sum(map(len, codes)), (emotions >= 0).sum()])
        return AvatarBatch(
            sequence=sequence,
            codes=nn.utils.rnn.pad_sequence(codes, True),
            lengths=torch.tensor([len(c) for c in codes]),
            emotions=emotions,
            counts=torch.cat([sequence.counts, own]),
        )

    def _dialogue(self, example: Example, seed: int | None) -> Dialogue:
        change = lambda mel: mel  # noqa: E731
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            change = lambda mel: augment(mel, generator)  # noqa: E731
        return converse(example.task, example.item, self.backbone.vocabulary, self.backbone.config, change=change)

    def hidden(self, sequence: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, V) of ``Backbone.labelled``, and H of the answers' audio tokens (B, T, d), T a multiple of G."""
        last, hidden = self._states(sequence)
        return self.backbone.lm.lm_head(last), hidden

    def _states(self, sequence: Batch) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.lora):
            last, states = self.backbone.before_logits(sequence)
            tail = self.config.backbone.tail
            rows = [align_tail(h, self.rvq.config.group, tail) for h in self.backbone.audio_hidden(sequence, states)]
        return last, nn.utils.rnn.pad_sequence(rows, True)

    def loss(self, batch: AvatarBatch) -> dict[str, Tensor]:
        """L = L_seq + lambda L_motion (Eq. 6), with L_motion of Eq. 5 over the answers that carry motion."""
        sequence = replace(batch.sequence, counts=batch.counts[:2])
        last, hidden = self._states(sequence)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.lora):
            terms = self.backbone.weighed(sequence, cross_entropies(self.backbone.lm.lm_head, last, targets(sequence)))
        motion = self._motion_loss(batch, hidden)
        total = self.config.training.motion_weight * motion["motion"]
        if self.lora:
            total = total + terms["loss"]
        extra = self._emotion_loss(batch, hidden)
        if extra:
            total = total + self.config.training.emotion_aux * extra["emotion"]
        parts = dict(seq=terms["loss"], **motion, **extra)
        return dict(terms, loss=total, **{name: value.detach() for name, value in parts.items()})

    def _motion_loss(self, batch: AvatarBatch, hidden: Tensor) -> dict[str, Tensor]:
        """At least two segments long, if need be with nothing in them: every weight is used in every process."""
        codes, c = batch.codes, self.connector.config
        tokens = max(codes.shape[1], 1 + max(*c.segments, c.segment))
        codes = F.pad(codes, (0, 0, 0, tokens - codes.shape[1]))
        hidden = F.pad(hidden, (0, 0, 0, tokens * self.rvq.config.group - hidden.shape[1]))
        return motion_loss(self.connector(hidden, codes, batch.lengths), codes, batch.lengths, batch.counts[2])

    def _emotion_loss(self, batch: AvatarBatch, hidden: Tensor) -> dict[str, Tensor]:
        """App. A's auxiliary supervision, off unless ``emotion_aux``: the label from the mean of the answer's H."""
        if self.emotion is None:
            return {}
        inside = torch.arange(hidden.shape[1], device=hidden.device) < (batch.lengths * self.rvq.config.group)[:, None]
        mean = (hidden * inside[:, :, None]).sum(1) / inside.sum(1, keepdim=True).clamp(min=1)  # (B, d)
        each = F.cross_entropy(self.emotion(mean), batch.emotions, ignore_index=-1, reduction="sum")
        return dict(emotion=each / batch.counts[3].clamp(min=1))

    # ---- LoRA

    def lora_layers(self) -> Iterator[LoraLayer]:
        return (module for module in self.backbone.lm.modules() if isinstance(module, LoraLayer))

    def lora_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.backbone.lm.named_parameters() if "lora_" in name]

    @torch.no_grad()
    def reset_lora(self, seed: int = 0) -> None:
        """Sec. 5.3, stage 2: throw the LoRA weights away; the language model answers as before stage 1.

        A is drawn anew as LoRA draws it, the same in every process; B is zero.
        """
        generator = torch.Generator().manual_seed(seed)
        for layer in self.lora_layers():
            if layer.merged:
                raise ValueError("reset_lora: LoRA has been merged into the language model; load the model anew")
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            fresh = nn.init.kaiming_uniform_(torch.empty(a.shape), math.sqrt(5), generator=generator)
            a.copy_(like(fresh.to(a.device, a.dtype), a))
            b.zero_()

    # ---- motion

    @torch.no_grad()
    def motion(self, codes: Tensor) -> Tensor:
        """Codes (B, N, N_q) -> motion (B, N G, 58)."""
        return self.rvq.decode(codes)

    # ---- checkpoints: LoRA and connector, and on which base they stand

    def state(self) -> dict[str, Tensor]:
        lora = {f"lora.{n}": p for n, p in self.backbone.lm.state_dict().items() if "lora_" in n}
        return {**lora, **{f"connector.{n}": p for n, p in self.connector.state_dict().items()}}

    def save(self, path: Path, half: bool = True, **meta) -> None:
        """LoRA and connector in one safetensors file (fp16 when ``half``), with the identity of their backbone.

        Of several processes all call it, and the first one writes.
        """
        lora = asdict(self.config.lora) if self.lora else None
        names = dict(base=self.backbone.identity, reading=self.backbone.reading, codes=self.rvq.identity, lora=lora)
        state = whole(self.state())
        if place()[0] == 0:
            save_checkpoint(path, state, self.config.connector, half, **names, **meta)

    @classmethod
    def load(cls, path: str | Path, config: Config, backbone: Backbone, rvq: MotionRVQ) -> A2LLM:
        """What ``save`` wrote, in eval mode. ValueError names the file when it belongs to another backbone."""
        state, meta = load_checkpoint(path)
        if "base" not in meta:
            raise ValueError(f"{path}: is no A2-LLM checkpoint; expected one written by A2LLM.save")
        if meta["base"] != backbone.identity:
            raise ValueError(f"{path}: was trained on another backbone ({meta['base']}); load that one, or retrain it")
        if meta["reading"] != backbone.reading:
            raise ValueError(f"{path}: H was read otherwise ({meta['reading']}); configure it so, or retrain it")
        if meta["codes"] != rvq.identity:
            raise ValueError(f"{path}: was trained on another rvq.safetensors; load that one, or retrain it")
        lora = dict(meta["lora"], targets=tuple(meta["lora"]["targets"])) if meta["lora"] else {}
        parallel = meta["config"].get("heads_kind") == "parallel"
        connector = dict(meta["config"], sharpness=config.connector.sharpness if parallel else None)  # is not learned
        try:
            config = config.override(connector=connector, lora=lora)
        except ValueError:  # fields that this version does not know
            raise ValueError(
                f"{path}: is of another version of the connector; restore data_samples/ or retrain it"
            ) from None
        model = cls(config, backbone, rvq, lora=bool(lora))
        own = model.state()
        if set(own) != set(state):
            raise ValueError(f"{path}: holds other weights than this configuration has; load it with its own profile")
        wrong = [name for name, value in state.items() if value.shape != own[name].shape]
        if wrong:
            raise ValueError(f"{path}: {wrong[0]} has another size in this profile; load it with its own profile")
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)
        return model.eval()


def lora_config(config: LoRAConfig) -> LoraConfig:
    """App. B's LoRA for peft."""
    return LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=list(config.targets),
        task_type="CAUSAL_LM",
    )  # fmt: skip


def _place(layer: LoraLayer) -> None:
    """LoRA learns in float32 whatever its base is in, and stands where its base computes."""
    base = layer.get_base_layer()
    hook = getattr(base, "_hf_hook", None)  # of a base that waits on disk (``step_audio.from_pretrained``)
    device = base.weight.device if hook is None else hook.execution_device
    fresh = base.weight.is_meta and torch.device(device).type != "meta"  # peft put it on the meta device
    for weights in (layer.lora_A["default"], layer.lora_B["default"]):
        (weights.to_empty(device=device) if fresh else weights.to(device)).float()
    if fresh:
        layer.reset_lora_parameters("default", init_lora_weights=True)
