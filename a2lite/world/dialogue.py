"""Who says what to whom: the plan of sample i of a split, drawn from a seed before anything is spoken.

The five test splits of the kit hold out one axis each and leave the others as in training. Stands in for
FLAME-QA (Sec. 4); notebook 02.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from a2lite.config import WorldConfig
from a2lite.world import domain

SPLITS = (
    "train", "train_read", "dev",
    "test_voice", "test_paraphrase", "test_combination", "test_avatar", "test_sentence",
)  # fmt: skip

QUESTION_VOICES = (
    "en-us", "en-us+m1", "en-us+m3", "en-us+m7", "en-us+linda", "en-us+f2",
    "en-gb-x-rp", "en-gb-x-rp+m6", "en-gb-x-rp+f2", "en-gb-scotland+f4",
)  # fmt: skip
HELD_OUT_QUESTION_VOICES = ("en-us+f5", "en-gb-x-rp+m4", "en-us+m2")
AVATAR_VOICES = {"en-us+f3": 0.6, "en-us+m6": 0.2, "en-us+f1": 0.2}  # and how often each answers
HELD_OUT_AVATAR_VOICE = "en-us+m4"

# Words per minute, pitch and pitch range (0..99) of a plain answer; an ambiguous one is always spoken as neutral.
PROSODY = {
    "neutral": (165, 50, 50), "happy": (180, 60, 75), "sad": (142, 42, 30),
    "angry": (184, 46, 85), "surprised": (174, 66, 90), "afraid": (190, 62, 40),
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """All that decides a sample. ``seed`` and ``index`` also drive blinks, head sway and noise."""

    seed: int
    split: str
    index: int
    task: str
    topic: str
    emotion: str
    style: str
    high_dynamic: bool
    gesture: str
    turns: tuple[str, ...]  # what is asked, the last one last; the sentence itself where it is to be repeated
    question_voice: str
    question_rate: int
    question_pitch: int
    answer_text: str
    avatar_voice: str
    prosody: tuple[int, int, int]  # words per minute, pitch, pitch range

    @property
    def id(self) -> str:
        return f"{self.split}-{self.index:05d}"

    def generator(self, stream: int) -> np.random.Generator:
        """Random numbers of this sample alone; ``stream`` 1 is the face."""
        return np.random.default_rng([self.seed, SPLITS.index(self.split), self.index, stream])


def combinations(split: str) -> list[tuple[str, str]]:
    """The (topic, emotion) pairs that a split may hold."""
    held_out = split == "test_combination"
    return [(t, e) for t in domain.TOPICS for e in domain.EMOTIONS if (e == domain.held_out_combination(t)) == held_out]


def plan(config: WorldConfig, split: str, index: int, emotion: str | None = None) -> Plan:
    """What sample ``index`` of ``split`` will be; a pure function of its arguments.

    (topic, emotion, closing) is dealt from a deck, so that every 22 rounds hold each equally often; all else is
    drawn. ``emotion`` puts another emotion in the place of the dealt one and leaves all other draws alone.
    ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    draw = np.random.default_rng([config.seed, SPLITS.index(split), index, 0])
    if split == "train_read":
        return _reading(config, index, draw)
    topic, dealt, closing = _deal(config, split, index)
    emotion = emotion or dealt
    paraphrase, variant = draw.integers(1 << 16, size=2)
    voices = HELD_OUT_QUESTION_VOICES if split == "test_voice" else QUESTION_VOICES
    voice, rate, pitch = _asker(draw, voices)
    avatar, prosody = _avatar(draw, split, emotion if domain.style(closing) == "plain" else "neutral")
    two_turns = draw.random() < config.two_turns
    contexts = (domain.HELD_OUT_CONTEXTS if split == "test_paraphrase" else domain.CONTEXTS)[emotion]
    context = contexts[paraphrase % len(contexts)].format(t=topic) + "."
    if split == "test_sentence":
        text = domain.held_out_answer(topic, emotion, closing, int(variant))
    else:
        text = domain.answer(topic, emotion, closing)
    gesture = domain.GESTURES.get(emotion, "") if closing in domain.HIGH_DYNAMIC else ""
    return Plan(
        seed=config.seed, split=split, index=index, task="AQAA", topic=topic, emotion=emotion,
        style=domain.style(closing), high_dynamic=bool(gesture), gesture=gesture,
        turns=(context, domain.CLOSINGS[closing]) if two_turns else (f"{context} {domain.CLOSINGS[closing]}",),
        question_voice=voice, question_rate=rate, question_pitch=pitch,
        answer_text=text, avatar_voice=avatar, prosody=prosody,
    )  # fmt: skip


def _deal(config: WorldConfig, split: str, index: int) -> tuple[str, str, str]:
    """Round r of the deal gives every pair once, each with another card of the deck of closings."""
    pairs = combinations(split)
    deck = [closing for closing, count in domain.DECK.items() for _ in range(count)]
    if split == "test_sentence":
        deck = [closing for closing in deck if closing in domain.HELD_OUT_CLOSINGS]
    round_, place = divmod(index, len(pairs))
    shuffle = np.random.default_rng([config.seed, SPLITS.index(split), round_])
    pair = int(shuffle.permutation(len(pairs))[place])
    return *pairs[pair], deck[(round_ + 5 * pair) % len(deck)]


def _asker(draw: np.random.Generator, voices: tuple[str, ...]) -> tuple[str, int, int]:
    """Who asks: a voice, its words per minute and its pitch."""
    voice, rate, pitch = voices[draw.integers(len(voices))], draw.uniform(0.9, 1.15), draw.integers(-10, 11)
    return voice, round(160 * rate), int(50 + pitch)


def _avatar(draw: np.random.Generator, split: str, emotion: str) -> tuple[str, tuple[int, int, int]]:
    """The avatar's voice and prosody; the draws are the same whatever the emotion."""
    voice = str(draw.choice(list(AVATAR_VOICES), p=list(AVATAR_VOICES.values())))
    rate, pitch, span = PROSODY[emotion]
    prosody = (round(rate * draw.uniform(0.96, 1.04)), int(pitch + draw.integers(-2, 3)), span)
    return HELD_OUT_AVATAR_VOICE if split == "test_avatar" else voice, prosody


def _reading(config: WorldConfig, index: int, draw: np.random.Generator) -> Plan:
    """One to three sentences that somebody says and the avatar repeats with a neutral face: Repeat, TTS and ASR."""
    count = 1 + int(draw.choice(len(domain.READ_LENGTHS), p=domain.READ_LENGTHS))
    text = " ".join(_sentence(draw) for _ in range(count))
    asked, rate, pitch = _asker(draw, QUESTION_VOICES)
    voice, prosody = _avatar(draw, "train_read", "neutral")
    return Plan(
        seed=config.seed, split="train_read", index=index, task="Repeat", topic="", emotion="neutral", style="plain",
        high_dynamic=False, gesture="", turns=(text,), question_voice=asked, question_rate=rate,
        question_pitch=pitch, answer_text=text, avatar_voice=voice, prosody=prosody,
    )  # fmt: skip


def _sentence(draw: np.random.Generator) -> str:
    words = {kind: draw.permutation(choices).tolist() for kind, choices in domain.READ_WORDS.items()}
    text = domain.READ_SENTENCES[draw.integers(len(domain.READ_SENTENCES))]
    while "{" in text:
        kind = text[text.index("{") + 1 : text.index("}")]
        invented = draw.random() < domain.MADE_UP.get(kind, 0.0)
        text = text.replace("{" + kind + "}", domain.made_up(draw) if invented else words[kind].pop(), 1)
    return text[0].upper() + text[1:]
