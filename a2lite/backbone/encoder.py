"""What listens: log-mel frames to vectors the language model can read, in Step-Audio-2-mini's form and names.

mel 100 Hz -> conv2 50 Hz -> transformer blocks -> average pool 25 Hz -> adapter 12.5 Hz. Two seconds of question
become 25 vectors, one for each ``<audio_patch>`` of the prompt (Sec. 5.3; notebook 04 builds it by hand).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2lite.config import BackboneConfig


def encoded_length(frames: Tensor | int) -> Tensor | int:
    """Vectors at 25 Hz out of the encoder for ``frames`` of mel; the last 2 frames only pad (Step-Audio 2)."""
    return (frames - 2 + 1) // 2 // 2


def patch_count(frames: Tensor | int) -> Tensor | int:
    """Vectors at 12.5 Hz out of the adapter, so ``<audio_patch>`` tokens, for ``frames`` of mel."""
    return (encoded_length(frames) - 1) // 2 + 1


class Attention(nn.Module):
    """Multi-head self-attention; ``key`` has no bias, as in Whisper."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """x (B, T, D), seen (B, 1 or T, T) bool, which keys a query may look at -> (B, T, D)."""
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731  (B, heads, T, D / heads)
        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, D)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then an MLP four times as wide."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = Attention(width, heads)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = x + self.attn(self.attn_ln(x), seen)
        return x + self.mlp(self.mlp_ln(x))


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's positions, (length, width): where the learned ones start."""
    scales = torch.exp(-math.log(10000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * scales  # (length, width / 2)
    return torch.cat([angles.sin(), angles.cos()], 1)


class Encoder(nn.Module):
    """(B, F, n_mels) mel at 100 Hz with its lengths -> (B, T, encoder_width) at 25 Hz.

    A ragged batch gives what each utterance gives alone: whatever a padded frame could reach is set to zero.
    """

    def __init__(self, config: BackboneConfig):
        super().__init__()
        width, self.context = config.encoder_width, config.encoder_context
        self.conv1 = nn.Conv1d(config.n_mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.positional_embedding = nn.Embedding(self.context, width)
        self.positional_embedding.weight.data = 0.1 * sinusoids(self.context, width)  # quieter than the sound
        self.pool_first, self.window = config.encoder_pool_first, config.encoder_window
        self.local = None
        if config.encoder_local:
            self.local = nn.Conv1d(width, width, config.encoder_local, padding="same", groups=width)
        self.blocks = nn.ModuleList(Block(width, config.encoder_heads) for _ in range(config.encoder_layers))
        self.avg_pooler = nn.AvgPool1d(2, 2)
        self.after_norm = nn.LayerNorm(width)

    def forward(self, mel: Tensor, frames: Tensor) -> Tensor:
        """mel (B, F, n_mels), zero beyond ``frames`` (B,); ValueError when longer than the positions reach."""
        positions = (mel.shape[1] + 1) // 2
        if positions > self.context:
            raise ValueError(
                f"{mel.shape[1]} mel frames need {positions} positions, the encoder has {self.context}; "
                f"cut the sound into pieces of at most {self.context // 50} s"
            )
        x = F.gelu(self.conv1(mel.transpose(1, 2)))  # (B, D, F)
        x = x * _within(frames, x.shape[2])[:, None]
        lengths, valid = (frames + 1) // 2, _within((frames - 1) // 2, positions)
        x = F.gelu(self.conv2(x)) * _within(lengths, positions)[:, None]  # (B, D, F / 2)
        if self.pool_first:
            valid = _within(lengths // 2, positions // 2)
            x = self.avg_pooler(x) * valid[:, None]  # (B, D, F / 4)
        if self.local is not None:
            x = x + self.local(x)
        x = x.transpose(1, 2)  # (B, T, D)
        x = x + self.positional_embedding(torch.arange(x.shape[1], device=x.device))
        seen = valid[:, None]
        if self.window:
            place = torch.arange(x.shape[1], device=x.device)
            near = (place[:, None] - place).abs() <= self.window
            seen = near & (seen | torch.eye(len(place), dtype=torch.bool, device=x.device))  # a pad sees itself
        for block in self.blocks:
            x = block(x, seen)
        if not self.pool_first:
            x = self.avg_pooler(x.transpose(1, 2)).transpose(1, 2)  # (B, F / 4, D)
        real = _within(lengths // 2, x.shape[1])
        return self.after_norm(x) * real[:, :, None]


def _within(lengths: Tensor, size: int) -> Tensor:
    """(B, size) bool: which positions lie inside each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class Adapter(nn.Module):
    """(B, T, encoder_width) at 25 Hz -> (B, T', hidden) at 12.5 Hz, the width of the language model."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.conv = nn.Conv1d(config.encoder_width, config.encoder_width, 3, stride=2, padding=1)
        self.linear1 = nn.Linear(config.encoder_width, config.adapter_width)
        self.linear2 = nn.Linear(config.adapter_width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.conv(x.transpose(1, 2))).transpose(1, 2)  # (B, T / 2, D)
        return self.linear2(F.relu(self.linear1(x)))
