"""The whole chain, measured on one test split per held-out axis: what the README claims about the kit is printed here.

    python benchmarks/chain.py --json                  # every part; other seeds and rivals are trained where missing
    python benchmarks/chain.py --parts text            # free generation alone
    python benchmarks/chain.py --parts train --seeds 1 # train what the other parts need, and stop

Parts: ``rvq`` (motion tokens), ``text`` (free generation: words, ends, speech, speed), ``control`` (a model that
never hears the question), ``motion`` (faces on true audio tokens, three seeds, rivals beside). Each split holds out
one axis (question voice, paraphrase, combination, avatar voice, answer sentence) and keeps the others as in
training. Proportions come with Wilson's 95 % interval; a bar is held against the point estimate. How sharp the motion
codes' mean is, is chosen on dev. All data is the synthetic world.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sentences import SentenceRecogniser  # noqa: E402

from a2lite.a2llm import A2LLM, Example, examples_of, mixed
from a2lite.backbone import Answer, Backbone, answer
from a2lite.backbone.pretraining import pretrain
from a2lite.backbone.tasks import converse, prepare, silence
from a2lite.baselines import audio_only
from a2lite.config import load_config
from a2lite.fit import load_checkpoint, save_checkpoint
from a2lite.flame import Flame, load_head
from a2lite.flame_qa import Samples, load_samples
from a2lite.flame_qa.card import chance, dialogues
from a2lite.metrics import Accuracy, Judge, Verdict, accuracy, mouth_opening, temporal_correlation
from a2lite.realtime import Avatar
from a2lite.rvq import quality
from a2lite.training import Stage, predict, stage_ends, three_stages, train
from a2lite.workplace import Workplace
from a2lite.world.domain import EMOTIONS

SPLITS = ("test_voice", "test_paraphrase", "test_combination", "test_avatar", "test_sentence")
MODELS = ("three stages", "adapter only", "audio only", "told the emotion")
SHARPNESSES = (None, 1.0, 2.0, 3.0, 4.0)  # that dev may choose from


def models(seeds: int) -> list[tuple[str, int]]:
    """Which models are asked: ours and the audio-only rival with every seed, the other two with the first."""
    return [(model, seed) for seed in range(seeds) for model in MODELS if seed == 0 or model in MODELS[::2]]


class Chain:
    """One profile's artefacts and samples, read once; models are trained where they are missing."""

    def __init__(self, profile: str, limit: int | None):
        self.profile, self.limit, self.place = profile, limit, Workplace(profile)
        self.config = load_config(profile)
        self.head = load_head()
        self.flame = Flame(self.head)
        self.rvq = self.place.rvq()
        self.speech = self.place.speech()
        self._samples: dict[str, Samples] = {}
        self._examples: dict[str, list[Example]] = {}

    def backbone(self) -> Backbone:
        """A fresh copy: LoRA is put into it."""
        backbone = self.place.backbone()
        if backbone.speech != self.speech.identity:
            raise ValueError("backbone.safetensors: speaks the codes of another speech.safetensors; train it anew")
        return backbone

    def samples(self, split: str) -> Samples:
        if split not in self._samples:
            whole = load_samples(self.profile, split)
            count = len(whole) if split.startswith("train") or self.limit is None else min(self.limit, len(whole))
            self._samples[split] = whole.select(range(count))
        return self._samples[split]

    def examples(self, split: str) -> list[Example]:
        if split not in self._examples:
            samples = self.samples(split)
            items = prepare(samples, self.speech, self.config.backbone)
            self._examples[split] = examples_of(items, [s.motion for s in samples], self.rvq)
        return self._examples[split]

    @cached_property
    def judge(self) -> Judge:
        """Taught by the true motion of a third of the training answers."""
        train = self.samples("train").select(range(0, len(self.samples("train")), 3))
        motions = [torch.as_tensor(s.motion) for s in train]
        return Judge(self.flame, self.head.landmarks, self.head.regions["upper_face"], motions, train.column("emotion"))

    @cached_property
    def truth(self) -> dict[str, list[Tensor]]:
        return {split: [torch.as_tensor(s.motion) for s in self.samples(split)] for split in ("dev", *SPLITS)}

    def faces(self, codes: Sequence[Tensor]) -> list[Tensor]:
        return [self.rvq.decode(row[None])[0] for row in codes]

    # ---- models

    def avatar(self, seed: int, lora: bool = True) -> A2LLM:
        """The three stages from the one backbone (Sec. 5.3), or with ``lora=False`` Table 6's Adapter-Only."""
        name = f"a2llm{f'-seed{seed}' if seed else ''}.safetensors" if lora else f"adapter-seed{seed}.safetensors"
        path = self.place.find_artefact(name) if lora and seed == 0 else self.place.artefact_path(name)
        if path.exists():
            self._check_recipe(path, lora)
            return A2LLM.load(path, self.config, self.backbone(), self.rvq)
        torch.manual_seed(seed)
        model = A2LLM(self.config, self.backbone(), self.rvq, lora)
        examples = self.examples("train")
        affective = [e for e, high in zip(examples, self.samples("train").column("high_dynamic")) if high]
        stages = three_stages(self.config.training, mixed([*examples, *self.examples("train_read")]), affective)
        if not lora:  # the same answers, as far as they have a face
            faces = [e for e in stages[0].examples if e.codes is not None]
            stages = [Stage("adapter only", sum(stage.steps for stage in stages), faces)]
        model.save(path, trace=train(model, stages, path, seed=seed), stage_ends=stage_ends(stages))
        return A2LLM.load(path, self.config, self.backbone(), self.rvq)

    def _check_recipe(self, path: Path, lora: bool) -> None:
        """ValueError where a checkpoint was trained for other numbers of steps, or with another LoRA."""
        meta, c = load_checkpoint(path)[1], self.config.training
        ends = list(accumulate((c.stage1_steps, c.stage2_steps, c.stage3_steps)))
        wanted = (ends if lora else ends[-1:], json.loads(json.dumps(asdict(self.config.lora))) if lora else None)
        if (meta["stage_ends"], meta["lora"]) != wanted:
            raise ValueError(f"{path}: was trained by another recipe than {wanted}; delete it to train it anew")

    def rival(self, told: bool, seed: int) -> tuple[audio_only.AudioOnly, audio_only.QuestionEmotion | None]:
        """The audio-only model, or the fair rival that is told the emotion of the question's words."""
        path = self.place.artefact_path(f"{'told' if told else 'audio'}-seed{seed}.safetensors")
        made_for = dict(speech=self.speech.identity, codes=self.rvq.identity, train=self._spoken())
        torch.manual_seed(seed)
        books = self.rvq.quantizer.codebooks
        model = audio_only.AudioOnly(self.config, self.speech.codes, books, len(EMOTIONS) if told else 0)
        ears = audio_only.QuestionEmotion(len(self.backbone().vocabulary), len(EMOTIONS)) if told else None
        both = torch.nn.ModuleList([model] + ([ears] if told else []))
        if path.exists():
            return self._load(path, both, made_for), ears
        labels = [EMOTIONS.index(e) for e in self.samples("train").column("emotion")]
        examples = [*self.examples("train"), *self.examples("train_read")]
        faces = labels + [EMOTIONS.index("neutral")] * len(self.examples("train_read"))
        c = self.config.training
        steps = 2 * (c.stage1_steps + c.stage2_steps + c.stage3_steps)  # cheap steps: they get twice as many
        audio_only.train(model, examples, steps, faces if told else None, path, seed)
        if told:
            audio_only.train_question_emotion(ears, self.questions("train"), labels, seed=seed)
        save_checkpoint(path, both, self.config.connector, made_for=made_for)
        return self._load(path, both, made_for), ears

    def _spoken(self) -> int:
        return len(self.samples("train")) + len(self.samples("train_read"))

    def _load(self, path: Path, model: torch.nn.Module, made_for: dict) -> torch.nn.Module:
        """The weights in ``path`` into ``model``; its first part. ValueError where they are of another run."""
        state, meta = load_checkpoint(path)
        if meta.get("made_for") != made_for:
            raise ValueError(f"{path}: was trained with other tokenizers or samples; delete it to train it anew")
        model.load_state_dict(state)
        return model.eval()[0]

    def questions(self, split: str) -> list[Tensor]:
        """Text ids of all that was asked."""
        vocabulary = self.backbone().vocabulary
        return [torch.tensor(vocabulary.encode(text)) for text in dialogues(self.samples(split))]

    def predictor(self, model: str, seed: int) -> Callable[[str, float | None], list[Tensor]]:
        """(split, sharpness) -> motion codes (N, N_q) per answer, from true audio tokens and its own history."""
        if model in ("three stages", "adapter only"):
            avatar = self.avatar(seed, lora=model == "three stages")
            return lambda split, sharpness: predict(_sharp(avatar, sharpness), self.examples(split))
        net, ears = self.rival(model == "told the emotion", seed)
        guess = lambda split: ears.eval()(self.questions(split)).argmax(-1).tolist() if ears else None  # noqa: E731
        return lambda split, sharpness: audio_only.predict(_sharp(net, sharpness), self.examples(split), guess(split))


def _sharp(model: A2LLM | audio_only.AudioOnly, sharpness: float | None) -> A2LLM | audio_only.AudioOnly:
    model.connector.config = replace(model.connector.config, sharpness=sharpness)
    return model


# ---------------------------------------------------------------- the parts


def tokens(chain: Chain) -> dict:
    """RVQ: usage per level, and what of the mouth survives, per split; streaming against offline."""
    out = {}
    for split in SPLITS:
        found = quality(
            chain.rvq, chain.truth[split], chain.flame, chain.head.landmarks, chain.head.regions["upper_face"]
        )
        opening = round(found.measures["temporal"].mean, 4)
        out[split] = dict(usage=min(found.usage), opening=opening, ufd_ratio=round(found.ufd_ratio, 3))
    whole = torch.cat([chain.rvq.encode(motion[None])[0] for motion in chain.truth["test_sentence"][:20]])[None]
    stream = chain.rvq.stream()
    streamed = torch.cat([stream.step(piece) for piece in whole.split(7, 1)], 1)
    out["streaming_error"] = float((streamed - chain.rvq.decode(whole)).abs().max())
    return out


def text(chain: Chain, listened: int) -> dict:
    """Free generation, greedy: the right words, the end, and whether the speech says what the text says."""
    model = chain.avatar(0)
    avatar = Avatar(model.config, model, chain.speech)
    out, ended = {}, []
    sayable = {t for s in ("train", *SPLITS) for t in chain.samples(s).column("answer_text")}  # else counted as unheard
    for split in SPLITS[:3]:
        examples, wanted = chain.examples(split), chain.samples(split).column("answer_text")
        replies = _replies(model.backbone, examples)
        ended += [reply.ended for reply in replies]
        said = [reply.text.strip() for reply in replies]
        ear = SentenceRecogniser(sorted({*wanted, *(sayable & set(said))}))
        spoken = [_wave(chain, reply.codes) for reply in replies[:listened]]
        round_trip = [_wave(chain, e.item.last.codes) for e in examples[:listened]]
        out[split] = dict(
            text=_share(accuracy(said, wanted)),
            speech=_share(_hits(ear.hits(spoken, said[:listened]))),
            round_trip=_share(_hits(ear.hits(round_trip, wanted[:listened]))),
        )
        print(split, json.dumps(out[split]), file=sys.stderr, flush=True)
    out["cut_by_limit"], out["answers"] = ended.count(False), len(ended)
    return dict(out, **_speed(avatar, chain.samples("test_voice")))


def _replies(backbone: Backbone, examples: Sequence[Example], batch: int = 32) -> list[Answer]:
    """Greedy answers, like lengths together."""
    v, c = backbone.vocabulary, backbone.config
    order = sorted(range(len(examples)), key=lambda i: examples[i].item.length)
    replies: list[Answer] = [None] * len(examples)
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        asked = [converse("AQAA", examples[i].item, v, c, answered=False) for i in some]
        for i, reply in zip(some, answer(backbone, asked)):
            replies[i] = reply
    return replies


def _wave(chain: Chain, codes: Tensor):
    """(A,) codes -> (samples,) numpy; a fifth of a second of silence where nothing was said."""
    return chain.speech.decode(codes[None])[0].numpy() if len(codes) else torch.zeros(3200).numpy()


def _speed(avatar: Avatar, samples: Samples, count: int = 20) -> dict:
    """Medians over single streamed answers."""
    avatar.warm_up()
    runs = [avatar.answer(torch.as_tensor(samples[i].question_audio)).summary for i in range(min(count, len(samples)))]
    median = lambda values: round(float(torch.tensor([v for v in values if v is not None]).median()), 4)  # noqa: E731
    return dict(
        rtf=median([r.rtf for r in runs]), ttft_ms=median([r.ttft and 1000 * r.ttft for r in runs]),
        ttfa_ms=median([r.ttfa and 1000 * r.ttfa for r in runs]),
    )  # fmt: skip


def control(chain: Chain) -> dict:
    """The model without the question: trained as long as the speech step, greedy, always the same answer."""
    path = chain.place.artefact_path("without_question.safetensors")
    if not path.exists():
        items = [e.item for split in ("train", "train_read") for e in chain.examples(split)]
        pretrain(chain.config.backbone, items, path, without_question=True)
    model = Backbone.load(path)
    if model.speech != chain.speech.identity:
        raise ValueError(f"{path}: speaks the codes of another speech tokenizer; delete it to train it anew")
    (reply,) = answer(model, [silence(model.vocabulary, model.config).open()])
    found = {}
    for split in SPLITS[:3]:
        wanted = chain.samples(split).column("answer_text")
        found[split] = _share(accuracy([reply.text.strip()] * len(wanted), wanted))
    return dict(found, says=reply.text.strip())


def motion(chain: Chain, seeds: int) -> dict:
    """True audio tokens, the model's own previous motion tokens: lips, liveliness, emotion; rivals beside."""
    out: dict = {"ceiling": _ceiling(chain)}
    predictors = {(model, seed): chain.predictor(model, seed) for model, seed in models(seeds)}
    out["answer_sharpness"] = chain.config.connector.sharpness
    ours = [predictors["three stages", seed] for seed in range(seeds)]
    out["dev"], out["sharpness"] = _choose_sharpness(chain, ours)
    for (model, seed), codes_of in predictors.items():
        asked = (None, out["sharpness"]) if model == "three stages" else (out["sharpness"],)  # None: the paper's, bare
        for sharpness in dict.fromkeys(asked):
            key = f"{model}, {_called(sharpness)}, seed {seed}"
            out[key] = {split: _face(chain, codes_of(split, sharpness), split) for split in SPLITS}
            print(key, json.dumps(out[key]["test_sentence"]), file=sys.stderr, flush=True)
        if model == "three stages":
            told = _sharp(chain.avatar(seed), out["sharpness"])
            codes = _with_true_history(told, chain.examples("test_sentence"))
            out[f"the true history, seed {seed}"] = _late(chain, chain.faces(codes), chain.truth["test_sentence"])
    return out


@torch.no_grad()
def _with_true_history(model: A2LLM, examples: Sequence[Example], batch: int = 16) -> list[Tensor]:
    """As ``predict``, but before every segment stands the true one: nothing the model said itself can add up."""
    model.eval()
    out: list[Tensor] = []
    for start in range(0, len(examples), batch):
        together = model.collate(examples[start : start + batch]).to(model.backbone.device)
        _, hidden = model.hidden(together.sequence)
        codes = model.connector.choose(model.connector(hidden, together.codes, together.lengths))
        out += [row[:n] for row, n in zip(codes, together.lengths.tolist())]
    return out


def _called(sharpness: float | None) -> str:
    return "likeliest codes" if sharpness is None else f"sharpness {sharpness:g}"


def _choose_sharpness(chain: Chain, predictors: Sequence[Callable]) -> tuple[dict, float | None]:
    """Dev's figures per sharpness, and the one with the best lips among UFD +-15 % (else the nearest)."""
    found = {}
    for sharpness in SHARPNESSES:
        faces = [_face(chain, codes_of("dev", sharpness), "dev") for codes_of in predictors]
        found[sharpness] = {k: round(sum(f[k] for f in faces) / len(faces), 4) for k in ("temporal", "ufd_ratio")}
    calm = [k for k, f in found.items() if abs(f["ufd_ratio"] - 1) <= 0.15]
    best = max(calm, key=lambda k: found[k]["temporal"]) if calm else min(
        found, key=lambda k: abs(found[k]["ufd_ratio"] - 1)
    )  # fmt: skip
    return {_called(k): f for k, f in found.items()}, best


def _face(chain: Chain, codes: Sequence[Tensor], split: str) -> dict:
    samples, faces, truth = chain.samples(split), chain.faces(codes), chain.truth[split]
    emotions = samples.column("emotion")
    whole = chain.judge(faces, truth, emotions)
    figures = {name: round(spread.mean, 4) for name, spread in whole.measures.items()}
    return dict(
        figures, ufd_ratio=round(whole.ufd_ratio, 3), emotion_ambiguous=_share(_on_ambiguous(whole, samples)),
        **_late(chain, faces, truth),
    )  # fmt: skip


def _on_ambiguous(verdict: Verdict, samples: Samples) -> Accuracy:
    unclear = [i for i, style in enumerate(samples.column("style")) if style == "ambiguous"]
    emotions = samples.column("emotion")
    return accuracy([verdict.shown[i] for i in unclear], [emotions[i] for i in unclear])


def _late(chain: Chain, faces: Sequence[Tensor], truth: Sequence[Tensor]) -> dict:
    """Temporal correlation of segments 1-5 and of those after, over answers that have both (at least 1 s late)."""
    span = chain.config.connector.segment * chain.rvq.config.group
    early, late = [], []
    for predicted, true in zip(faces, truth):
        if len(true) < 6 * span:
            continue
        curves = [
            mouth_opening(chain.judge.vertices(motion[: len(true)]), chain.judge.landmarks)
            for motion in (predicted, true)
        ]
        early.append(temporal_correlation(*(c[: 5 * span] for c in curves)))
        late.append(temporal_correlation(*(c[5 * span :] for c in curves)))
    mean = lambda values: round(float(torch.tensor(values).nanmean()), 4) if values else None  # noqa: E731
    return dict(segments_1_to_5=mean(early), segments_6_on=mean(late), long_answers=len(early))


def _ceiling(chain: Chain) -> dict:
    """Per split: the read-out on true motion, and the best guess from the answer's words (``flame_qa.card.chance``)."""
    known, out = chain.samples("train").where(style="ambiguous"), {}
    for split in SPLITS:
        samples = chain.samples(split)
        seen = chain.judge(chain.truth[split], chain.truth[split], samples.column("emotion"))
        unclear = samples.where(style="ambiguous")
        best_guess = round(chance(known, unclear), 4)
        out[split] = dict(readout_on_truth=_share(_on_ambiguous(seen, samples)), chance=best_guess, n=len(unclear))
    return out


def _hits(right: list[bool]) -> Accuracy:
    return Accuracy(sum(right), len(right))


def _share(value: Accuracy) -> dict:
    low, high = value.interval
    return dict(asdict(value), share=round(value.value, 4), low=round(low, 4), high=round(high, 4))


# ---------------------------------------------------------------- the bars


def bars(out: dict, seeds: int) -> list[tuple[str, float, bool]]:
    """(what, figure, held) for every bar that the parts in ``out`` can be held against."""
    found: list[tuple[str, float, bool]] = []
    hold = lambda name, value, held: found.append((name, round(float(value), 4), bool(held)))  # noqa: E731
    if "rvq" in out:
        for split in SPLITS:
            usage, opening = out["rvq"][split]["usage"], out["rvq"][split]["opening"]
            hold(f"rvq usage, every level, {split} >= .95", usage, usage >= 0.95)
            floor = 0.97 if split == "test_avatar" else 0.985
            hold(f"rvq mouth opening r, {split} >= {floor}", opening, opening >= floor)
        error = out["rvq"]["streaming_error"]
        hold("rvq streaming = offline, 1e-5", error, error <= 1e-5)
    if "text" in out:
        t = out["text"]
        for split, floor in zip(SPLITS, (0.95, 0.88, 0.88)):
            hold(f"answers right, {split} >= {floor}", t[split]["text"]["share"], t[split]["text"]["share"] >= floor)
            gap = t[split]["speech"]["share"] - t[split]["round_trip"]["share"]
            hold(f"speech understood minus round trip, {split} >= -.05", gap, gap >= -0.05)
        none_cut = t["cut_by_limit"] == 0 and t["answers"] >= 500
        hold("answers cut by the limit = 0, of 500 or more", t["cut_by_limit"], none_cut)
        hold("real-time factor < .3", t["rtf"], t["rtf"] < 0.3)
    if "motion" in out:
        found += _motion_bars(out["motion"], seeds)
    return found


def _motion_bars(m: dict, seeds: int) -> list[tuple[str, float, bool]]:
    found: list[tuple[str, float, bool]] = []
    how = _called(m["sharpness"])
    found.append(("answer is as sharp as dev chose", m["sharpness"] or 0, m["sharpness"] == m["answer_sharpness"]))
    of = lambda model, seed, split: m[f"{model}, {how}, seed {seed}"][split]  # noqa: E731
    for seed in range(seeds):
        hold = lambda name, value, held, seed=seed: found.append(  # noqa: E731
            (f"{name} ({how}, seed {seed})", round(float(value), 4), bool(held))
        )
        for split in ("test_sentence", "test_avatar"):
            ours, rival = of("three stages", seed, split)["temporal"], of("audio only", seed, split)["temporal"]
            if split == "test_sentence":
                hold("temporal r, test_sentence >= .85", ours, ours >= 0.85)
            hold(f"temporal r minus audio only's, {split} >= -.01", ours - rival, ours - rival >= -0.01)
        face = of("three stages", seed, "test_sentence")
        hold("liveliness .85-1.15", face["liveliness"], 0.85 <= face["liveliness"] <= 1.15)
        if face["long_answers"]:
            gap = face["segments_6_on"] - face["segments_1_to_5"]
            hold("segments 6 on minus 1-5, within .03", gap, abs(gap) <= 0.03)
        hold("UFD over the truth's, +-15 %", face["ufd_ratio"], abs(face["ufd_ratio"] - 1) <= 0.15)
        for split, floor in (("test_voice", 0.93), ("test_paraphrase", 0.8)):
            right = of("three stages", seed, split)["emotion_ambiguous"]["share"]
            hold(f"emotion on ambiguous, {split} >= {floor}", right, right >= floor)
        for split in SPLITS[:2]:  # where combinations are new, the best guess is 0 and any undecided face beats it
            heard, at = of("audio only", seed, split)["emotion_ambiguous"], m["ceiling"][split]["chance"]
            hold(f"audio only at chance {at:.2f}, {split}", heard["share"], heard["low"] <= at <= heard["high"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop", choices=("laptop", "a100"))
    names = ("rvq", "text", "control", "motion", "train")
    parser.add_argument("--parts", nargs="+", default=list(names[:-1]), choices=names)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="samples per test split (default: all)")
    parser.add_argument("--listen", type=int, default=60, help="answers per split that pocketsphinx hears (3 s each)")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else on stdout")
    args = parser.parse_args()
    os.environ["A2LITE_QUIET"] = "1" if args.json else os.environ.get("A2LITE_QUIET", "")
    torch.set_num_threads(1)
    parts = dict(
        rvq=tokens, text=lambda chain: text(chain, args.listen), control=control,
        motion=lambda chain: motion(chain, args.seeds), train=lambda chain: train_all(chain, args.seeds),
    )  # fmt: skip
    with open(os.devnull, "w") as nowhere:
        stdout, sys.stdout = sys.stdout, nowhere if args.json else sys.stdout
        chain, began, out = Chain(args.profile, args.limit), time.perf_counter(), {}
        for part in args.parts:
            out[part] = parts[part](chain)
            print(part, json.dumps(out[part], indent=1), flush=True)
        sys.stdout = stdout
    out["bars"] = bars(out, args.seeds)
    out["minutes"] = round((time.perf_counter() - began) / 60, 1)
    for name, value, held in [] if args.json else out["bars"]:
        print(f"[{'held' if held else 'MISSED'}] {value:8.4f}  {name}")
    if args.json:
        print(json.dumps(out))


def train_all(chain: Chain, seeds: int) -> dict:
    """Every model of ``motion`` that is missing."""
    for model, seed in models(seeds):
        chain.predictor(model, seed)
    return {}


if __name__ == "__main__":
    main()
