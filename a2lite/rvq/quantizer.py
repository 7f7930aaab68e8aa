"""Residual quantisation (Eq. 3): a vector as the sum of one entry from each of N_q codebooks.

Sec. 5.1 of A2-LLM; built in notebooks/03_rvq_tokenization.ipynb.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2lite.config import RVQConfig
from a2lite.parallel import agreed, gather


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index (...,) of the entry of ``codebook`` (K, d) nearest to each of ``vectors`` (..., d)."""
    return (codebook.square().sum(-1) - 2 * vectors @ codebook.T).argmin(-1)


def residual_codes(z: Tensor, codebooks: Tensor) -> Tensor:
    """Eq. 3, greedily: latents (..., d_z) -> codes (..., N_q), each nearest to what those before leave over."""
    codes = []
    for codebook in codebooks:
        codes.append(nearest(z, codebook))
        z = z - codebook[codes[-1]]
    return torch.stack(codes, -1)


def kmeans(points: Tensor, codes: int, rounds: int = 10) -> Tensor:
    """``codes`` centres (K, d) of ``points`` (n, d), started at random points; an empty one stays."""
    drawn = torch.randint(len(points), (codes,), device=points.device)
    if len(points) >= codes:
        drawn = torch.randperm(len(points), device=points.device)[:codes]
    centres = points[agreed(drawn)]
    for _ in range(rounds):
        counts, sums = _per_code(points, nearest(points, centres), codes)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres


def _per_code(points: Tensor, chosen: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """How many of ``points`` (n, d) chose each code, (K,), and their sums, (K, d)."""
    members = F.one_hot(chosen, codes).to(points.dtype)  # (n, K)
    return members.sum(0), members.T @ points


class ResidualQuantizer(nn.Module):
    """N_q codebooks of K vectors (Eq. 3); ``codebook="ema"`` moves them by averages, "gradient" by Eq. 4."""

    def __init__(self, config: RVQConfig):
        super().__init__()
        if config.codebook not in ("ema", "gradient"):
            raise ValueError(f"rvq.codebook {config.codebook!r}: expected 'ema' or 'gradient'")
        self.config = config
        start = (torch.rand(config.quantizers, config.codes, config.latent) * 2 - 1) / config.codes
        if config.codebook == "gradient":
            self.codebooks = nn.Parameter(start)  # (N_q, K, d_z)
            return
        self.register_buffer("codebooks", start)
        self.register_buffer("counts", torch.ones(config.quantizers, config.codes))  # EMA of each code's use
        self.register_buffer("started", torch.tensor(False))  # k-means has given the first codebooks

    def forward(self, z: Tensor, learn: bool = False) -> tuple[Tensor, Tensor]:
        """z (..., d_z) -> q (..., d_z), the sum of the chosen vectors, and codes (..., N_q).

        With ``learn``, EMA codebooks follow z; gradient ones wait for the optimiser. Of several processes each
        follows the latents of all, so that one codebook comes out.
        """
        learn = learn and self.config.codebook == "ema"
        if learn:
            every = gather(z.detach()).flatten(0, -2)
            if not self.started:
                self._start(every)
        residual, q, codes = z.detach(), torch.zeros_like(z), []
        for level, codebook in enumerate(self.codebooks):
            chosen = nearest(residual, codebook.detach())
            entry = codebook[chosen]
            if learn:
                every = self._follow(level, every)
            q, residual = q + entry, residual - entry.detach()
            codes.append(chosen)
        return q, torch.stack(codes, -1)

    def vectors(self, codes: Tensor, levels: int | None = None) -> Tensor:
        """Codes (..., N_q) -> the sum of their first ``levels`` vectors (all by default), (..., d_z)."""
        levels = self.config.quantizers if levels is None else levels
        return sum(self.codebooks[level][codes[..., level]] for level in range(levels))

    @torch.no_grad()
    def _start(self, residual: Tensor) -> None:
        """K-means, level after level, on the first batch's latents (n, d_z)."""
        for level in range(self.config.quantizers):
            centres = kmeans(residual, self.config.codes)
            chosen = nearest(residual, centres)
            self.codebooks[level] = centres
            self.counts[level] = _per_code(residual, chosen, self.config.codes)[0]
            residual = residual - centres[chosen]
        self.started.fill_(True)

    @torch.no_grad()
    def _follow(self, level: int, residual: Tensor) -> Tensor:
        """Move each code towards the mean of what chooses it; one hardly ever chosen is revived at a point.

        residual (n, d_z) -> what this level leaves over of it, before it moved.
        """
        c, counts, codebook = self.config, self.counts[level], self.codebooks[level]
        chosen = nearest(residual, codebook)
        left = residual - codebook[chosen]
        fresh, sums = _per_code(residual, chosen, c.codes)
        total = c.ema_decay * counts[:, None] * codebook + (1 - c.ema_decay) * sums
        counts.mul_(c.ema_decay).add_(fresh, alpha=1 - c.ema_decay)
        codebook.copy_(total / counts.clamp(min=1e-6)[:, None])
        share = fresh.sum() / c.codes  # the count of a code in even use
        dead = counts < c.revive_below * share
        drawn = agreed(torch.randint(len(residual), (c.codes,), device=residual.device))
        codebook.copy_(torch.where(dead[:, None], residual[drawn], codebook))
        counts.copy_(torch.where(dead, 0.5 * share, counts))
        return left


def usage(codes: Tensor, size: int) -> tuple[list[float], list[float]]:
    """Per level of codes (..., N_q): which fraction of the ``size`` codes occurs, and the perplexity."""
    fractions, perplexities = [], []
    for level in codes.flatten(0, -2).T:
        share = torch.bincount(level, minlength=size).double() / len(level)
        fractions.append(float((share > 0).double().mean()))
        perplexities.append(float(torch.special.entr(share).sum().exp()))
    return fractions, perplexities
