"""Encoder, adapter and Qwen2 as one module: from a dialogue to logits, hidden states H and the loss L_seq.

The shape of Step-Audio-2-mini (Sec. 5.3): the adapter's vectors take the places of the ``<audio_patch>``
embeddings, everything after that is a plain causal language model (Eq. 2 reads its H, Eq. 6 has its loss).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.utils import align_module_device
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface, Qwen2Config, Qwen2ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from a2lite.backbone.encoder import Adapter, Encoder, patch_count
from a2lite.backbone.tokens import IGNORE, Dialogue, Vocabulary
from a2lite.config import BackboneConfig
from a2lite.fit import fingerprint, load_checkpoint, save_checkpoint


@dataclass
class Batch:
    """Dialogues side by side, padded on the right (causal attention never looks there).

    ids, labels (B, L) int64; mels (M, F, n_mels) with frames (M,): every sound of the batch in reading order; counts
    (2,): by how many text and audio labels the loss divides its sums, its own ones unless ``parallel.counted`` says
    otherwise.
    """

    ids: Tensor
    labels: Tensor
    mels: Tensor
    frames: Tensor
    counts: Tensor

    def to(self, device: torch.device | str) -> Batch:
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


def collate(dialogues: Sequence[Dialogue]) -> Batch:
    """Dialogues of one vocabulary as a ``Batch``."""
    pad = nn.utils.rnn.pad_sequence
    v = dialogues[0].vocabulary
    mels = [mel.float() for d in dialogues for mel in d.mels]
    labels = pad([torch.tensor(d.labels) for d in dialogues], True, IGNORE)
    asked = labels[:, 1:][labels[:, 1:] != IGNORE]
    audio = int(v.is_audio(asked).sum())
    return Batch(
        ids=pad([torch.tensor(d.ids) for d in dialogues], True, v.endoftext),
        labels=labels,
        counts=torch.tensor([len(asked) - audio, audio], dtype=torch.float),
        mels=pad(mels, True) if mels else torch.zeros(0, 8, 1),
        frames=torch.tensor([len(mel) for mel in mels], dtype=torch.long),
    )


def qwen2_config(config: BackboneConfig, vocabulary: Vocabulary) -> Qwen2Config:
    """The language model's configuration for transformers."""
    return Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=config.tie_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=vocabulary.eot,
        pad_token_id=vocabulary.endoftext,
    )


def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options):
    """transformers' SDPA, in float32 on a processor: there its bfloat16 kernel is half as fast."""
    if query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    with torch.autocast("cpu", enabled=False):
        out, weights = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **options)
    return out.to(query.dtype), weights


ATTENTION = "a2lite_sdpa"
LOGITS = 2**27  # how many are held at once in training: 0.5 GB in float32
AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def targets(batch: Batch) -> Tensor:
    """The labels (N,) that the positions before them have to give."""
    target = batch.labels[:, 1:]
    return target[target != IGNORE]


def cross_entropies(head: nn.Linear, last: Tensor, target: Tensor, logits: int = LOGITS) -> Tensor:
    """The cross-entropy (N,) of each ``target`` (N,) from states ``last`` (N, hidden), never holding all logits.

    Of 158 720 words in float32, the logits of 26 000 positions would be 16 GB. About ``logits`` at a time are
    computed, and once more in the backward pass.
    """
    rows = max(1, logits // head.out_features)
    if len(target) <= rows:
        return _cross_entropies(head, last, target)
    pieces = zip(last.split(rows), target.split(rows), strict=True)
    return torch.cat([checkpoint(_cross_entropies, head, x, t, use_reentrant=False) for x, t in pieces])


def _cross_entropies(head: nn.Linear, last: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(head(last).to(last.device).float(), target, reduction="none")


class Backbone(nn.Module):
    """The large audio language model: hears, reads, and answers in interleaved text and audio tokens."""

    def __init__(self, config: BackboneConfig, vocabulary: Vocabulary):
        super().__init__()
        for name, allowed in (("hidden_state", ("at", "before")), ("tail", ("repeat", "drop"))):
            if getattr(config, name) not in allowed:
                raise ValueError(f"{name} {getattr(config, name)!r}: expected one of {', '.join(allowed)}")
        if config.hidden_layer not in (None, *range(1, config.layers)):
            raise ValueError(f"hidden_layer {config.hidden_layer}: expected None, or 1 to {config.layers - 1}")
        self.config, self.vocabulary = config, vocabulary
        self.speech = ""  # whose codes it speaks: ``SpeechTokenizer.identity``, set by pretraining
        self.encoder = Encoder(config)
        self.adapter = Adapter(config)
        self.lm = Qwen2ForCausalLM(qwen2_config(config, vocabulary))
        self.lm.set_attn_implementation(ATTENTION)
        if config.lite_embedding_std is not None:
            nn.init.normal_(self.lm.get_input_embeddings().weight, std=config.lite_embedding_std)

    @property
    def identity(self) -> str:
        """Tells it from other backbones (``fit.fingerprint``)."""
        table = self.lm.get_input_embeddings()
        with align_module_device(table):  # wherever it waits (``step_audio.from_pretrained``)
            return fingerprint(table.weight)

    @property
    def reading(self) -> dict[str, str | int | None]:
        """Which states are H (Eq. 2), as far as the paper leaves it open: the fields of ``config`` that say it."""
        return {name: getattr(self.config, name) for name in ("hidden_state", "hidden_layer", "tail")}

    @property
    def device(self) -> torch.device:
        """Where batches go: of several devices (``step_audio.from_pretrained``) the one that computes first."""
        hook = getattr(self, "_hf_hook", None)
        return self.adapter.linear1.weight.device if hook is None else torch.device(hook.execution_device)

    def hear(self, mels: Tensor, frames: Tensor) -> Tensor:
        """mels (M, F, n_mels) of ``frames`` (M,) -> (sum of patch counts, hidden), sound after sound."""
        x = self.adapter(self.encoder(mels.to(self.encoder.conv1.weight.dtype), frames))  # (M, P, hidden)
        inside = torch.arange(x.shape[1], device=x.device) < patch_count(frames)[:, None].to(x.device)
        return x[inside]

    def embed(self, batch: Batch) -> Tensor:
        """(B, L, hidden): token embeddings, with what was heard in the places of ``<audio_patch>``."""
        x = self.lm.get_input_embeddings()(batch.ids)
        if len(batch.frames):
            places = (batch.ids == self.vocabulary.audio_patch)[:, :, None]
            x = x.masked_scatter(places.to(x.device), self.hear(batch.mels, batch.frames).to(x))
        return x

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, L, vocabulary) and hidden states (B, L, hidden) of the layer that H is read from."""
        out = self.lm(inputs_embeds=self.embed(batch), output_hidden_states=True, use_cache=False)
        return out.logits, self.read(out.hidden_states)

    def labelled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As ``forward``, with logits (N, vocabulary) only where the next token has a label: all that L_seq needs."""
        last, hidden = self.before_logits(batch)
        return self.lm.lm_head(last).to(last.device), hidden

    def before_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As ``labelled``, without the last matrix: (N, hidden), which ``cross_entropies`` multiplies in chunks."""
        out = self.lm.model(inputs_embeds=self.embed(batch), output_hidden_states=True, use_cache=False)
        wanted = (batch.labels[:, 1:] != IGNORE).to(out.last_hidden_state.device)
        last = out.last_hidden_state[:, :-1][wanted]
        return last.to(batch.ids.device), self.read(out.hidden_states).to(batch.ids.device)

    def read(self, states: tuple[Tensor, ...]) -> Tensor:
        """The states (B, L, hidden) of one layer out of those after each (``config.hidden_layer``).

        The last layer's have gone through the final norm; an earlier layer's are brought to unit RMS instead.
        """
        layer = self.config.hidden_layer
        return states[-1] if layer is None else F.rms_norm(states[layer], states[layer].shape[-1:])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """L_seq as pretraining weighs it (``config.lite_text_weight``); beside it plain ``text`` and ``audio``."""
        c = self.config
        weight = c.text_weight if c.lite_text_weight is None else c.lite_text_weight
        each = cross_entropies(self.lm.lm_head, self.before_logits(batch)[0], targets(batch))
        return self.weighed(batch, each, weight)

    def sequence_loss(self, batch: Batch, logits: Tensor, text_weight: float = 1.0) -> dict[str, Tensor]:
        """Next-token cross-entropy of ``labelled`` logits (N, V): L_seq of Eq. 6 where ``text_weight`` is 1."""
        target = targets(batch)
        if logits.shape[:-1] != target.shape:
            raise ValueError(f"logits {tuple(logits.shape)}: expected (N, V) of labelled, N = {len(target)}")
        return self.weighed(batch, F.cross_entropy(logits.float(), target, reduction="none"), text_weight)

    def weighed(self, batch: Batch, each: Tensor, text_weight: float = 1.0) -> dict[str, Tensor]:
        """The losses of the labels (N,) as one ``loss``; beside it the means over ``text`` and ``audio``."""
        audio = self.vocabulary.is_audio(targets(batch))
        sums = torch.stack([(each * ~audio).sum(), (each * audio).sum()])
        weights = sums.new_tensor([text_weight, 1.0])
        text, sound = (sums / batch.counts.clamp(min=1)).detach()
        return {"loss": (sums * weights).sum() / (batch.counts * weights).sum(), "text": text, "audio": sound}

    def audio_hidden(self, batch: Batch, hidden: Tensor) -> list[Tensor]:
        """H of each labelled answer, (A, hidden) per dialogue: one state for every real audio code.

        Read "at" the code's own position or "before" it (``config.hidden_state``); the paper leaves it open.
        """
        places = self.vocabulary.is_code(batch.labels)
        if self.config.hidden_state == "before":
            places = places.roll(-1, 1)
        return [row[place] for row, place in zip(hidden, places, strict=True)]

    # ------------------------------------------------------------ checkpoints

    def save(self, path: Path, half: bool = True, **meta) -> None:
        """Weights (fp16 when ``half``) and the tokenizer in one safetensors file."""
        state = self.state_dict()
        if self.config.tie_embeddings:
            state.pop("lm.lm_head.weight")
        v = self.vocabulary
        meta |= dict(tokenizer=v.to_json(), codes=v.codes, rows=v.rows, speech=self.speech)
        save_checkpoint(path, state, self.config, half, **meta)

    @classmethod
    def load(cls, path: str | Path) -> Backbone:
        """What ``save`` wrote, in eval mode; one clear line of error for another file."""
        state, meta = load_checkpoint(path)
        if "tokenizer" not in meta:
            raise ValueError(f"{path}: holds no tokenizer; expected a backbone checkpoint")
        rows = (meta.get("codes"), meta.get("rows"))
        try:
            model = cls(BackboneConfig(**meta["config"]), Vocabulary.from_json(meta["tokenizer"], *rows))
            missing, unknown = model.load_state_dict(state, strict=False)
        except (TypeError, RuntimeError):  # fields or sizes that this version does not know
            missing, unknown = [], ["all"]
        if unknown or set(missing) - {"lm.lm_head.weight"}:
            raise ValueError(
                f"{path}: is of another version of the backbone; restore data_samples/ or retrain it"
            )
        model.speech = meta.get("speech", "")
        return model.eval()


def align_tail(hidden: Tensor, group: int, tail: str = "repeat") -> Tensor:
    """H (A, hidden) cut or lengthened to a multiple of ``group`` audio tokens (the paper does not say how).

    "repeat" repeats the last state, so that the face moves as long as the voice; "drop" drops the tail.
    """
    over = len(hidden) % group
    if tail == "drop" or over == 0:
        return hidden[: len(hidden) - over]
    if tail != "repeat":
        raise ValueError(f"tail {tail!r}: expected 'repeat' or 'drop'")
    return torch.cat([hidden, hidden[-1:].expand(group - over, -1)])
