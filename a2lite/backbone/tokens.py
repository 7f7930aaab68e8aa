"""One vocabulary for text and sound, the TA4 interleave, and the chat prompt: all that comes before the network.

Step-Audio-2-mini's forms with its names of tokens (Sec. 5.3 builds on that model; notebook 04). The ids follow
from the tokenizer: BPE text tokens first, then the control tokens, then ``<audio_0>`` ... ``<audio_{K-1}>`` and
the audio pad ``<audio_K>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from a2lite.backbone.encoder import patch_count

CONTROL = (
    "<|endoftext|>",
    "<|EOT|>",
    "<|BOT|>",
    "<audio_start>",
    "<audio_end>",
    "<audio_patch>",
    "<audio_patch_pad>",
    "<tts_start>",
    "<tts_end>",
    "<tts_pad>",
)
AUDIO_PER_TEXT = 4  # TA4: one text token, then four audio tokens
IGNORE = -100  # label of a position without loss
QWEN_SPLIT = (  # Qwen2's words: BPE merges inside one, never across
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Vocabulary:
    """Text, control and audio tokens of one model, around a ``tokenizers.Tokenizer``.

    ``codes`` is K, the number of audio codes; ``audio0`` the id of ``<audio_0>``; ``eot``, ``tts_pad`` and so on
    are the control tokens' ids. ``rows`` of the embedding may be more than there are tokens: those mean nothing.
    """

    def __init__(self, tokenizer: Tokenizer, codes: int | None = None, rows: int | None = None):
        self.tokenizer, self.rows = tokenizer, rows or tokenizer.get_vocab_size()
        find = tokenizer.token_to_id
        missing = [name for name in (*CONTROL, "<audio_0>") if find(name) is None]
        if missing:
            raise ValueError(f"tokenizer lacks {missing[0]}; expected one made by Vocabulary.train")
        self.endoftext, self.eot, self.bot = map(find, CONTROL[:3])
        self.audio_start, self.audio_end, self.audio_patch = map(find, CONTROL[3:6])
        self.tts_start, self.tts_end, self.tts_pad = map(find, CONTROL[7:])
        self.texts = self.endoftext  # text tokens are the ids below the first control token
        self.audio0 = find("<audio_0>")
        self.codes = tokenizer.get_vocab_size() - 1 - self.audio0 if codes is None else codes
        self.audio_pad = self.audio0 + self.codes
        if self.rows < tokenizer.get_vocab_size() or find(f"<audio_{self.codes}>") != self.audio_pad:
            raise ValueError(f"tokenizer of {tokenizer.get_vocab_size()} tokens: does not fit {self.codes} audio codes "
                             f"and {self.rows} rows of embedding")  # fmt: skip

    def __len__(self) -> int:
        return self.rows

    @classmethod
    def train(cls, texts: Iterable[str], size: int, codes: int) -> Vocabulary:
        """A byte-level BPE of at most ``size`` text tokens over ``texts``, and ``codes`` audio codes beside it."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        tokenizer.train_from_iterator(sorted(texts), trainer)
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL])
        tokenizer.add_tokens([AddedToken(f"<audio_{code}>", normalized=False) for code in range(codes + 1)])
        return cls(tokenizer)

    @classmethod
    def from_json(cls, text: str, codes: int | None = None, rows: int | None = None) -> Vocabulary:
        """What ``to_json`` wrote; a ``tokenizer.json`` of the tokenizers library."""
        return cls(Tokenizer.from_str(text), codes, rows)

    def to_json(self) -> str:
        return self.tokenizer.to_str()

    def encode(self, text: str) -> list[int]:
        """Text, with or without control tokens spelled out in it, to ids."""
        return self.tokenizer.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; control tokens are spelled out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    def kind(self, token: int) -> str:
        """What a token is: "text", "code", or the name of a control token ("tts_pad", "audio_pad", ...)."""
        if token < self.texts:
            return "text"
        if token >= self.audio0:
            return "code" if token < self.audio_pad else "audio_pad" if token == self.audio_pad else "unused"
        name = self.tokenizer.id_to_token(token)
        return name.strip("<|>").lower() if name in CONTROL else "unused"

    def is_code(self, ids: Tensor) -> Tensor:
        """Which ids are real audio codes (no pads)."""
        return (ids >= self.audio0) & (ids < self.audio_pad)

    def is_audio(self, ids: Tensor) -> Tensor:
        """Which ids of an answer belong to sound: audio codes, and what fills up either stream."""
        return (ids >= self.audio0) | (ids == self.tts_pad)

    @cached_property
    def slot_masks(self) -> dict[str, Tensor]:
        """Per state of ``SLOTS`` (vocabulary,) bool: the tokens that it allows."""
        kinds = [self.kind(token) for token in range(len(self))]
        return {state: torch.tensor([kind in allowed for kind in kinds]) for state, allowed in SLOTS.items()}

    # ------------------------------------------------------------ TA4

    def interleave(self, text_ids: Sequence[int], codes: Sequence[int]) -> list[int]:
        """TA4: ``<tts_start>``, then groups of 1 text token and 4 audio tokens, then ``<tts_end>``.

        ``codes`` are 0..K-1. The stream that ends first is filled up with ``<tts_pad>`` or with ``<audio_K>``.
        ValueError when there is nothing to say or a code lies outside the codebook.
        """
        text, audio = list(text_ids), [int(code) for code in codes]
        if not text and not audio:
            raise ValueError("interleave: neither text nor audio; expected at least one token of either")
        if audio and not 0 <= min(audio) <= max(audio) < self.codes:
            raise ValueError(
                f"interleave: audio codes {min(audio)}..{max(audio)}; expected 0..{self.codes - 1}"
            )
        groups = max(-(-len(audio) // AUDIO_PER_TEXT), len(text))
        text += [self.tts_pad] * (groups - len(text))
        ids = [self.audio0 + code for code in audio]
        ids += [self.audio_pad] * (AUDIO_PER_TEXT * groups - len(ids))
        turn = [self.tts_start]
        for i, token in enumerate(text):
            turn += [token, *ids[AUDIO_PER_TEXT * i : AUDIO_PER_TEXT * (i + 1)]]
        return [*turn, self.tts_end]

    def deinterleave(self, ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """The way back, (text ids, codes): also of an answer cut short, with or without its two ends.

        ValueError with the place of the first token that breaks the slots.
        """
        grammar = SlotGrammar(self)
        text, codes = [], []
        for place, token in enumerate(int(i) for i in ids):
            if place == 0 and token == self.tts_start:
                continue
            try:
                kind = grammar.advance(token)
            except ValueError as error:
                raise ValueError(f"deinterleave: position {place}: {error}") from None
            if kind == "text":
                text.append(token)
            elif kind == "code":
                codes.append(token - self.audio0)
        return text, codes


SLOTS = {  # TA4 as a state machine: which kinds of token may come next
    "first": ("text", "tts_pad"),
    "text": ("text", "tts_pad", "tts_end"),
    "text, padded": ("tts_pad", "tts_end"),
    "text, audio padded": ("text", "tts_end"),
    "text, both padded": ("tts_end",),
    "audio": ("code", "audio_pad"),
    "audio, text padded": ("code",),  # a group never pads both streams
    "audio, padded": ("audio_pad",),
    "end": ("eot",),
    "over": (),
}
TEXT_SLOTS = {  # the state of a text slot by what is padded: text, audio
    (False, False): "text",
    (True, False): "text, padded",
    (False, True): "text, audio padded",
    (True, True): "text, both padded",
}


class SlotGrammar:
    """The state of one spoken answer: what may come next after ``<tts_start>``.

    A stream that has begun to pad stays padded, and ``<tts_end><|EOT|>`` comes only where a text token could.
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary, self.state = vocabulary, "first"
        self.slot, self.padded = 0, {"tts_pad": False, "audio_pad": False}

    def advance(self, token: int) -> str:
        """Take the next token and return its kind; ValueError when its slot does not allow it."""
        kind = self.vocabulary.kind(token)
        if kind not in SLOTS[self.state]:
            allowed = " or ".join(SLOTS[self.state]) or "nothing"
            raise ValueError(f"{self.vocabulary.decode([token])!r} in a slot for {allowed} (TA4)")
        if kind in self.padded:
            self.padded[kind] = True
        if kind in ("tts_end", "eot"):
            self.state = "end" if kind == "tts_end" else "over"
            return kind
        self.slot = (self.slot + 1) % (1 + AUDIO_PER_TEXT)
        if self.slot == 0:
            self.state = TEXT_SLOTS[tuple(self.padded.values())]
        elif self.padded["audio_pad"]:
            self.state = "audio, padded"
        else:
            self.state = "audio, text padded" if kind == "tts_pad" else "audio"
        return kind


# ---------------------------------------------------------------- prompts


@dataclass
class Dialogue:
    """A conversation as the model reads it, written turn by turn: each method returns the dialogue itself.

    ``ids`` and ``labels`` have one length; a label is ``IGNORE`` except on the last answer (answers given in
    earlier turns are prompt). ``mels`` are the sounds heard, (frames, n_mels) each, in the order in which
    ``<audio_start>`` opens them.
    """

    vocabulary: Vocabulary
    system: str
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    mels: list[Tensor] = field(default_factory=list)

    def __post_init__(self):
        if not self.ids:
            self._add(f"<|BOT|>system\n{self.system}<|EOT|>")

    def _add(self, content: str | list[int]) -> Dialogue:
        ids = self.vocabulary.encode(content) if isinstance(content, str) else content
        self.ids += ids
        self.labels = self.labels + [IGNORE] * len(ids)
        return self

    def hear(self, *mels: Tensor) -> Dialogue:
        """The human's spoken turn: (frames, n_mels), one for each piece of at most 25 s."""
        sounds = ""
        for mel in mels:
            sounds += "<audio_start>" + "<audio_patch>" * int(patch_count(len(mel))) + "<audio_end>"
        self.mels += mels
        return self._add(f"<|BOT|>human\n{sounds}<|EOT|>")

    def spell(self, seats: list[int]) -> Dialogue:
        """A spoken turn without sound: ``seats`` are the tokens that stand where patches would."""
        return self._add("<|BOT|>human\n<audio_start>")._add(seats)._add("<audio_end><|EOT|>")

    def read(self, text: str) -> Dialogue:
        """The human's written turn."""
        return self._add(f"<|BOT|>human\n{text}<|EOT|>")

    def open(self, speech: bool = True) -> Dialogue:
        """The assistant's turn begins: what stands before the first token that the model is to give."""
        return self._add("<|BOT|>assistant\n" + ("<tts_start>" if speech else ""))

    def say(self, text: str, codes: Sequence[int]) -> Dialogue:
        """The assistant's spoken turn, TA4, with a label on all that the model has to give."""
        turn = self.vocabulary.interleave(self.vocabulary.encode(text), codes)
        return self.open()._answer(turn[1:] + [self.vocabulary.eot])

    def write(self, text: str) -> Dialogue:
        """The assistant's written turn, with a label on all that the model has to give."""
        return self.open(speech=False)._answer(self.vocabulary.encode(text) + [self.vocabulary.eot])

    def _answer(self, ids: list[int]) -> Dialogue:
        self.ids += ids
        self.labels = [IGNORE] * (len(self.ids) - len(ids)) + ids
        return self
