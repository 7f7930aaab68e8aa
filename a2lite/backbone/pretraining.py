"""How the backbone learns at small sizes, in the order in which the real one did: text, ears, speech.

Step-Audio-2-mini began as a text model, was given ears by speech recognition, and then learned to speak; A2-LLM
starts from the result (Sec. 5.3). All at once from random weights it never grounds its answers in the question:
notebook 04 shows that run. (i) *text*: the language model answers written questions in writing, (ii) *voice*: then
aloud, in TA4, and reads sentences. (iii) *ears*: encoder and adapter learn by CTC which word is said, with the
language model's own text embeddings as the output layer; (iv) *settling*: then to put these embeddings in the places
of ``<audio_patch>``. (v) *speech*: spoken questions, spoken answers, with the other tasks mixed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from a2lite.backbone.listening import Listener, augment, error_rate
from a2lite.backbone.model import Backbone, Batch, collate
from a2lite.backbone.tasks import Item, converse, silence
from a2lite.backbone.tokens import IGNORE, Dialogue, Vocabulary
from a2lite.config import BackboneConfig
from a2lite.fit import Trace, fit, load_checkpoint, shuffled


def train_vocabulary(items: Sequence[Item], config: BackboneConfig) -> Vocabulary:
    """BPE over the items' texts and the prompts, the latter often enough to become whole words."""
    prompts = [*config.system.values(), "system\n", "human\n", "assistant\n"]
    texts = [text for item in items for e in item.exchanges for text in (e.question, e.answer)]
    return Vocabulary.train(texts + prompts * max(1, len(items) // 20), config.text_vocab, config.audio_codes)


class Curriculum:
    """The batches of the five steps, each a pure function of the step number."""

    def __init__(self, items: Sequence[Item], vocabulary: Vocabulary, config: BackboneConfig, seed: int = 0):
        self.vocabulary, self.config, self.seed = vocabulary, config, seed
        asked, again = ([item for item in items if item.task == task] for task in ("AQAA", "Repeat"))
        if not asked or len(asked) + len(again) < len(items):
            raise ValueError("items: expected questions (AQAA) and, if there are any, sentences to repeat (Repeat)")
        self.pools = {"AQAA": asked, "Repeat": again or asked}
        self.indices = {
            (name, times): shuffled([item.length for item in pool], times * config.batch, seed)
            for name, pool in self.pools.items()
            for times in (1, 2)
        }

    def _pick(self, step: int, pool: str = "AQAA", times: int = 1) -> tuple[list[Item], torch.Generator]:
        """The members of a batch, ``times`` as large as the config's, and the random numbers of the step."""
        chosen = [self.pools[pool][i] for i in self.indices[pool, times](step)]
        return chosen, torch.Generator().manual_seed(7919 * self.seed + step)

    def text(self, step: int) -> Batch:
        """(i) Questions spelled out where patches will stand, answers in writing; first close, then drawn out.

        Every third batch is of sentences to write down: copying is learned here, and every word met.
        """
        items, g = self._pick(step, "Repeat" if step % 3 == 2 else "AQAA", times=2)
        pace = min(1.0, max(0.0, 2.5 * step / self.config.text_steps - 1.25))
        return collate([self.spelled(item, g, pace) for item in items])

    def spelled(self, item: Item, g: torch.Generator, pace: float = 1.0, aloud: bool = False) -> Dialogue:
        """The dialogue of ``item`` with its questions' tokens in the seats of the patches."""
        task = item.task if aloud or item.task == "AQAA" else "ASR"
        dialogue = Dialogue(self.vocabulary, self.config.system[task])
        for e in item.exchanges:
            dialogue.spell(drawl(self.vocabulary.encode(e.question), self.vocabulary.audio_patch, g, pace))
            dialogue = dialogue.say(e.answer, e.codes) if aloud else dialogue.write(e.answer)
        return dialogue

    def voice(self, step: int) -> Batch:
        """(ii) Questions spelled out, answers in TA4; two batches of five read or repeat, one answers in writing."""
        items, g = self._pick(step, "Repeat" if step % 5 in (1, 3) else "AQAA")
        if step % 5 == 1:
            return collate([converse("TTS", item, self.vocabulary, self.config) for item in items])
        return collate([self.spelled(item, g, aloud=step % 5 != 4) for item in items])

    def words(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(iii) Speech and its text: mels (M, F, n_mels), frames (M,), text ids (N,), their counts (M,).

        Every fourth batch is of sentences to repeat: a word is to be known whatever stands beside it.
        """
        items, g = self._pick(step, "Repeat" if step % 4 == 3 else "AQAA")
        asked = [e for item in items for e in item.exchanges]
        heard = [augment(mel, g) for e in asked for mel in e.question_mels[:1]]
        texts = [torch.tensor(self.vocabulary.encode(e.question)) for e in asked]
        counts = lambda tensors: torch.tensor([len(t) for t in tensors])  # noqa: E731
        return nn.utils.rnn.pad_sequence(heard, True), counts(heard), torch.cat(texts), counts(texts)

    def speech(self, step: int) -> Batch:
        """(v) One task per batch, drawn by the config's shares."""
        shares, g = self.config.shares, torch.Generator().manual_seed(104729 * self.seed + step)
        task = list(shares)[int(torch.multinomial(torch.tensor(list(shares.values())), 1, generator=g))]
        items, g = self._pick(step, "Repeat" if task in ("TTS", "Repeat") else "AQAA")
        if task == "QA":
            return collate([self.spelled(item, g) for item in items])
        change = lambda mel: augment(mel, g)  # noqa: E731
        return collate([converse(task, item, self.vocabulary, self.config, change=change) for item in items])

    def blind(self, step: int) -> Batch:
        """The control: nothing heard, only how the world's answers go."""
        return collate([self.unheard(item) for item in self._pick(step)[0]])

    def unheard(self, item: Item) -> Dialogue:
        return silence(self.vocabulary, self.config).say(item.last.answer, item.last.codes)


def drawl(ids: Sequence[int], gap: int, g: torch.Generator, pace: float = 1.0) -> list[int]:
    """Text ids as CTC may place them: each takes 1 to 12 places, 4 on average, one at pace 0.

    Some ears hold a word until the next one comes, others name it once and wait; each dialogue draws its own habit.
    """
    out, habit = [], float(torch.rand(1, generator=g))
    more = (12 * pace * torch.rand(len(ids), generator=g) ** 2.5).int().tolist()
    for token, places in zip(ids, more, strict=True):
        held = round(habit * places)
        out += [token] * (1 + held) + [gap] * (places - held)
    return out


@torch.no_grad()
def exact(model: Backbone, dialogues: Sequence[Dialogue], batch: int = 16) -> float:
    """Share of answers whose text is right token for token, the right past given (cheap; for dev curves)."""
    right = 0
    for i in range(0, len(dialogues), batch):
        b = collate(dialogues[i : i + batch]).to(model.device)
        label = b.labels[:, 1:]
        wrong = torch.zeros_like(label, dtype=torch.bool)
        wrong[label != IGNORE] = model.labelled(b)[0].argmax(-1) != label[label != IGNORE]
        right += int((~(wrong & (label < model.vocabulary.audio0)).any(1)).sum())
    return right / max(1, len(dialogues))


def pretrain(
    config: BackboneConfig,
    items: Sequence[Item],
    path: Path,
    *,
    dev: Sequence[Item] = (),
    without_question: bool = False,
    seed: int = 0,
    evaluate_every: int = 200,
) -> tuple[Backbone, dict[str, Trace]]:
    """Train a backbone from random weights on ``items`` and save it to ``path``, with a ``Trace`` per step.

    ``without_question`` trains the control instead, as long as step (v): the same answers, nothing heard.
    Interrupted work goes on where it was. Returns the model in eval mode and the traces.
    """
    torch.manual_seed(seed)
    model = Backbone(config, train_vocabulary(items, config))
    model.speech = items[0].speech
    course = Curriculum(items, model.vocabulary, config, seed)
    run = dict(without_question=without_question, seed=seed, items=len(items), speech=model.speech, **asdict(config))
    run = json.loads(json.dumps(run))
    options = dict(seed=seed, evaluate_every=evaluate_every, bfloat16=True, settings=run)
    plan = _control(model, course, dev, options) if without_question else _steps(model, course, dev, options)
    done = {name: path.with_name(f"{path.stem}.{name}.safetensors") for name in plan}
    traces: dict[str, Trace] = {}
    for name, step in plan.items():
        if done[name].exists():
            traces[name] = _take_up(model, done[name], run)
        else:
            traces[name] = step(done[name])
            model.save(done[name], half=False, trace=traces[name], run=run)
    model.save(path, traces={name: vars(trace) for name, trace in traces.items()})
    for part in done.values():
        part.unlink()
    return model.eval(), traces


def _take_up(model: Backbone, path: Path, run: dict) -> Trace:
    """A step that was finished before the interruption."""
    meta = load_checkpoint(path)[1]
    if meta.get("run") != run:
        raise ValueError(f"{path}: is a step of another run; delete it to start anew")
    model.load_state_dict(Backbone.load(path).state_dict())
    return Trace(**meta["trace"])


Run = Callable[[Path], Trace]


def _steps(model: Backbone, course: Curriculum, dev: Sequence[Item], options: dict) -> dict[str, Run]:
    """The five steps by name; each trains ``model`` further, with the given path to resume from."""
    c, g = model.config, torch.Generator
    written = [course.spelled(item, g().manual_seed(i)) for i, item in enumerate(dev)]
    aloud = [course.spelled(item, g().manual_seed(i), aloud=True) for i, item in enumerate(dev)]
    spoken = [converse("AQAA", item, model.vocabulary, c) for item in dev]
    answers = lambda name, batches, steps, lr, asked: lambda path: fit(  # noqa: E731
        model, Backbone.loss, batches, steps=steps, lr=lr, name=name, path=path,
        evaluate=lambda m: {"exact": exact(m, asked)}, **options,
    )  # fmt: skip
    return {
        "text": answers("(i) text", course.text, c.text_steps, c.lr, written),
        "voice": answers("(ii) voice", course.voice, c.voice_steps, c.lr, aloud),
        "ears": lambda path: _ears(model, course, dev, path, options),
        "settling": lambda path: _settling(model, course, spoken, path, options),
        "speech": answers("(v) speech", course.speech, c.speech_steps, c.speech_lr, spoken),
    }


def _control(model: Backbone, course: Curriculum, dev: Sequence[Item], options: dict) -> dict[str, Run]:
    """The only step of the control without the question."""
    unheard = [course.unheard(item) for item in dev]
    return {
        "blind": lambda path: fit(
            model, Backbone.loss, course.blind, steps=model.config.speech_steps, lr=model.config.lr, path=path,
            name="no question", evaluate=lambda m: {"exact": exact(m, unheard)}, **options,
        )
    }  # fmt: skip


def _ears(model: Backbone, course: Curriculum, dev: Sequence[Item], path: Path, options: dict) -> Trace:
    """CTC on the question's words; the trace has the ``errors`` per token on ``dev``."""
    c, listener = model.config, Listener(model)
    if not path.with_name(path.name + ".resume").exists():
        listener.begin()
    return fit(
        listener, Listener.loss, course.words, steps=c.ctc_steps, lr=c.ctc_lr, name="(iii) ears", path=path,
        evaluate=lambda m: {"errors": error_rate(m, dev, model.vocabulary)}, **options,
    )  # fmt: skip


def _settling(model: Backbone, course: Curriculum, spoken: list[Dialogue], path: Path, options: dict) -> Trace:
    """What is heard moves to the embeddings it means; ``exact`` are spoken questions, which nobody has taught yet."""
    c, listener = model.config, Listener(model)
    if not path.with_name(path.name + ".resume").exists():
        listener.settle(*course.words(0)[:2])
    return fit(
        listener, Listener.settling_loss, course.words, steps=c.settling_steps, lr=c.lr, name="(iv) settling",
        path=path, evaluate=lambda m: {"exact": exact(model, spoken)}, **options,
    )  # fmt: skip
