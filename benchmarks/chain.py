"""The whole chain, measured on one test split per held-out axis: what the README claims about the kit is printed here.

    python benchmarks/chain.py --json              # every part; models that are missing are trained first
    python benchmarks/chain.py --parts text speech # free generation alone

Each split holds out one axis (question voice, paraphrase, combination, avatar voice, answer sentence) and keeps
the others as in training. Proportions come with Wilson's 95 % interval. All data is the synthetic world.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sentences import SentenceRecogniser  # noqa: E402

from a2lite.a2llm import A2LLM, Example, examples_of
from a2lite.backbone import Backbone, answer
from a2lite.backbone.tasks import converse, prepare
from a2lite.baselines import audio_only
from a2lite.config import load_config
from a2lite.fit import Progress, artefact_path, find_artefact, load_checkpoint, save_checkpoint
from a2lite.flame import Flame, load_head
from a2lite.flame_qa import Samples, load_samples
from a2lite.judge import Judge, Verdict
from a2lite.metrics import Accuracy, accuracy
from a2lite.realtime import Avatar
from a2lite.rvq import load as load_rvq
from a2lite.rvq import quality
from a2lite.speech import load as load_speech
from a2lite.training import Stage, predict, three_stages, train
from a2lite.world.domain import EMOTIONS

SPLITS = ("test_voice", "test_paraphrase", "test_combination", "test_avatar", "test_sentence")


class Chain:
    """One profile's artefacts and samples, read once."""

    def __init__(self, profile: str, limit: int | None):
        self.profile, self.limit = profile, limit
        self.config = load_config(profile)
        self.head = load_head()
        self.flame = Flame(self.head)
        self.rvq = load_rvq(find_artefact("rvq.safetensors", profile))
        self.speech = load_speech(find_artefact("speech.safetensors", profile))
        self._samples: dict[str, Samples] = {}
        self._examples: dict[str, list[Example]] = {}

    def backbone(self) -> Backbone:
        """A fresh copy: LoRA is put into it."""
        return Backbone.load(find_artefact("backbone.safetensors", self.profile))

    def samples(self, split: str) -> Samples:
        if split not in self._samples:
            whole = load_samples(self.profile, split)
            count = len(whole) if split == "train" or self.limit is None else min(self.limit, len(whole))
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
        """Taught by the true motion of the training answers."""
        train = self.samples("train").select(range(0, len(self.samples("train")), 3))
        motions = [torch.as_tensor(s.motion) for s in train]
        return Judge(self.flame, self.head.landmarks, self.head.regions["upper_face"], motions, train.column("emotion"))

    def verdict(self, codes: list[Tensor], split: str, ambiguous: bool = False, levels: int | None = None) -> Verdict:
        samples = self.samples(split)
        keep = [i for i, style in enumerate(samples.column("style")) if style == "ambiguous" or not ambiguous]
        chosen = [samples[i] for i in keep]
        predicted = [self.rvq.decode(codes[i][None], levels)[0] for i in keep]
        return self.judge(predicted, [torch.as_tensor(s.motion) for s in chosen], [s.emotion for s in chosen])

    # ---- models, trained where they are missing

    def avatar(self, seed: int, lora: bool = True) -> A2LLM:
        """The three stages from the one backbone (Sec. 5.3), or with ``lora=False`` Table 6's Adapter-Only."""
        name = f"a2llm{f'-seed{seed}' if seed else ''}.safetensors" if lora else f"adapter-seed{seed}.safetensors"
        path = artefact_path(name, self.profile)
        if path.exists():
            return A2LLM.load(path, self.config, self.backbone(), self.rvq)
        torch.manual_seed(seed)
        model = A2LLM(self.config, self.backbone(), self.rvq, lora)
        examples = self.examples("train")
        affective = [e for e, high in zip(examples, self.samples("train").column("high_dynamic")) if high]
        stages = three_stages(self.config.training, examples, affective)
        if not lora:
            stages = [Stage("adapter only", sum(stage.steps for stage in stages), examples)]
        trace = train(model, stages, path, seed=seed)
        model.save(path, trace=trace)
        return model.eval()

    def rival(self, told: bool, seed: int) -> tuple[audio_only.AudioOnly, audio_only.QuestionEmotion | None]:
        """The audio-only model, or the fair rival that is told the emotion of the question's words."""
        path = artefact_path(f"{'rival' if told else 'audio'}-seed{seed}.safetensors", self.profile)
        torch.manual_seed(seed)
        model = audio_only.AudioOnly(self.config, self.speech.codes, len(EMOTIONS) if told else 0)
        ears = audio_only.QuestionEmotion(len(self.backbone().vocabulary), len(EMOTIONS)) if told else None
        both = torch.nn.ModuleList([model] + ([ears] if told else []))
        if path.exists():
            both.load_state_dict(load_checkpoint(path)[0])
            return model.eval(), ears
        examples = self.examples("train")
        labels = [EMOTIONS.index(e) for e in self.samples("train").column("emotion")]
        c = self.config.training
        steps = 2 * (c.stage1_steps + c.stage2_steps + c.stage3_steps)
        audio_only.train(model, examples, steps, labels if told else None, path, seed)
        if told:
            audio_only.train_question_emotion(ears, self.questions("train"), labels, seed=seed)
        save_checkpoint(path, both, self.config.connector)
        return model.eval(), ears

    def questions(self, split: str) -> list[Tensor]:
        """Text ids of all that was asked."""
        vocabulary = self.backbone().vocabulary
        return [torch.tensor(vocabulary.encode(sample.dialogue)) for sample in self.samples(split)]


# ---------------------------------------------------------------- the parts


def tokenizer(chain: Chain) -> dict:
    """RVQ: usage per level, and what of the mouth survives, per split."""
    out = {}
    for split in ("test_sentence", "test_avatar"):
        motions = [torch.as_tensor(s.motion) for s in chain.samples(split)]
        found = quality(chain.rvq, motions, chain.flame, chain.head.landmarks, chain.head.regions["upper_face"])
        out[split] = dict(usage=found.usage, opening=found.measures["temporal"].mean, ufd_ratio=found.ufd_ratio)
    whole = torch.cat([chain.rvq.encode(torch.as_tensor(s.motion)[None])[0] for s in chain.samples("train")])
    stream, pieces = chain.rvq.stream(), whole[None, :300].split(7, 1)
    streamed = torch.cat([stream.step(piece) for piece in pieces], 1)
    out["streaming_error"] = float((streamed - chain.rvq.decode(whole[None, :300])).abs().max())
    return out


def text(chain: Chain, seed: int = 0) -> dict:
    """Free generation, greedy: the right words, the end, and whether the speech says what the text says."""
    model = chain.avatar(seed)
    avatar = Avatar(model.config, model, chain.speech)
    ear = SentenceRecogniser(sorted({t for s in ("train", *SPLITS) for t in chain.samples(s).column("answer_text")}))
    out, ended = {}, []
    for split in SPLITS[:3]:
        samples, examples = chain.samples(split), chain.examples(split)
        v, c = model.backbone.vocabulary, model.backbone.config
        dialogues = [converse("AQAA", e.item, v, c, answered=False) for e in examples]
        replies, progress = [], Progress(f"answers {split}", len(dialogues))
        for start in range(0, len(dialogues), 16):
            replies += answer(model.backbone, dialogues[start : start + 16])
            progress.update(len(replies))
        ended += [reply.ended for reply in replies]
        said = [reply.text.strip() for reply in replies]
        spoken = [chain.speech.decode(r.codes[None])[0].numpy() for r in replies]
        round_trip = [chain.speech.decode(e.item.last.codes[None])[0].numpy() for e in examples]
        out[split] = dict(
            text=_share(accuracy(said, samples.column("answer_text"))),
            speech=_share(_hits(ear.hits(spoken, said))),
            round_trip=_share(_hits(ear.hits(round_trip, samples.column("answer_text")))),
        )
    out["cut_by_limit"] = f"{ended.count(False)} of {len(ended)}"
    out["rtf"], out["ttft_ms"], out["ttfa_ms"] = _speed(avatar, chain.samples("test_voice"))
    return out


def _speed(avatar: Avatar, samples: Samples, count: int = 20) -> tuple[float, float, float]:
    """Medians over single streamed answers."""
    avatar.warm_up()
    runs = [avatar.answer(torch.as_tensor(samples[i].question_audio)).summary for i in range(min(count, len(samples)))]
    median = lambda values: float(torch.tensor(values).median())  # noqa: E731
    return tuple(round(median(v), 4) for v in (
        [r.rtf for r in runs], [1000 * r.ttft for r in runs], [1000 * r.ttfa for r in runs]
    ))


def motion(chain: Chain, seeds: int) -> dict:
    """True audio tokens, the model's own previous motion tokens: lips, liveliness, emotion; rivals beside."""
    out: dict = {"ceiling": _ceiling(chain)}
    for seed in range(seeds):
        makers = {
            "three stages": lambda split, m=chain.avatar(seed): predict(m, chain.examples(split)),
            "adapter only": lambda split, m=chain.avatar(seed, lora=False): predict(m, chain.examples(split)),
            "audio only": lambda split, m=chain.rival(False, seed): _rival_codes(chain, m, split),
            "told the emotion": lambda split, m=chain.rival(True, seed): _rival_codes(chain, m, split),
        }
        for name, codes_of in makers.items():
            for split in SPLITS:
                codes = codes_of(split)
                for levels in (None, 2):
                    key = f"{name}, {levels or 'all'} levels, seed {seed}"
                    out.setdefault(key, {})[split] = _face(chain, codes, split, levels)
            print(key, json.dumps(out[key]["test_sentence"]), flush=True)
    return out


def _rival_codes(chain: Chain, rival, split: str) -> list[Tensor]:
    model, ears = rival
    guessed = ears.eval()(chain.questions(split)).argmax(-1).tolist() if ears else None
    return audio_only.predict(model, chain.examples(split), guessed)


def _face(chain: Chain, codes: list[Tensor], split: str, levels: int | None) -> dict:
    whole, ambiguous = (chain.verdict(codes, split, only, levels) for only in (False, True))
    return dict(
        {name: round(spread.mean, 4) for name, spread in whole.measures.items()},
        ufd_ratio=round(whole.ufd_ratio, 3), emotion_ambiguous=_share(ambiguous.emotion), **_late(chain, codes, split),
    )


def _late(chain: Chain, codes: list[Tensor], split: str) -> dict:
    """Temporal correlation of segments 1-5 and of those after, over answers that have both."""
    span = chain.config.connector.segment * chain.rvq.config.group
    early, late = [], []
    for sample, own in zip(chain.samples(split), codes):
        if len(sample.motion) < 5 * span + 25:
            continue
        predicted, true = (chain.judge.vertices(m) for m in (chain.rvq.decode(own[None])[0], sample.motion))
        from a2lite.metrics import mouth_opening, temporal_correlation
        curves = [mouth_opening(v, chain.judge.landmarks) for v in (predicted[: len(true)], true)]
        early.append(temporal_correlation(*(c[: 5 * span] for c in curves)))
        late.append(temporal_correlation(*(c[5 * span :] for c in curves)))
    mean = lambda values: round(float(torch.tensor(values).nanmean()), 4) if values else None  # noqa: E731
    return dict(segments_1_to_5=mean(early), segments_6_on=mean(late))


def _ceiling(chain: Chain) -> dict:
    """The read-out on true motion, and the best guess from the answer's words under the training distribution."""
    out = {}
    for split in SPLITS:
        samples = [s for s in chain.samples(split) if s.style == "ambiguous"]
        motions = [torch.as_tensor(s.motion) for s in samples]
        seen = chain.judge(motions, motions, [s.emotion for s in samples]).emotion
        out[split] = dict(readout_on_truth=_share(seen), chance=_share(_best_guess(chain, samples)))
    return out


def _best_guess(chain: Chain, samples) -> Accuracy:
    """Per answer text the emotion most frequent with it in training (all emotions are equal where it is new)."""
    train = chain.samples("train")
    counts: dict[str, dict[str, int]] = {}
    for said, emotion in zip(train.column("answer_text"), train.column("emotion")):
        seen = counts.setdefault(said, {})
        seen[emotion] = seen.get(emotion, 0) + 1
    guess = [max(counts.get(s.answer_text, {EMOTIONS[0]: 1}).items(), key=lambda kv: kv[1])[0] for s in samples]
    return accuracy(guess, [s.emotion for s in samples])


def _hits(right: list[bool]) -> Accuracy:
    return Accuracy(sum(right), len(right))


def _share(value: Accuracy) -> dict:
    low, high = value.interval
    return dict(asdict(value), share=round(value.value, 4), low=round(low, 4), high=round(high, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--parts", nargs="+", default=["rvq", "text", "motion"], choices=["rvq", "text", "motion"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="samples per test split (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    torch.set_num_threads(1)
    chain, began, out = Chain(args.profile, args.limit), time.perf_counter(), {}
    parts = dict(rvq=tokenizer, text=text, motion=lambda chain: motion(chain, args.seeds))
    for part in args.parts:
        out[part] = parts[part](chain)
        print(part, json.dumps(out[part], indent=None if args.json else 1), flush=True)
    out["minutes"] = round((time.perf_counter() - began) / 60, 1)
    if args.json:
        print(json.dumps(out))


if __name__ == "__main__":
    main()
