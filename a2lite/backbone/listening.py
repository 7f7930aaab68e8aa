"""Ears: encoder and adapter learn by CTC to say, in the language model's own embeddings, what they hear.

Steps (iii) and (iv) of ``pretraining``, the part that speech recognition had in Step-Audio-2's; notebook 04.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2lite.backbone.encoder import patch_count
from a2lite.backbone.model import Backbone
from a2lite.backbone.tasks import Item
from a2lite.backbone.tokens import Vocabulary


def augment(mel: Tensor, generator: torch.Generator, warp: float = 0.1) -> Tensor:
    """Another voice says it, (F, n_mels) -> (F', n_mels): tempo, vocal tract length, loudness, two masks."""
    tempo, tract, shift, gain = (2 * torch.rand(4, generator=generator) - 1).tolist()
    frames, bins = max(16, round(len(mel) * (1 + warp * tempo))), mel.shape[1]
    t = torch.linspace(-1, 1, frames)
    f = torch.linspace(-1, 1, bins) * (1 + warp * tract) + warp * tract + 0.05 * shift  # the lowest bin stays
    grid = torch.stack(torch.broadcast_tensors(f[None], t[:, None]), -1)  # (F', n_mels, 2)
    image = F.grid_sample(mel.float()[None, None], grid[None], padding_mode="border", align_corners=True)
    mel = image[0, 0] + 0.1 * gain
    for axis, most in ((0, 12), (1, 10)):
        width = int(torch.randint(most, (1,), generator=generator))
        start = int(torch.randint(max(1, mel.shape[axis] - width), (1,), generator=generator))
        mel.narrow(axis, start, min(width, mel.shape[axis])).fill_(mel.mean())
    return mel


class Listener(nn.Module):
    """Encoder and adapter under CTC whose output layer is the language model's embedding of text.

    Blank is the embedding of ``<audio_patch>`` itself. Directions are compared after whitening: words that behave
    alike, as the topics do, have embeddings alike, and would be told apart last. A new adapter starts at the
    embeddings' mean (``begin``). CTC asks only that each
    vector points the right way; ``settling_loss`` then brings it to the very place that the language model knows.
    """

    def __init__(self, model: Backbone):
        super().__init__()
        self.encoder, self.adapter = model.encoder, model.adapter
        v, table = model.vocabulary, model.lm.get_input_embeddings().weight.detach()
        targets = torch.cat([table[v.audio_patch][None], table[: v.texts]])  # blank first
        self.register_buffer("mean", targets.mean(0))
        self.register_buffer("targets", targets - self.mean)
        self.register_buffer("white", whitening(self.targets))
        self.scale = nn.Parameter(torch.tensor(16.0))

    def forward(self, mels: Tensor, frames: Tensor) -> Tensor:
        """Log-probabilities (M, P, 1 + text tokens) of blank and text."""
        return self.chances(self.adapter(self.encoder(mels, frames)))

    def chances(self, heard: Tensor) -> Tensor:
        """The adapter's vectors (M, P, hidden) as log-probabilities: how near they point to each embedding."""
        x = F.normalize((heard - self.mean) @ self.white, dim=-1)
        return (self.scale * x @ F.normalize(self.targets @ self.white, dim=1).T).log_softmax(-1)

    def loss(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """CTC in nats per text token."""
        mels, frames, texts, counts = batch
        return {"loss": self._ctc(self(mels, frames), frames, texts, counts)}

    def settling_loss(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], weight: float = 5.0) -> dict[str, Tensor]:
        """CTC, and the squared distance of each vector to the embedding of what it says (``pull``)."""
        mels, frames, texts, counts = batch
        heard = self.adapter(self.encoder(mels, frames))
        chances = self.chances(heard)
        meant = (chances.detach().exp().float() @ self.targets) + self.mean  # (M, P, hidden)
        real = torch.arange(heard.shape[1], device=heard.device) < patch_count(frames)[:, None]
        pull = (heard - meant).square().sum(-1)[real].mean()
        ctc = self._ctc(chances, frames, texts, counts)
        return {"loss": ctc + weight * pull, "ctc": ctc.detach(), "pull": pull.detach()}

    def _ctc(self, chances: Tensor, frames: Tensor, texts: Tensor, counts: Tensor) -> Tensor:
        return F.ctc_loss(chances.transpose(0, 1).float(), texts + 1, patch_count(frames), counts, zero_infinity=True)

    @torch.no_grad()
    def read(self, mels: Tensor, frames: Tensor) -> list[list[int]]:
        """Greedy: per sound the text ids that it says; a repeated id counts once unless a blank divides it."""
        best = self(mels.to(self.mean.device), frames.to(self.mean.device)).argmax(-1)
        rows = [row[:n] for row, n in zip(best.tolist(), patch_count(frames).tolist(), strict=True)]
        return [
            [k - 1 for k, before in zip(row, [0, *row], strict=False) if k and k != before] for row in rows
        ]

    @torch.no_grad()
    def begin(self) -> None:
        """A new adapter's vectors start around the mean of the embeddings."""
        self.adapter.linear2.bias.copy_(self.mean)

    @torch.no_grad()
    def settle(self, mels: Tensor, frames: Tensor) -> None:
        """Bring the vectors to the embeddings' distance from their mean, as a start for ``settling_loss``."""
        device = self.mean.device
        x = self.adapter(self.encoder(mels.to(device), frames.to(device))) - self.mean
        factor = self.targets.norm(dim=1).mean() / x.norm(dim=-1).mean()
        self.adapter.linear2.weight *= factor
        self.adapter.linear2.bias.sub_(self.mean).mul_(factor).add_(self.mean)


def whitening(vectors: Tensor, floor: float = 0.1) -> Tensor:
    """(N, D) centred -> (D, D) that makes their covariance nearly the identity; ``floor`` in mean variances."""
    variances, axes = torch.linalg.eigh(vectors.T @ vectors / len(vectors))
    return axes * (variances + floor * variances.mean()).rsqrt() @ axes.T


def edits(left: Sequence[int], right: Sequence[int]) -> int:
    """Levenshtein distance: insertions, deletions and substitutions that turn one row of ids into the other."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def error_rate(listener: Listener, items: Sequence[Item], vocabulary: Vocabulary) -> float:
    """Edits per token between what is read from the questions and what they say."""
    wrong = total = 0
    for item in items:
        for mel in item.last.question_mels[:1]:
            said = vocabulary.encode(item.last.question)
            (heard,) = listener.read(mel.float()[None], torch.tensor([len(mel)]))
            wrong, total = wrong + edits(heard, said), total + len(said)
    return wrong / max(1, total)
