"""From samples to dialogues: what the model hears and says in AQAA, Repeat, TTS and ASR (Sec. 4).

Features are computed once per sample (``prepare``); dialogues are written anew for every batch, since augmented
questions differ in length. Two-turn samples put the first exchange before the question, as its history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from a2lite.audio import RATE, encoder_mel
from a2lite.backbone.encoder import patch_count
from a2lite.backbone.tokens import Dialogue, Vocabulary
from a2lite.config import BackboneConfig
from a2lite.fit import Progress
from a2lite.flame_qa import TASKS, Sample
from a2lite.speech import SpeechTokenizer


@dataclass
class Exchange:
    """One question and its answer: texts, what is heard of each (mel pieces), the answer's audio codes (A,)."""

    question: str
    question_mels: list[Tensor]
    answer: str
    answer_mels: list[Tensor]
    codes: Tensor


@dataclass
class Item:
    """A sample ready for the model: exchanges in order, the last one is to be answered.

    ``task`` is the sample's own; under Repeat the question says the words of the answer.
    """

    id: str
    task: str
    exchanges: list[Exchange]
    speech: str = ""  # whose codes these are: ``SpeechTokenizer.identity``

    @property
    def length(self) -> int:
        """About how many positions its dialogue takes."""
        frames = sum(len(mel) for e in self.exchanges for mel in e.question_mels)
        return frames // 8 + sum(len(e.codes) for e in self.exchanges) * 5 // 4

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]


def listen(wave: Tensor | np.ndarray, config: BackboneConfig) -> list[Tensor]:
    """Sound (samples,) at 16 kHz as mel pieces (frames, n_mels) of at most ``config.piece`` seconds."""
    pieces = torch.as_tensor(wave).split(int(config.piece * RATE))
    mels = [encoder_mel(piece, config.n_mels) for piece in pieces]
    return [mel for mel in mels if patch_count(len(mel)) > 0]


def prepare(
    samples: Sequence[Sample], speech_tokenizer: SpeechTokenizer, config: BackboneConfig
) -> list[Item]:
    """Compute once what every batch needs: mels of all that is heard, codes of all that is said."""
    progress, items = Progress("features", len(samples)), []
    for i, sample in enumerate(samples):
        items.append(prepare_one(sample, speech_tokenizer, config))
        progress.update(i + 1)
    return items


def prepare_one(sample: Sample, speech_tokenizer: SpeechTokenizer, config: BackboneConfig) -> Item:
    turns = [*sample.history, vars(sample)]
    exchanges = [_exchange(turn, speech_tokenizer, config) for turn in turns]
    return Item(sample.id, sample.task, exchanges, speech_tokenizer.identity)


def _exchange(turn: dict, speech_tokenizer: SpeechTokenizer, config: BackboneConfig) -> Exchange:
    half = lambda mels: [mel.half() for mel in mels]  # noqa: E731  (half the memory)
    wave = torch.as_tensor(turn["answer_audio"])
    return Exchange(
        question=turn["question_text"],
        question_mels=half(listen(turn["question_audio"], config)),
        answer=turn["answer_text"],
        answer_mels=half(listen(wave, config)),
        codes=speech_tokenizer.encode(wave[None])[0],
    )


def converse(
    task: str,
    item: Item,
    vocabulary: Vocabulary,
    config: BackboneConfig,
    *,
    answered: bool = True,
    change: Callable[[Tensor], Tensor] = lambda mel: mel,
) -> Dialogue:
    """The dialogue of ``task`` over ``item``: with the right answer to learn, or opened for the model's own.

    ``change`` is applied to every mel that is heard (augmentation). ValueError for an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r}: expected one of {', '.join(TASKS)}")
    dialogue = Dialogue(vocabulary, config.system[task])
    heard = lambda mels: [change(mel) for mel in mels]  # noqa: E731
    last = item.last
    if task == "AQAA":
        for earlier in item.exchanges[:-1]:
            dialogue.hear(*heard(earlier.question_mels)).say(earlier.answer, earlier.codes)
        dialogue.hear(*heard(last.question_mels))
    elif task == "Repeat":  # what somebody said for it, or else the answer itself
        dialogue.hear(*heard(last.question_mels if item.task == "Repeat" else last.answer_mels))
    elif task == "TTS":
        dialogue.read(last.answer)
    else:
        dialogue.hear(*heard(last.question_mels))
        return dialogue.write(last.question) if answered else dialogue.open(speech=False)
    return dialogue.say(last.answer, last.codes) if answered else dialogue.open()


def silence(vocabulary: Vocabulary, config: BackboneConfig, patches: int = 25) -> Dialogue:
    """An AQAA prompt whose patches all hold the same: for the control without the question."""
    return Dialogue(vocabulary, config.system["AQAA"]).spell([vocabulary.audio_patch] * patches)
