"""What a face can know from the voice alone, and the fair rival that also reads the question.

The same connector as A2-LLM's (Sec. 5.2), fed by embeddings of the true audio tokens through a small recurrent
net instead of a language model's hidden states. With ``emotions`` it is given a label besides, predicted from
the question's text by ``QuestionEmotion``: the cascade that a careful engineer would build. Used in notebooks
06 and 09.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2lite.config import Config
from a2lite.connector import MotionConnector


class AudioOnly(nn.Module):
    """Audio tokens (B, A) -> features (B, A, d) -> the connector's logits. It may look ahead over the whole answer."""

    def __init__(self, config: Config, audio_codes: int, emotions: int = 0):
        super().__init__()
        width = config.backbone.hidden
        self.token = nn.Embedding(audio_codes, width)
        self.emotion = nn.Embedding(emotions, width) if emotions else None
        self.mix = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(3))
        self.recurrent = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.connector = MotionConnector(config.connector, config.rvq, width)

    def features(self, tokens: Tensor, emotion: Tensor | None = None) -> Tensor:
        """tokens (B, A), emotion (B,) or None -> (B, A, d)."""
        x = self.token(tokens)
        if self.emotion is not None:
            if emotion is None:
                raise ValueError("emotion is None: this model was built with emotion labels, give one per answer")
            x = x + self.emotion(emotion)[:, None]
        x = x.transpose(1, 2)  # (B, d, A)
        for layer in self.mix:
            x = x + F.gelu(layer(x))
        x = x.transpose(1, 2)
        return x + self.recurrent(x)[0]

    def forward(self, tokens: Tensor, codes: Tensor, lengths: Tensor, emotion: Tensor | None = None,
                segment: int | None = None) -> Tensor:
        """Teacher-forced logits (B, N, N_q, K), as ``MotionConnector.forward``."""
        return self.connector(self.features(tokens, emotion), codes, lengths, segment)

    @torch.no_grad()
    def generate(self, tokens: Tensor, emotion: Tensor | None = None, segment: int | None = None) -> Tensor:
        """tokens (B, A) -> motion codes (B, A // G, N_q), its own history."""
        return self.connector.generate(self.features(tokens, emotion), segment)


class QuestionEmotion(nn.Module):
    """The emotion of an answer from the question's text tokens: mean embedding, one hidden layer."""

    def __init__(self, vocabulary: int, emotions: int, width: int = 64):
        super().__init__()
        self.token = nn.EmbeddingBag(vocabulary, width)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, width), nn.GELU(), nn.Linear(width, emotions))

    def forward(self, questions: list[Tensor]) -> Tensor:
        """Text ids of B questions, each (L,) -> logits (B, emotions)."""
        starts = torch.tensor([0] + [len(q) for q in questions[:-1]]).cumsum(0)
        return self.head(self.token(torch.cat(questions), starts))
