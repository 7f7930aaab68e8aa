"""The data card: how hard a set of samples is, by controls that know no model of the kit.

A retriever (tf-idf, nearest training question), keyword spotting, the best guess from the answer's words, a
classifier of emotion on the sound of ambiguous answers (must be at chance) and the read-out on true motion
(the ceiling). Sec. 4 gives none of these; notebook 02.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from a2lite.audio import RATE, log_mel
from a2lite.flame_qa.samples import Samples
from a2lite.metrics import Accuracy, EmotionReadout, accuracy


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def dialogues(samples: Samples) -> list[str]:
    """All that was asked in each sample, earlier turns first."""
    earlier = [" ".join(turn["question_text"] for turn in turns) for turns in samples.column("history")]
    return [f"{a} {b}".strip() for a, b in zip(earlier, samples.column("question_text"))]


class TfIdf:
    """Texts as unit vectors of term frequency times inverse document frequency; unknown words are ignored."""

    def __init__(self, texts: list[str]):
        documents = [set(words(text)) for text in texts]
        self.vocabulary = {word: i for i, word in enumerate(sorted(set().union(*documents)))}
        count = np.zeros(len(self.vocabulary))
        for document in documents:
            count[[self.vocabulary[word] for word in document]] += 1
        self.idf = np.log((1 + len(texts)) / (1 + count)) + 1

    def __call__(self, texts: list[str]) -> np.ndarray:
        """(N, words)."""
        vectors = np.zeros((len(texts), len(self.vocabulary)))
        for row, text in zip(vectors, texts):
            for word in words(text):
                if word in self.vocabulary:
                    row[self.vocabulary[word]] += 1
        vectors *= self.idf
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def nearest_question(train: Samples, test: Samples) -> tuple[Accuracy, Accuracy]:
    """A retriever's answers and emotions: those of the training question most like the true words asked."""
    vectors = TfIdf(dialogues(train))
    nearest = (vectors(dialogues(test)) @ vectors(dialogues(train)).T).argmax(1)
    told, felt = train.column("answer_text"), train.column("emotion")
    return (
        accuracy([told[i] for i in nearest], test.column("answer_text")),
        accuracy([felt[i] for i in nearest], test.column("emotion")),
    )


def keyword_spotting(train: Samples, test: Samples, keywords: int | None) -> Accuracy:
    """Emotion by voting words: each word counts for the emotions it came with in training (naive Bayes).

    ``keywords`` = 1 keeps only the single most telling word of each emotion; None keeps all words.
    """
    emotions = sorted(set(train.column("emotion")))
    seen = {emotion: Counter() for emotion in emotions}
    for text, emotion in zip(dialogues(train), train.column("emotion")):
        seen[emotion].update(sorted(set(words(text))))  # sorted: ties fall the same way in every run
    total = sum(seen.values(), Counter())
    if keywords is not None:
        told = {e: sorted(seen[e], key=lambda w, e=e: -seen[e][w] ** 2 / total[w])[:keywords] for e in emotions}
        total = Counter({word: total[word] for kept in told.values() for word in kept})
    shares = np.array([[np.log((seen[e][w] + 0.5) / (total[w] + 3)) for w in total] for e in emotions])
    place = {word: i for i, word in enumerate(total)}
    guesses = []
    for text in dialogues(test):
        known = [place[word] for word in set(words(text)) if word in place]
        guesses.append(emotions[int(shares[:, known].sum(1).argmax())])
    return accuracy(guesses, test.column("emotion"))


def chance(train: Samples, test: Samples) -> float:
    """Expected accuracy of the best guess of emotion from the answer's words, under the training distribution.

    The most frequent emotion of training samples with the same answer, or with the same topic where the answer
    is new; ties are broken at random.
    """
    by_text, by_topic = defaultdict(Counter), defaultdict(Counter)
    for text, topic, emotion in zip(*(train.column(name) for name in ("answer_text", "topic", "emotion"))):
        by_text[text][emotion] += 1
        by_topic[topic][emotion] += 1
    expected = []
    for text, topic, emotion in zip(*(test.column(name) for name in ("answer_text", "topic", "emotion"))):
        counts = by_text[text] if text in by_text else by_topic[topic]
        best = [e for e, count in counts.items() if count == max(counts.values())]
        expected.append((emotion in best) / max(len(best), 1))
    return float(np.mean(expected))


# ---------------------------------------------------------------- sound and motion


def sound_features(waves: list[np.ndarray]) -> Tensor:
    """What an utterance sounds like: mean, spread and restlessness of 40 log-mel bands, and length; (N, 121)."""
    rows = []
    for wave in waves:
        mel = log_mel(torch.from_numpy(wave), n_mels=40)  # (frames, 40)
        rows.append(torch.cat([mel.mean(0), mel.std(0), mel.diff(dim=0).std(0), torch.tensor([len(wave) / RATE])]))
    return torch.stack(rows)


class SoundClassifier:
    """A label from ``sound_features``: ridge regression to one number per label, the highest wins."""

    def __init__(self, waves: list[np.ndarray], labels: list[str], ridge: float = 1.0):
        features, self.names = sound_features(waves), sorted(set(labels))
        self.mean, self.scale = features.mean(0), features.std(0).clamp(min=1e-4)
        inputs = self._inputs(features)  # (N, 122)
        targets = torch.tensor([[float(name == label) for name in self.names] for label in labels])  # (N, labels)
        gram = inputs.T @ inputs + ridge * torch.eye(inputs.shape[1])
        self.weights = torch.linalg.solve(gram, inputs.T @ targets)

    def _inputs(self, features: Tensor) -> Tensor:
        return torch.nn.functional.pad((features - self.mean) / self.scale, (0, 1), value=1.0)

    def predict(self, waves: list[np.ndarray]) -> list[str]:
        return [self.names[i] for i in (self._inputs(sound_features(waves)) @ self.weights).argmax(1)]


def motion_features(samples: Samples) -> Tensor:
    """Mean over time of expression and eyelids, (N, 52): what an emotion holds and words do not."""
    means = [sample.motion.mean(0) for sample in samples]
    return torch.from_numpy(np.stack([np.concatenate([m[:50], m[56:]]) for m in means]))


# ---------------------------------------------------------------- the card


def card(splits: Mapping[str, Samples]) -> dict[str, dict[str, Any]]:
    """Per split: counts, lengths and, against ``splits["train"]``, the controls; values are floats or ``Accuracy``.

    Emotion controls run on ambiguous answers where they concern the sound or the words of the answer.
    """
    train = splits["train"]
    readout = EmotionReadout.fit(motion_features(train), train.column("emotion"))
    ambiguous, plain = train.where(style="ambiguous"), train.where(style="plain")
    ears = {
        "ambiguous": SoundClassifier([s.answer_audio for s in ambiguous], ambiguous.column("emotion")),
        "plain": SoundClassifier([s.answer_audio for s in plain], plain.column("emotion")),
    }
    rows = {}
    for name, samples in splits.items():
        rows[name] = row = contents(samples)
        if name in ("train", "train_read"):
            continue
        row["retrieved answer"], row["retrieved emotion"] = nearest_question(train, samples)
        row["one keyword each"] = keyword_spotting(train, samples, 1)
        row["all words"] = keyword_spotting(train, samples, None)
        for style, ear in ears.items():
            part = samples.where(style=style)
            if len(part):
                heard = ear.predict([s.answer_audio for s in part])
                row[f"emotion heard, {style}"] = accuracy(heard, part.column("emotion"))
        part = samples.where(style="ambiguous")
        row["chance, ambiguous"] = chance(ambiguous, part) if len(part) else float("nan")
        row["emotion on true motion"] = accuracy(readout.predict(motion_features(samples)), samples.column("emotion"))
    return rows


def contents(samples: Samples) -> dict[str, float]:
    """How many samples, how long their answers, and the shares of the kinds."""
    seconds = np.array([len(s.answer_audio) / RATE for s in samples])
    return {
        "samples": len(samples),
        "answer seconds, mean": float(seconds.mean()),
        "answer seconds, range": f"{seconds.min():.1f}-{seconds.max():.1f}",
        "over 6 s": float((seconds > 6).mean()),
        "ambiguous": samples.column("style").count("ambiguous") / len(samples),
        "two turns": sum(bool(turns) for turns in samples.column("history")) / len(samples),
        "high-dynamic": sum(samples.column("high_dynamic")) / len(samples),
    }


def card_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The card as a Markdown table, one row per figure, one column per split."""
    figures = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = ["| | " + " | ".join(rows) + " |", "|---|" + "---|" * len(rows)]
    for figure in figures:
        lines.append(f"| {figure} | " + " | ".join(_cell(row.get(figure)) for row in rows.values()) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Accuracy):
        low, high = value.interval
        return f"{value.value:.2f} [{low:.2f}, {high:.2f}]"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
