"""What the speech tokenizer is made of: finite scalar quantization, an encoder, a causal decoder.

FSQ is Mentzer et al. 2023 (arXiv:2309.15505), as in Step-Audio 2's S3 tokenizer; the convolutions are ours.
Built by hand in notebooks/04_audio_language_model.ipynb.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2lite.rvq.model import Cache, CausalConv1d


class FSQ(nn.Module):
    """Finite scalar quantization: each dimension is squeezed by tanh, then rounded to one of its levels.

    The codebook is the grid itself: nothing is learned and no code can die. Gradients go straight through the
    rounding (Mentzer et al., Sec. 3.1 and App. A).
    """

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        levels = torch.tensor(list(levels))
        basis = torch.cumprod(levels, 0) // levels  # 1, L1, L1 L2, ...
        self.codes = int(levels.prod())
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """(..., dims) real numbers to (..., dims) on the grid, within [-1, 1]."""
        half = (self.levels - 1) * 1.001 / 2  # a little over, so that the outermost levels are reached
        offset = (self.levels % 2 == 0) * 0.5  # an even number of levels has none in the middle
        bounded = torch.tanh(z + torch.atanh(offset / half)) * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self.levels // 2)

    def indices(self, grid: Tensor) -> Tensor:
        """(..., dims) on the grid to (...) int64 in 0 .. codes - 1."""
        half = self.levels // 2
        return (((grid * half).round().long() + half) * self.basis).sum(-1)

    def grid(self, indices: Tensor) -> Tensor:
        """(...) indices to (..., dims) on the grid: the inverse of ``indices``."""
        half = self.levels // 2
        return ((indices[..., None] // self.basis) % self.levels - half) / half


class Block(nn.Module):
    """Residual block that looks ``dilation`` frames back and ahead. (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)  # over channels, so that no frame sees another through it
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)

    def normalise(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.gelu(self.conv(self.normalise(x))))


class CausalBlock(Block):
    """The same, looking back only: ``2 * dilation`` frames."""

    def __init__(self, width: int, dilation: int):
        super().__init__(width, dilation)
        self.conv = CausalConv1d(width, width, 3, dilation=dilation)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        return x + self.mix(F.gelu(self.conv(self.normalise(x), cache)))


class Upsample(nn.ConvTranspose1d):
    """Twice the frames: each becomes two and none looks aside. (B, C, T) -> (B, C / shrink, 2 T)."""

    def __init__(self, width: int, shrink: int = 1):
        super().__init__(width, width // shrink, kernel_size=2, stride=2)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        return super().forward(x)


class Encoder(nn.Sequential):
    """Log-mel (B, n_mels, T) at 100 Hz -> (B, dims, T / 4); it looks both ways."""

    def __init__(self, n_mels: int, width: int, dims: int):
        super().__init__(
            nn.Conv1d(n_mels, width // 2, 5, padding=2), Block(width // 2, 1),
            nn.Conv1d(width // 2, width, 4, stride=2, padding=1), Block(width, 1), Block(width, 2),
            nn.Conv1d(width, width, 4, stride=2, padding=1), Block(width, 1), Block(width, 2),
            Block(width, 1), nn.Conv1d(width, dims, 1),
        )  # fmt: skip


class Decoder(nn.ModuleList):
    """FSQ grid (B, A, dims) at 25 Hz -> (B, 4 A, bins) at 100 Hz; causal, so that it runs chunk by chunk."""

    def __init__(self, dims: int, width: int, bins: int):
        super().__init__([
            CausalConv1d(dims, width, 3), *(CausalBlock(width, dilation) for dilation in (1, 2, 4)),
            Upsample(width), *(CausalBlock(width, dilation) for dilation in (1, 3)),
            Upsample(width, shrink=2), *(CausalBlock(width // 2, dilation) for dilation in (1, 3)),
            CausalConv1d(width // 2, bins, 3),
        ])  # fmt: skip

    def forward(self, grid: Tensor, cache: Cache) -> Tensor:
        x = grid.transpose(1, 2)  # (B, dims, A)
        for layer in self:
            x = layer(x, cache)
        return x.transpose(1, 2)  # (B, 4 A, bins)
