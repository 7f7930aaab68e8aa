"""The motion tokenizer (Fig. 2, Eq. 4): an encoder that may look ahead, codebooks, and a causal decoder.

Sec. 5.1 and App. B of A2-LLM; built in notebooks/03_rvq_tokenization.ipynb. Because the decoder sees the past
only, decoding code by code equals decoding the whole sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2lite.config import MotionConfig, RVQConfig
from a2lite.fit import fingerprint
from a2lite.rvq.loss import Geometry, squared_norm, weights
from a2lite.rvq.quantizer import ResidualQuantizer

Cache = dict[nn.Module, Tensor]  # per convolution, the last inputs that it has seen


class CausalConv1d(nn.Conv1d):
    """A convolution of (B, C, T) that sees the past only: zeros at first, then what ``cache`` holds."""

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        context = (self.kernel_size[0] - 1) * self.dilation[0]
        past = cache[self] if self in cache else x.new_zeros(*x.shape[:2], context)
        x = torch.cat([past, x], -1)
        cache[self] = x[..., x.shape[-1] - context :]
        return super().forward(x)


class Block(nn.Module):
    """Residual block of the encoder: it looks ``dilation`` frames back and ahead. (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int, dilation: int, dropout: float):
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.mix(F.relu(self.conv(F.relu(x)))))


class CausalBlock(Block):
    """Residual block of the decoder: the same, looking back only."""

    def __init__(self, width: int, dilation: int, dropout: float):
        super().__init__(width, dilation, dropout)
        self.conv = CausalConv1d(width, width, 3, dilation=dilation)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        return x + self.dropout(self.mix(F.relu(self.conv(F.relu(x), cache))))


class Encoder(nn.Module):
    """Normalised motion (B, T, 58), T a multiple of G -> latents z (B, T / G, d_z)."""

    def __init__(self, config: RVQConfig, motion: MotionConfig):
        super().__init__()
        width, dilations = config.width, [3**i for i in range(config.blocks - 1)]
        self.layers = nn.Sequential(
            nn.Conv1d(motion.dim, width, 3, padding=1),
            *[Block(width, dilation, config.dropout) for dilation in dilations],
            nn.Conv1d(width, width, config.group, config.group),  # 25 fps -> 5 Hz
            Block(width, 1, config.dropout),
            nn.Conv1d(width, config.latent, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.transpose(1, 2)).transpose(1, 2)


class Decoder(nn.Module):
    """Quantised latents (B, N, d_z) -> normalised motion (B, G N, 58), causal; ``cache`` carries it on."""

    def __init__(self, config: RVQConfig, motion: MotionConfig):
        super().__init__()
        width, dilations = config.width, [3**i for i in reversed(range(config.blocks - 1))]
        self.enter = CausalConv1d(config.latent, width, 3)
        self.slow = CausalBlock(width, 1, config.dropout)
        self.upsample = nn.ConvTranspose1d(width, width, config.group, config.group)  # 5 Hz -> 25 fps
        self.fast = nn.ModuleList(CausalBlock(width, dilation, config.dropout) for dilation in dilations)
        self.leave = CausalConv1d(width, motion.dim, 3)

    def forward(self, q: Tensor, cache: Cache) -> Tensor:
        x = self.slow(self.enter(q.transpose(1, 2), cache), cache)
        x = self.upsample(x)  # (B, width, N) -> (B, width, G N)
        for block in self.fast:
            x = block(x, cache)
        return self.leave(x, cache).transpose(1, 2)


class MotionRVQ(nn.Module):
    """The RVQ-VAE of Sec. 5.1: motion (B, T, 58) <-> codes (B, T / G, N_q)."""

    def __init__(self, config: RVQConfig, motion: MotionConfig | None = None):
        super().__init__()
        motion = motion or MotionConfig()
        if config.reduction not in ("mean", "sum"):
            raise ValueError(f"rvq.reduction {config.reduction!r}: expected 'mean' or 'sum'")
        if config.param_space not in ("normalised", "raw"):
            raise ValueError(f"rvq.param_space {config.param_space!r}: expected 'normalised' or 'raw'")
        self.config, self.dim = config, motion.dim
        self.encoder, self.decoder = Encoder(config, motion), Decoder(config, motion)
        self.quantizer = ResidualQuantizer(config)
        self.register_buffer("mean", torch.zeros(motion.dim))
        self.register_buffer("std", torch.ones(motion.dim))

    @property
    def identity(self) -> str:
        """Tells it from other motion tokenizers (``fit.fingerprint``)."""
        return fingerprint(next(self.encoder.parameters()))

    @classmethod
    def from_statistics(cls, config: RVQConfig, mean: Tensor, std: Tensor) -> MotionRVQ:
        """A new model that normalises by ``mean`` and ``std`` (58,).

        No std is below ``config.std_floor`` times the largest of its part (expression, jaw, rotation, eyelids).
        """
        model, parts = cls(config), MotionConfig
        model.mean.copy_(mean)
        for part in (parts.expression, parts.jaw, parts.rotation, parts.eyelid):
            floor = max(config.std_floor * std[part].max().item(), 1e-3)
            model.std[part] = std[part].clamp(min=floor)
        return model

    @classmethod
    def from_motions(cls, config: RVQConfig, motions: Sequence[Tensor]) -> MotionRVQ:
        """``from_statistics`` of all frames of ``motions``, each (T, 58)."""
        frames = torch.cat([torch.as_tensor(motion) for motion in motions]).float()
        return cls.from_statistics(config, frames.mean(0), frames.std(0))

    def normalise(self, motion: Tensor) -> Tensor:
        return (motion - self.mean) / self.std

    def denormalise(self, motion: Tensor) -> Tensor:
        return motion * self.std + self.mean

    def pad(self, motion: Tensor) -> Tensor:
        """Repeat the last frame until T is a multiple of G."""
        if motion.ndim != 3 or motion.shape[-1] != self.dim or motion.shape[1] == 0:
            raise ValueError(f"motion {tuple(motion.shape)}: expected (B, T, {self.dim}) with T > 0")
        missing = -motion.shape[1] % self.config.group
        return torch.cat([motion, motion[:, -1:].expand(-1, missing, -1)], 1)

    def latents(self, motion: Tensor) -> Tensor:
        """Motion (B, T, 58) -> z (B, ceil(T / G), d_z)."""
        return self.encoder(self.normalise(self.pad(motion)))

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (..., d_z) -> q (..., d_z) and codes (..., N_q), Eq. 3."""
        return self.quantizer(z)

    @torch.no_grad()
    def encode(self, motion: Tensor) -> Tensor:
        """Motion (B, T, 58) -> codes (B, ceil(T / G), N_q) int64; the last frame fills up the last group."""
        if not torch.isfinite(motion).all():
            raise ValueError("motion: holds NaN or infinite values; expected finite FLAME parameters")
        return self.quantizer(self.latents(motion))[1]

    @torch.no_grad()
    def decode(self, codes: Tensor, levels: int | None = None) -> Tensor:
        """Codes (B, N, N_q) -> motion (B, G N, 58); ``levels`` = k reads the first k of each token."""
        return self.stream(levels).step(codes)

    def stream(self, levels: int | None = None) -> Stream:
        """A decoder to be fed codes as they come."""
        return Stream(self, levels)

    def forward(
        self, motion: Tensor, geometry: Geometry | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Motion (B, T, 58) -> reconstruction (B, T, 58), codes (B, ceil(T / G), N_q), terms of Eq. 4 and 7.

        Eq. 9 and 10 need a ``geometry``. ``losses["loss"]`` is the weighted sum, the others are unweighted.
        """
        z = self.latents(motion)
        q, codes = self.quantizer(z, learn=self.training)
        passed = z + (q - z).detach()  # straight-through: dL/dz := dL/dq
        recon = self.denormalise(self.decoder(passed, {}))[:, : motion.shape[1]]
        losses = self._vq(z, q) | self.reconstruction_terms(motion, recon, geometry)
        scale = weights(self.config)
        losses["loss"] = sum(scale[name] * value for name, value in losses.items())
        return recon, codes, losses

    def _vq(self, z: Tensor, q: Tensor) -> dict[str, Tensor]:
        """Eq. 4's last two terms; under EMA the codebook moves by itself and the first of them falls away."""
        how = self.config.reduction
        terms = dict(commitment=squared_norm(z - q.detach(), how))
        if self.config.codebook == "gradient":
            terms["codebook"] = squared_norm(z.detach() - q, how)
        return terms

    def reconstruction_terms(self, motion: Tensor, recon: Tensor, geometry: Geometry | None) -> dict[str, Tensor]:
        """Eq. 8 on parameters, Eq. 9 and 10 on zero-pose vertices."""
        how = self.config.reduction
        unit = self.std if self.config.param_space == "normalised" else 1.0
        terms = dict(param=squared_norm((motion - recon) / unit, how))
        if geometry is None:
            return terms
        with torch.no_grad():
            truth = geometry.vertices(motion)
        lips, face, body = (a - b for a, b in zip(truth, geometry.vertices(recon), strict=True))
        return terms | dict(
            lips=squared_norm(lips, how),
            face=squared_norm(face, how),
            velocity=squared_norm(body.diff(dim=1), how),
            acceleration=squared_norm(body.diff(n=2, dim=1), how),
        )


class Stream:
    """Motion from codes as they arrive; any chunking gives what ``decode`` gives, with no look-ahead."""

    def __init__(self, model: MotionRVQ, levels: int | None = None):
        known = model.config.quantizers
        if levels is not None and not 1 <= levels <= known:
            raise ValueError(f"levels {levels}: expected 1 to {known}")
        self.model, self.levels, self.cache = model, levels, {}

    @torch.no_grad()
    def step(self, codes: Tensor) -> Tensor:
        """The next codes (B, n, N_q), n > 0 -> their motion (B, G n, 58)."""
        c = self.model.config
        if codes.ndim != 3 or codes.shape[-1] != c.quantizers or codes.shape[1] == 0:
            raise ValueError(f"codes {tuple(codes.shape)}: expected (B, N, {c.quantizers}) with N > 0")
        if codes.min() < 0 or codes.max() >= c.codes:
            raise ValueError(f"codes {int(codes.min())} to {int(codes.max())}: expected 0 to {c.codes - 1}")
        q = self.model.quantizer.vectors(codes, self.levels)
        return self.model.denormalise(self.model.decoder(q, self.cache))
