"""``python -m a2lite.world``: writes data_samples/ anew (samples, questions ready to ask, the data card).

A developer's command; the samples are the first ones of each split at laptop size. With ``--card`` it also
measures the laptop set, which has to be there, and puts its card into the README (a minute).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from a2lite.audio import save_wav
from a2lite.config import load_config
from a2lite.flame_qa import SCHEMA_VERSION, card, card_table, load_samples, samples_folder, validate
from a2lite.flame_qa.card import contents
from a2lite.world import SPLITS, domain, generate
from a2lite.world.dialogue import HELD_OUT_QUESTION_VOICES
from a2lite.world.generation import speak_question

# (emotion, number of the context sentence, topic, closing); the first two differ in nothing but the emotion
QUESTIONS = (
    ("happy", 3, "violin", "plan"),
    ("angry", 6, "violin", "plan"),
    ("sad", 1, "dinosaur", "feel"),
    ("surprised", 6, "telescope", "help"),
    ("afraid", 6, "submarine", "loud"),
    ("neutral", 5, "computer", "steps"),
)

README = """# data_samples

Synthetic. Every voice is espeak-ng's, every face obeys `a2lite/world/performance.py`; nobody was recorded.
Written by `python -m a2lite.world` in schema version {version} of `a2lite.flame_qa`, checked by its `validate`.

- `<split>-*.parquet`: {count} samples, the first of every split of the laptop set, so that tiny runs see every kind.
- `questions/*.wav`: questions ready to ask, in voices that no training sample has. Two differ in the emotion only:
  the words and the sound of the right answer are the same, the face is not.
- `train_read` is no dialogue: one of the asking voices says a few neutral sentences, the avatar says them again. The
  topics occur in them, the words that carry an emotion do not; what test_combination holds out are dialogues. Half of
  their nouns and adjectives are made up, so that sounds cannot be guessed from words.

| file | question | right answer | face |
|---|---|---|---|
{questions}

## The shipped samples

{shipped}

## The set that `laptop` generates

One (topic, emotion) pair per topic is held out, so the words of an ambiguous answer leave five emotions: chance is
1/5 (and 0 on test_combination, whose pairs no dialogue in training shows). Intervals are Wilson's, 95 %. A retriever
and keyword spotting get the *true words* asked, not the sound. "emotion heard" is a classifier on the answer's sound.

{card}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m a2lite.world", description="write data_samples/ anew")
    parser.add_argument("--card", action="store_true", help="measure the laptop set for the README too")
    args = parser.parse_args()
    config, folder = load_config("tiny"), samples_folder("tiny")
    for old in folder.glob("*.parquet"):  # written anew, not resumed
        old.unlink()
    for split in SPLITS:
        generate(config, split, folder)
    for line in validate(folder):
        print(line)
    shipped = {split: load_samples("tiny", split) for split in SPLITS}
    measured = card({split: load_samples("laptop", split) for split in SPLITS}) if args.card else None
    text = README.format(
        version=SCHEMA_VERSION,
        count=sum(map(len, shipped.values())),
        questions=write_questions(folder / "questions"),
        shipped=card_table({split: contents(samples) for split, samples in shipped.items()}),
        card=card_table(measured) if measured else "not measured",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def write_questions(folder: Path) -> str:
    """Speak QUESTIONS into ``folder``; returns the table's lines."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, (emotion, context, topic, closing) in enumerate(QUESTIONS):
        text = f"{domain.CONTEXTS[emotion][context].format(t=topic)}. {domain.CLOSINGS[closing]}"
        name = f"{emotion}_{topic}_{closing}.wav"
        voice = HELD_OUT_QUESTION_VOICES[i % len(HELD_OUT_QUESTION_VOICES)]
        save_wav(folder / name, speak_question(text, voice, 160, 50))
        lines.append(f"| {name} | {text} | {domain.answer(topic, emotion, closing)} | {emotion} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
