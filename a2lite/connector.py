"""The Motion Connector: the language model's hidden states in, the six motion codes of every fifth frame out.

Sec. 5.2 and App. B of A2-LLM; built in notebooks/05_connector_attention.ipynb. A convolution brings H from 25 Hz
to 5 Hz; Transformer decoder layers let the segment's queries look at each other and at the motion codes of the
segment before; N_q heads predict the levels of the residual quantizer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2lite.config import ConnectorConfig, RVQConfig
from a2lite.rvq.quantizer import residual_codes


class CrossAttentionLayer(nn.Module):
    """A decoder layer without self-attention: Sec. 5.2 taken at its word, pre-norm as the default layer."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward), nn.GELU(), nn.Dropout(dropout), nn.Linear(feedforward, width)
        )
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, memory: Tensor, tgt_key_padding_mask: Tensor | None = None) -> Tensor:
        looked = self.attention(self.norm1(queries), memory, memory, need_weights=False)[0]
        queries = queries + self.dropout(looked)
        return queries + self.dropout(self.feedforward(self.norm2(queries)))


class DepthHeads(nn.Module):
    """Level k given the query and the codes of the levels above it; an option beside the paper's parallel heads."""

    def __init__(self, width: int, quantizers: int, codes: int):
        super().__init__()
        self.code = nn.ModuleList(nn.Embedding(codes, width) for _ in range(quantizers - 1))
        self.mix = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
                                 for _ in range(quantizers))
        self.head = nn.ModuleList(nn.Linear(width, codes) for _ in range(quantizers))

    def level(self, k: int, queries: Tensor, codes: Tensor) -> Tensor:
        """Logits (..., K) of level k from queries (..., W) and codes (..., >= k)."""
        known = sum((self.code[j](codes[..., j]) for j in range(k)), torch.zeros_like(queries))
        return self.head[k](self.mix[k](queries + known) + queries)

    def forward(self, queries: Tensor, codes: Tensor) -> Tensor:
        return torch.stack([self.level(k, queries, codes) for k in range(len(self.head))], -2)  # (..., N_q, K)


class MotionConnector(nn.Module):
    """H (B, T, d) at 25 Hz and the motion codes so far -> logits over N_q x K codes at 5 Hz (Eq. 2, Sec. 5.2).

    ``hidden`` is d, the width of the language model. At the paper's sizes it has 0.12 B parameters (Sec. 6.2).
    ``codebooks`` (N_q, K, d_z) are the motion tokenizer's, which ``config.sharpness`` needs.
    """

    def __init__(self, config: ConnectorConfig, rvq: RVQConfig, hidden: int, codebooks: Tensor | None = None):
        super().__init__()
        if config.heads_kind not in ("parallel", "depth"):
            raise ValueError(f"heads_kind {config.heads_kind!r}: expected 'parallel' or 'depth'")
        if config.sharpness is not None and config.heads_kind == "depth":
            raise ValueError(f"sharpness {config.sharpness} with heads_kind 'depth': expected None, or parallel heads")
        if config.sharpness is not None and codebooks is None:
            raise ValueError(f"sharpness {config.sharpness}: expected codebooks, the tokenizer's (rvq.quantizer)")
        self.register_buffer("codebooks", None if codebooks is None else codebooks.detach(), persistent=False)
        self.config, self.group, self.quantizers, self.codes = config, rvq.group, rvq.quantizers, rvq.codes
        width, longest = config.width, max(*config.segments, config.segment)
        self.downsample = nn.Conv1d(hidden, hidden, rvq.group, rvq.group)
        self.project = nn.Linear(hidden, width)
        self.history = nn.ModuleList(nn.Embedding(rvq.codes, width) for _ in range(rvq.quantizers))
        self.first_memory = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.query_position = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.memory_position = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.layers = nn.ModuleList(self._layer() for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        if config.heads_kind == "depth":
            self.heads = DepthHeads(width, rvq.quantizers, rvq.codes)
        else:
            self.heads = nn.ModuleList(nn.Linear(width, rvq.codes) for _ in range(rvq.quantizers))
        for embedding in self.history:
            nn.init.normal_(embedding.weight, std=0.05)

    def _layer(self) -> nn.Module:
        c = self.config
        if not c.self_attention:
            return CrossAttentionLayer(c.width, c.heads, c.feedforward, c.dropout)
        return nn.TransformerDecoderLayer(
            c.width, c.heads, c.feedforward, c.dropout, "gelu", batch_first=True, norm_first=True
        )

    # ---- the pieces of Sec. 5.2

    def queries(self, hidden: Tensor) -> Tensor:
        """Feature downsampling and alignment: H (B, T, d) -> H' (B, T // G, width)."""
        if hidden.shape[1] < self.group:
            raise ValueError(f"H has {hidden.shape[1]} states: expected at least {self.group}, one motion token")
        hidden = hidden.to(self.downsample.weight.dtype)  # of a language model in bfloat16
        return self.project(self.downsample(hidden.transpose(1, 2)).transpose(1, 2))

    def memory(self, codes: Tensor | None, batch: int) -> Tensor:
        """Embedded codes (B, m, N_q) of the previous segment -> (B, m, width); None: the learned first memory."""
        if codes is None:
            return self.first_memory.expand(batch, -1, -1)
        embedded = sum(table(codes[..., level]) for level, table in enumerate(self.history))
        return embedded + self.memory_position[-codes.shape[1] :]

    def decode(self, queries: Tensor, memory: Tensor, padding: Tensor | None = None) -> Tensor:
        """One segment: queries (B, n, width), memory (B, m, width), padding (B, n) True = absent -> (B, n, width)."""
        x = queries + self.query_position[: queries.shape[1]]
        for layer in self.layers:
            x = layer(x, memory, tgt_key_padding_mask=padding)
        return self.norm(x)

    def logits(self, x: Tensor, codes: Tensor) -> Tensor:
        """(..., width) -> (..., N_q, K); ``codes`` (..., N_q) is read by depth-conditional heads only."""
        if isinstance(self.heads, DepthHeads):
            return self.heads(x, codes)
        return torch.stack([head(x) for head in self.heads], -2)

    # ---- training: all segments of an answer at once, the true history

    def forward(self, hidden: Tensor, codes: Tensor, lengths: Tensor, segment: int | None = None) -> Tensor:
        """Teacher-forced logits (B, N, N_q, K) of codes (B, N, N_q) whose true numbers of tokens are ``lengths``.

        In training mode the history is spoiled (memory dropout, random deep codes) against exposure bias, and the
        segment's length, unless given, is drawn from ``config.segments``.
        """
        size = segment or self._segment()
        batch, tokens = codes.shape[:2]
        segments = -(-tokens // size)
        pad = segments * size - tokens
        queries = F.pad(self.queries(hidden)[:, :tokens], (0, 0, 0, pad))
        queries = queries.reshape(batch * segments, size, -1)  # (B * segments, S, width)
        history = F.pad(codes, (0, 0, 0, pad)).reshape(batch, segments, size, -1)
        memory = self._histories(history)
        absent = torch.arange(segments * size, device=codes.device) >= lengths[:, None]  # (B, segments * S)
        absent = absent.reshape(batch * segments, size)
        absent = absent & ~absent.all(1, keepdim=True)  # a row of pads attends to itself and is never read
        x = self.decode(queries, memory, absent).reshape(batch, segments * size, -1)[:, :tokens]
        return self.logits(x, codes)

    def _segment(self) -> int:
        lengths = self.config.segments
        return lengths[int(torch.randint(len(lengths), ()))] if self.training else self.config.segment

    def _histories(self, history: Tensor) -> Tensor:
        """Codes (B, segments, S, N_q) -> the memory of every segment, (B * segments, S, width)."""
        batch, segments, size, _ = history.shape
        previous = history[:, :-1].reshape(-1, size, self.quantizers)
        if self.training:
            previous = self._spoil(previous)
        first = self.memory(None, batch)[:, None].expand(-1, 1, size, -1)
        if segments == 1:
            return first.reshape(batch, size, -1)
        later = self.memory(previous, len(previous)).reshape(batch, segments - 1, size, -1)
        if self.training:
            dropped = torch.rand(batch, segments - 1, 1, 1, device=later.device) < self.config.memory_dropout
            later = torch.where(dropped, first.expand_as(later), later)
        return torch.cat([first, later], 1).reshape(batch * segments, size, -1)

    def _spoil(self, codes: Tensor) -> Tensor:
        """Replace codes below the first level at random, more often the deeper they lie."""
        depth = torch.linspace(0, 2, self.quantizers, device=codes.device)
        replaced = torch.rand(codes.shape, device=codes.device) < self.config.code_replacement * depth
        return torch.where(replaced, torch.randint_like(codes, self.codes), codes)

    # ---- inference: segment by segment, the model's own history

    def choose(self, logits: Tensor) -> Tensor:
        """Logits (..., N_q, K) -> codes (..., N_q): each level's likeliest, or with ``config.sharpness`` s those of
        the mean latent, the sum over levels of sum_k softmax(s logits)_k e_k.

        The paper is silent; the second is ours. Levels that are chosen apart do not fit each other, their mean does.
        """
        if self.config.sharpness is None:
            return logits.argmax(-1)
        chances = (self.config.sharpness * logits).softmax(-1)
        return residual_codes(torch.einsum("...lk,lkd->...d", chances, self.codebooks), self.codebooks)

    @torch.no_grad()
    def step(self, hidden: Tensor, previous: Tensor | None, absent: Tensor | None = None) -> Tensor:
        """One segment, greedy: H (B, n G, d) and the previous segment's codes (B, m, N_q) or None -> (B, n, N_q).

        ``absent`` (B, n) marks the tokens of a ragged batch that lie beyond their answer's end.
        """
        queries = self.queries(hidden)
        x = self.decode(queries, self.memory(previous, len(hidden)), absent)
        if not isinstance(self.heads, DepthHeads):
            return self.choose(self.logits(x, None))
        codes = torch.zeros(*x.shape[:2], self.quantizers, dtype=torch.long, device=x.device)
        for level in range(self.quantizers):
            codes[..., level] = self.heads.level(level, x, codes).argmax(-1)
        return codes

    @torch.no_grad()
    def generate(self, hidden: Tensor, segment: int | None = None, lengths: Tensor | None = None) -> Tensor:
        """Whole answers, segment after segment: H (B, T, d) -> codes (B, T // G, N_q).

        ``lengths`` (B,) are the true numbers of motion tokens of a ragged batch; codes beyond them mean nothing.
        """
        size = segment or self.config.segment
        span, tokens = size * self.group, hidden.shape[1] // self.group
        out: list[Tensor] = []
        for start in range(0, tokens * self.group, span):
            piece = hidden[:, start : min(start + span, tokens * self.group)]
            out.append(self.step(piece, out[-1] if out else None, self._absent(start, piece, lengths)))
        return torch.cat(out, 1) if out else hidden.new_zeros(len(hidden), 0, self.quantizers, dtype=torch.long)

    def _absent(self, start: int, piece: Tensor, lengths: Tensor | None) -> Tensor | None:
        if lengths is None:
            return None
        places = start // self.group + torch.arange(piece.shape[1] // self.group, device=piece.device)
        absent = places >= lengths[:, None]  # (B, n)
        return absent & ~absent.all(1, keepdim=True)


def motion_loss(logits: Tensor, codes: Tensor, lengths: Tensor, count: Tensor | None = None) -> dict[str, Tensor]:
    """Eq. 5: cross-entropy summed over levels, averaged over the real tokens; also each level's own (level1 ..).

    ``count`` divides in the place of the number of real tokens (see ``parallel.counted``).
    """
    real = torch.arange(codes.shape[1], device=codes.device) < lengths[:, None]  # (B, N)
    if count is None:
        count = real.sum()
        if count == 0:
            raise ValueError("motion_loss: no answer of the batch carries motion; expected at least one")
    sums = [F.cross_entropy(logits[real][:, k], codes[real][:, k], reduction="sum") for k in range(codes.shape[-1])]
    levels = torch.stack(sums) / count.clamp(min=1)
    return dict(motion=levels.sum(), **{f"level{k + 1}": value.detach() for k, value in enumerate(levels)})
