"""A spoken question in; text, speech and a moving face out, segment by segment, while the model still speaks.

Sec. 6.1 of A2-LLM defines the three times; built in notebooks/08_realtime.ipynb. ``python -m a2lite answer``
is at the end of this file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from a2lite.a2llm import A2LLM
from a2lite.audio import RATE, load_wav, save_wav
from a2lite.backbone import Dialogue, align_tail, generate
from a2lite.backbone.tasks import listen
from a2lite.backbone.tokens import AUDIO_PER_TEXT
from a2lite.config import AudioConfig, Config
from a2lite.flame import Flame, FlameHead, load_head
from a2lite.people import dress
from a2lite.player import Clip, Tokens, save_page
from a2lite.speech import SpeechTokenizer, StepAudioSpeech
from a2lite.workplace import Workplace

TOKEN_RATE = AudioConfig.token_rate  # audio tokens and motion frames per second
MIN_ROOM = 250  # positions that a question must leave for its answer, 8 s of speech


@dataclass
class Event:
    """Something to say, play or show.

    ``kind`` is "text" (``data`` a str), "audio" (``data`` (samples,) float32 at 16 kHz), "motion" (``data``
    (frames, 58) at 25 fps), or "end" (``data`` a ``Summary``). ``at`` is when it left, in seconds after the question
    was complete; ``start`` is its place in the answer, in seconds.
    """

    kind: str
    at: float
    start: float
    data: str | Tensor | Summary


@dataclass
class Summary:
    """How an answer went. ``ttft``, ``ttfa``: seconds from the question to the first audio token and to the first
    facial motion; ``rtf``: generation time over duration (Sec. 6.1). ``codes`` are the audio tokens, ``motion_codes``
    the N_q levels of each motion token. ``ended`` is False where the limit cut it."""

    ttft: float | None = None
    ttfa: float | None = None
    total: float = 0.0
    codes: list[int] = field(default_factory=list)
    motion_codes: list[list[int]] = field(default_factory=list)
    ended: bool = False

    @property
    def duration(self) -> float:
        return len(self.codes) / TOKEN_RATE

    @property
    def rtf(self) -> float | None:
        return self.total / self.duration if self.duration else None


@dataclass
class Turn:
    """An exchange that is over: the question's sound, and what was answered (text, audio tokens)."""

    question: Tensor
    text: str
    codes: Tensor


@dataclass
class Reply:
    """A whole answer: text, wave (samples,) at 16 kHz, motion (T, 58) at 25 fps, and how it went.

    ``pieces`` are the text's tokens, each with its place in the answer, in seconds.
    """

    text: str = ""
    pieces: list[tuple[float, str]] = field(default_factory=list)
    wave: Tensor = field(default_factory=lambda: torch.zeros(0))
    motion: Tensor = field(default_factory=lambda: torch.zeros(0, 58))
    summary: Summary = field(default_factory=Summary)


class Face:
    """Hidden states in, one by one; motion out whenever a segment is complete."""

    def __init__(self, model: A2LLM):
        self.model, self.group = model, model.rvq.config.group
        self.span = model.connector.config.segment * self.group
        self.decoder = model.rvq.stream()
        self.waiting: list[Tensor] = []
        self.previous: Tensor | None = None
        self.codes: list[list[int]] = []

    def push(self, hidden: Tensor) -> Tensor | None:
        """H (d,) of the next audio token -> motion (span, 58) of the segment it completes, or None."""
        self.waiting.append(hidden)
        return self._segment(torch.stack(self.waiting)) if len(self.waiting) == self.span else None

    def finish(self) -> Tensor | None:
        """The last, shorter segment; the tail as ``config.backbone.tail`` says."""
        if not self.waiting:
            return None
        hidden = align_tail(torch.stack(self.waiting), self.group, self.model.config.backbone.tail)
        return self._segment(hidden) if len(hidden) else None

    def _segment(self, hidden: Tensor) -> Tensor:
        self.previous = self.model.connector.step(hidden[None], self.previous)
        self.waiting = []
        self.codes += self.previous[0].tolist()
        return self.decoder.step(self.previous)[0].cpu()


class Voice:
    """Audio tokens in, one by one; sound out chunk by chunk, behind by the speech decoder's look-ahead."""

    def __init__(self, tokenizer: SpeechTokenizer | StepAudioSpeech, chunk: int):
        self.stream, self.chunk = tokenizer.stream(), chunk
        self.waiting: list[int] = []
        self.given = 0

    def push(self, code: int) -> Tensor | None:
        self.waiting.append(code)
        return self._chunk() if len(self.waiting) == self.chunk else None

    def _chunk(self) -> Tensor:
        wave = self.stream.step(torch.tensor([self.waiting]))[0]
        self.given, self.waiting = self.given + len(self.waiting), []
        return wave

    def finish(self) -> Tensor | None:
        """The rest of the sound; None if nothing was said."""
        rest = [self._chunk()] if self.waiting else []
        return torch.cat([*rest, self.stream.flush()[0]]) if self.given else None


class Avatar:
    """The model and its decoders, ready to be asked. LoRA is merged into ``model``, which then trains no more."""

    def __init__(self, config: Config, model: A2LLM, speech: SpeechTokenizer | StepAudioSpeech):
        if model.backbone.speech not in ("", speech.identity):
            raise ValueError(f"backbone: speaks the codes of another speech tokenizer ({model.backbone.speech})")
        self.config, self.model, self.speech = config, model.eval(), speech
        for layer in self.model.lora_layers():
            base = layer.get_base_layer().weight
            if not (layer.merged or base.is_meta or not base.is_floating_point()):  # on disk, or quantised: stays apart
                layer.merge()

    @classmethod
    def load(cls, place: Workplace | None = None) -> Avatar:
        """From the checkpoints of a run of one's own, or the shipped ones (they are named as they are read)."""
        place = place or Workplace()
        rvq, speech, backbone = place.rvq(), place.speech(), place.backbone()
        model = A2LLM.load(place.find_artefact("a2llm.safetensors"), place.config, backbone, rvq).to(place.device)
        return cls(model.config, model, speech)

    def dialogue(self, question: Tensor, history: Sequence[Turn] = ()) -> Dialogue:
        """The prompt up to the point where the model begins to answer. ValueError for a question that is too long."""
        c, v = self.model.backbone.config, self.model.backbone.vocabulary
        dialogue = Dialogue(v, c.system["AQAA"])
        for turn in history:
            dialogue.hear(*listen(turn.question, c)).say(turn.text, turn.codes)
        dialogue.hear(*listen(question, c)).open()
        room = c.max_positions - len(dialogue.ids)
        if room < MIN_ROOM:
            raise ValueError(
                f"question of {len(question) / RATE:.0f} s: takes {len(dialogue.ids)} of {c.max_positions} positions "
                "and leaves no room for an answer; ask something shorter"
            )
        return dialogue

    @torch.inference_mode()
    def stream(
        self, question: Tensor, history: Sequence[Turn] = (), limit: int | None = None, temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Iterator[Event]:
        """Answer a question (samples,) at 16 kHz: text, audio and motion events as they are ready, then "end".

        Motion never waits for sound. ``limit`` counts tokens; an answer that it cuts is given as far as it came.
        Closing the iterator ends the generation. Times include what the caller does between events.
        """
        began, summary = time.perf_counter(), Summary()
        clock = lambda: time.perf_counter() - began  # noqa: E731
        dialogue = self.dialogue(question, history)
        room = self.model.backbone.config.max_positions - len(dialogue.ids)
        limit = min(limit or self.model.backbone.config.max_new_tokens, room)
        face, voice = Face(self.model), Voice(self.speech, self.config.realtime.voice_chunk)
        written, said, frames, samples = [], "", 0, 0
        vocabulary, codes, summary.motion_codes = self.model.backbone.vocabulary, summary.codes, face.codes
        for step in generate(self.model.backbone, dialogue, limit=limit, temperature=temperature, generator=generator):
            summary.ended = step.kind == "eot"
            if step.kind == "text":
                written.append(step.token)
                text = vocabulary.decode(written)
                if text.endswith("\ufffd"):  # half a character; the rest comes with the next token
                    continue
                yield Event("text", clock(), summary.duration, text[len(said) :])
                said = text
            if step.kind != "code":
                continue
            summary.ttft = summary.ttft or clock()
            codes.append(step.token - vocabulary.audio0)
            if (motion := face.push(step.hidden)) is not None:
                summary.ttfa = summary.ttfa or clock()
                yield Event("motion", clock(), frames / TOKEN_RATE, motion)
                frames += len(motion)
            if (wave := voice.push(codes[-1])) is not None and len(wave):
                yield Event("audio", clock(), samples / RATE, wave)
                samples += len(wave)
        if (motion := face.finish()) is not None:
            summary.ttfa = summary.ttfa or clock()
            yield Event("motion", clock(), frames / TOKEN_RATE, motion)
        if (wave := voice.finish()) is not None:
            yield Event("audio", clock(), samples / RATE, wave)
        summary.total = clock()
        yield Event("end", summary.total, summary.duration, summary)

    def answer(self, question: Tensor, history: Sequence[Turn] = (), **options) -> Reply:
        """``stream``, collected."""
        reply, pieces = Reply(), {"audio": [], "motion": []}
        for event in self.stream(question, history, **options):
            if event.kind == "end":
                reply.summary = event.data
            elif event.kind == "text":
                reply.pieces.append((event.start, event.data))
            else:
                pieces[event.kind].append(event.data)
        reply.text = "".join(piece for _, piece in reply.pieces).strip()
        if pieces["audio"]:
            reply.wave = torch.cat(pieces["audio"])
        if pieces["motion"]:
            reply.motion = torch.cat(pieces["motion"])
        return reply

    def warm_up(self) -> None:
        """Answer a fifth of a second of silence, so that the first real question is not the slow one."""
        for _ in self.stream(torch.zeros(RATE // 5), limit=12):
            pass


# ---------------------------------------------------------------- python -m a2lite answer


def save_reply(folder: Path, reply: Reply) -> None:
    """Write answer.wav, motion.npz, answer.txt, face.html and timing.json; all are made before any is replaced."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; give --out the path of a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as making:
        made = Path(making)
        save_wav(made / "answer.wav", reply.wave)
        np.savez(made / "motion.npz", motion=reply.motion.numpy().astype(np.float32), fps=np.int64(TOKEN_RATE))
        (made / "answer.txt").write_text(reply.text + "\n", encoding="utf-8")
        (made / "timing.json").write_text(json.dumps(_timing(reply.summary), indent=2) + "\n", encoding="utf-8")
        save_page(made / "face.html", clip_of(reply))
        for file in sorted(made.iterdir()):
            os.replace(file, folder / file.name)


def _timing(summary: Summary) -> dict[str, float | bool | None]:
    ms = lambda seconds: None if seconds is None else round(1000 * seconds, 2)  # noqa: E731
    return dict(
        ttft_ms=ms(summary.ttft), ttfa_ms=ms(summary.ttfa), rtf=round(summary.rtf, 4) if summary.rtf else None,
        total_ms=ms(summary.total), duration_ms=ms(summary.duration), ended=summary.ended,
    )


def clip_of(reply: Reply, head: FlameHead | None = None) -> Clip:
    """The reply on ``head``, or the kit's own, for the player, with the tokens that the model wrote."""
    head = head or load_head()
    motion = reply.motion if len(reply.motion) else torch.zeros(1, 58)
    return Clip(
        Flame(head)(motion), dress(head), reply.wave, RATE, TOKEN_RATE, caption=reply.text, tokens=_rows(reply)
    )


def _rows(reply: Reply) -> list[Tokens]:
    """Text by groups of TA4, audio tokens, and the first level of each motion token."""
    text = [""] * (1 + max((_group(start) for start, _ in reply.pieces), default=-1))
    for start, piece in reply.pieces:
        text[_group(start)] += piece
    codes, levels = reply.summary.codes, reply.summary.motion_codes
    rows = [
        Tokens("text", TOKEN_RATE / AUDIO_PER_TEXT, [piece.strip() for piece in text]),
        Tokens("audio", TOKEN_RATE, [str(code) for code in codes]),
        Tokens("motion", TOKEN_RATE * len(levels) / max(len(reply.motion), 1), [str(first) for first, *_ in levels]),
    ]
    return [row for row in rows if row.labels]


def _group(start: float) -> int:
    return round(start * TOKEN_RATE) // AUDIO_PER_TEXT


def main(argv: Sequence[str]) -> int:
    """``python -m a2lite answer QUESTION.wav [--out reply/] [--profile tiny]``"""
    parser = argparse.ArgumentParser(prog="python -m a2lite answer", description=__doc__)
    parser.add_argument("question", type=Path, help="a wav or flac file with a spoken question")
    parser.add_argument("--out", type=Path, default=Path("reply"), help="folder for the answer (default: reply/)")
    parser.add_argument("--profile", default="tiny", help="whose checkpoints: tiny (shipped), laptop, a100")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--seed", type=int, default=0, help="of sampling, where the temperature is above 0")
    args = parser.parse_args(argv)
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"{args.out}: is a file; give --out the path of a folder")
    if not 0 <= args.temperature <= 10:
        raise ValueError(f"--temperature {args.temperature:g}: expected 0 (greedy) to 10")
    torch.set_num_threads(1)  # steps of one token: a second thread would only wait
    question = load_wav(args.question)
    avatar = Avatar.load(Workplace(args.profile))
    avatar.warm_up()
    generator = torch.Generator().manual_seed(args.seed)
    reply = avatar.answer(question, temperature=args.temperature, generator=generator)
    save_reply(args.out, reply)
    print(reply.text if reply.summary.ended else f"{reply.text} ... (cut by the limit)")
    print("  ".join(f"{key} {value}" for key, value in _timing(reply.summary).items()))
    c = avatar.config.connector
    chosen = "likeliest codes" if c.sharpness is None else f"codes of the mean latent (sharpness {c.sharpness:g})"
    print(f"motion: {c.heads_kind} heads, {chosen}")
    print(f"{args.out}: answer.wav, answer.txt, motion.npz, timing.json, face.html")
    return 0
