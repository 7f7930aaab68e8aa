"""What a face can know from the voice alone, and the fair rival that also reads the question.

The same connector as A2-LLM's (Sec. 5.2), fed by embeddings of the true audio tokens through a small recurrent
net instead of a language model's hidden states. With ``emotions`` it is given a label besides, predicted from
the question's text by ``QuestionEmotion``: the cascade that a careful engineer would build. Used in notebooks
06 and 09.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from a2lite.a2llm import Example
from a2lite.config import Config
from a2lite.connector import MotionConnector, motion_loss
from a2lite.fit import Trace, fit, shuffled


class AudioOnly(nn.Module):
    """Audio tokens (B, A) -> features (B, A, d) -> the connector's logits. It may look ahead over the whole answer.

    ``codebooks`` as in ``MotionConnector``; ``emotions`` is the number of labels it may be told, 0 for none.
    """

    def __init__(self, config: Config, audio_codes: int, codebooks: Tensor | None = None, emotions: int = 0):
        super().__init__()
        width = config.backbone.hidden
        self.token = nn.Embedding(audio_codes, width)
        self.emotion = nn.Embedding(emotions, width) if emotions else None
        self.mix = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(3))
        self.recurrent = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.connector = MotionConnector(config.connector, config.rvq, width, codebooks)
        self.training_config = config.training

    def features(self, tokens: Tensor, emotion: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """tokens (B, A), emotion (B,) or None -> (B, A, d); ``lengths`` (B,) of a ragged batch, in audio tokens."""
        lengths = torch.full((len(tokens),), tokens.shape[1]) if lengths is None else lengths
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths.to(tokens.device)[:, None]
        real = real[:, None]  # (B, 1, A)
        x = self.token(tokens)
        if self.emotion is not None:
            if emotion is None:
                raise ValueError("emotion is None: this model was built with emotion labels, give one per answer")
            x = x + self.emotion(emotion)[:, None]
        x = x.transpose(1, 2) * real  # (B, d, A)
        for layer in self.mix:
            x = (x + F.gelu(layer(x))) * real
        x = x.transpose(1, 2)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return x + pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=x.shape[1])[0]

    def forward(self, tokens: Tensor, codes: Tensor, lengths: Tensor, emotion: Tensor | None = None) -> Tensor:
        """Teacher-forced logits (B, N, N_q, K), as ``MotionConnector.forward``; ``lengths`` (B,) in motion tokens."""
        return self.connector(self.features(tokens, emotion, lengths * self.connector.group), codes, lengths)

    @torch.no_grad()
    def generate(self, tokens: Tensor, emotion: Tensor | None = None) -> Tensor:
        """tokens (B, A), all of one length -> motion codes (B, A // G, N_q), its own history."""
        return self.connector.generate(self.features(tokens, emotion))


class QuestionEmotion(nn.Module):
    """The emotion of an answer from the question's text tokens: mean embedding, one hidden layer."""

    def __init__(self, vocabulary: int, emotions: int, width: int = 64):
        super().__init__()
        self.token = nn.EmbeddingBag(vocabulary, width)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, width), nn.GELU(), nn.Linear(width, emotions))

    def forward(self, questions: list[Tensor]) -> Tensor:
        """Text ids of B questions, each (L,) -> logits (B, emotions)."""
        starts = torch.tensor([0] + [len(q) for q in questions[:-1]]).cumsum(0)
        return self.head(self.token(torch.cat(questions), starts.to(questions[0].device)))


def _tokens(example: Example, group: int) -> Tensor:
    """The answer's audio tokens, (A,), the last one repeated up to a multiple of G."""
    tokens = example.item.last.codes
    return F.pad(tokens[None].float(), (0, -len(tokens) % group), mode="replicate")[0].long()


def train(
    model: AudioOnly, examples: Sequence[Example], steps: int, emotions: Sequence[int] | None = None,
    path: Path | None = None, seed: int = 0,
) -> Trace:
    """Train on the same examples, batch size and rate as A2-LLM's connector; ``emotions`` are the true labels."""
    training, group = model.training_config, model.connector.group
    pick = shuffled([len(example.codes) for example in examples], training.batch, seed)

    def batches(step: int):
        chosen = pick(step)
        codes = [examples[i].codes for i in chosen]
        return dict(
            tokens=pad_sequence([_tokens(examples[i], group) for i in chosen], True),
            codes=pad_sequence(codes, True), lengths=torch.tensor([len(x) for x in codes]),
            emotion=None if emotions is None else torch.tensor([emotions[i] for i in chosen]),
        )

    def loss(net: AudioOnly, batch: dict) -> dict[str, Tensor]:
        terms = motion_loss(net(**batch), batch["codes"], batch["lengths"])
        return dict(loss=terms["motion"], **terms)

    rate = training.lite_connector_lr or training.connector_lr
    settings = dict(examples=len(examples), training=asdict(training), connector=asdict(model.connector.config))
    return fit(model, loss, batches, steps=steps, lr=rate, name="audio only", path=path, seed=seed, settings=settings)


def predict(model: AudioOnly, examples: Sequence[Example], emotions: Sequence[int] | None = None) -> list[Tensor]:
    """Motion codes (N, N_q) per example, from the true audio tokens and (predicted) labels."""
    model.eval()
    out, device = [], model.token.weight.device
    for i, example in enumerate(examples):
        label = None if emotions is None else torch.tensor([emotions[i]], device=device)
        out.append(model.generate(_tokens(example, model.connector.group)[None].to(device), label)[0])
    return out


def train_question_emotion(
    model: QuestionEmotion, questions: Sequence[Tensor], emotions: Sequence[int], steps: int = 400, seed: int = 0
) -> Trace:
    """Learn emotions (as numbers) from the text ids of questions, each (L,)."""
    pick = shuffled([len(q) for q in questions], 64, seed)
    batches = lambda step: ([questions[i] for i in pick(step)], torch.tensor([emotions[i] for i in pick(step)]))  # noqa: E731
    loss = lambda net, batch: {"loss": F.cross_entropy(net(batch[0]), batch[1])}  # noqa: E731
    return fit(model, loss, batches, steps=steps, lr=3e-3, name="emotion of the question", seed=seed)
