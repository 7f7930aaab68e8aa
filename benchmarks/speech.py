"""The speech tokenizer by itself: what its round trip keeps, what its codebook uses, how fast it runs.

    python benchmarks/speech.py --json
    python benchmarks/speech.py --limit 40 --splits dev

Log-mel L1 is in nats; sentence accuracy is pocketsphinx's with a grammar of every answer in the splits; a
real-time factor is CPU seconds of one core per second of speech. All data is the synthetic world.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sentences import SentenceRecogniser  # noqa: E402

from a2lite.audio import RATE
from a2lite.fit import Progress
from a2lite.flame_qa import Sample, load_samples
from a2lite.metrics import Accuracy
from a2lite.speech import SpeechTokenizer, evaluate
from a2lite.workplace import Workplace

SPLITS = ("dev", "test_avatar", "test_sentence")


def streamed(tokenizer: SpeechTokenizer, tokens: Tensor, chunk: int) -> Tensor:
    stream = tokenizer.stream()
    return torch.cat([*(stream.step(piece) for piece in tokens.split(chunk, 1)), stream.flush()], 1)


def intelligibility(tokenizer: SpeechTokenizer, samples: list[Sample], ear: SentenceRecogniser) -> dict:
    """Sentence accuracy of the original and of its round trip, each with its Wilson interval."""
    hits = dict(original=0, round_trip=0)
    progress = Progress("listening", len(samples))
    for i, sample in enumerate(samples):
        wave = torch.from_numpy(sample.answer_audio)[None]
        again = tokenizer.decode(tokenizer.encode(wave))
        hits["original"] += sum(ear.hits([wave[0].numpy()], [sample.answer_text]))
        hits["round_trip"] += sum(ear.hits([again[0].numpy()], [sample.answer_text]))
        progress.update(i + 1)
    return {name: str(Accuracy(count, len(samples))) for name, count in hits.items()}


def speed(tokenizer: SpeechTokenizer, wave: Tensor) -> dict[str, float]:
    """CPU seconds per second of speech, the best of three."""
    tokens, seconds = tokenizer.encode(wave), wave.shape[1] / RATE
    runs: dict[str, Callable[[], Tensor]] = dict(
        encode=lambda: tokenizer.encode(wave),
        decode=lambda: tokenizer.decode(tokens),
        stream_25=lambda: streamed(tokenizer, tokens, 25),
        stream_5=lambda: streamed(tokenizer, tokens, 5),
        stream_1=lambda: streamed(tokenizer, tokens, 1),
    )
    factors = {}
    for name, run in runs.items():
        times = []
        for _ in range(3):
            began = time.process_time()
            run()
            times.append(time.process_time() - began)
        factors[name] = round(min(times) / seconds, 4)
    return factors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--splits", nargs="+", default=SPLITS)
    parser.add_argument("--limit", type=int, help="samples per split (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Workplace(args.profile).speech()
    samples = {split: list(load_samples(args.profile, split))[: args.limit] for split in args.splits}
    ear = SentenceRecogniser(sorted({sample.answer_text for part in samples.values() for sample in part}))
    out = dict(sentences=len(ear.sentences), lookahead_tokens=tokenizer.lookahead)
    for split, part in samples.items():
        spectrum = evaluate(tokenizer, [sample.answer_audio for sample in part])
        out[split] = dict(n=len(part), **spectrum, **intelligibility(tokenizer, part, ear))
        print(split, json.dumps(out[split], indent=None if args.json else 1), flush=True)
    out["rtf"] = speed(tokenizer, torch.from_numpy(part[0].answer_audio)[None])
    print(json.dumps(out) if args.json else json.dumps(out["rtf"]))


if __name__ == "__main__":
    main()
