"""The synthetic world: the same seed gives the same sample, no split leaks, and the face obeys its laws."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from a2lite.config import load_config
from a2lite.flame import Flame, load_head
from a2lite.flame_qa import load_samples
from a2lite.metrics import mouth_opening, upper_face_dynamics
from a2lite.world import SPLITS, dialogue, domain, generate, generation, plan, sample
from a2lite.world.espeak import speak
from a2lite.world.performance import (
    FPS,
    JAW,
    articulate,
    blinks,
    close_lips,
    expression,
    gesture_course,
    smooth_noise,
    viseme,
)

CONFIG = load_config("laptop").world
TESTS = [split for split in SPLITS if split.startswith("test")]


@pytest.fixture(scope="module")
def plans():
    """One whole round of the deck for training, and all of every test split."""
    counts = {"train": 1320, "train_read": CONFIG.train_read, "dev": CONFIG.dev, **dict.fromkeys(TESTS, CONFIG.test)}
    return {split: [plan(CONFIG, split, i) for i in range(count)] for split, count in counts.items()}


@pytest.fixture(scope="module")
def samples():
    return [sample(CONFIG, "train", i) for i in range(12)]


@pytest.fixture(scope="module")
def face():
    head = load_head()
    return head, Flame(head)


# ---------------------------------------------------------------- determinism


def test_the_voice_does_not_depend_on_what_was_said_before():
    first, phonemes = speak("The violin turned green.", "en-us+f1")
    speak("Something else, by somebody else", "en-gb-x-rp+m4", rate=190, pitch=70)
    again, again_phonemes = speak("The violin turned green.", "en-us+f1")
    assert np.array_equal(first, again)
    assert phonemes == again_phonemes


def test_a_sample_regenerates_alone(samples):
    again = sample(CONFIG, "train", 7)
    assert again.dialogue == samples[7].dialogue
    for name in ("question_audio", "answer_audio", "motion"):
        assert np.array_equal(getattr(again, name), getattr(samples[7], name)), name


def test_another_seed_or_split_gives_another_sample():
    here, seed, split = plan(CONFIG, "train", 3), plan(replace(CONFIG, seed=1), "train", 3), plan(CONFIG, "dev", 3)
    assert len({repr(replace(p, seed=0, split="")) for p in (here, seed, split)}) == 3


# ---------------------------------------------------------------- leaks


def contexts_of(split):
    return domain.HELD_OUT_CONTEXTS if split == "test_paraphrase" else domain.CONTEXTS


def test_each_test_split_holds_out_one_axis_only(plans):
    train = plans["train"] + plans["train_read"]
    trained = {
        "test_voice": {p.question_voice for p in train},
        "test_combination": {(p.topic, p.emotion) for p in plans["train"]},
        "test_avatar": {p.avatar_voice for p in train},
        "test_sentence": {p.answer_text for p in train},
    }
    seen = {
        "test_voice": lambda p: p.question_voice,
        "test_combination": lambda p: (p.topic, p.emotion),
        "test_avatar": lambda p: p.avatar_voice,
        "test_sentence": lambda p: p.answer_text,
    }
    for split in TESTS:
        for axis, known in trained.items():
            values = {seen[axis](p) for p in plans[split]}
            if axis == split:
                assert not values & known, f"{split} is not held out on its own axis"
            elif not (axis == "test_sentence" and split == "test_combination"):  # new pairs say new plain answers
                assert values <= known, f"{split} also holds out {axis}"


def test_paraphrases_are_held_out_but_their_words_are_not(plans):
    trained = {text.format(t="") for texts in domain.CONTEXTS.values() for text in texts}
    words = {word for text in trained for word in text.lower().split()}
    for texts in domain.HELD_OUT_CONTEXTS.values():
        for text in texts:
            assert text.format(t="") not in trained
            assert set(text.format(t="").lower().split()) <= words
    for split in SPLITS[2:]:
        allowed = {text.format(t=t) for texts in contexts_of(split).values() for text in texts for t in domain.TOPICS}
        assert {p.turns[0].split(".")[0] for p in plans[split]} <= allowed


def test_read_sentences_share_none_with_the_tests(plans):
    read = [p.answer_text for p in plans["train_read"]]
    assert not set(read) & {p.answer_text for p in plans["test_sentence"]}
    assert len(set(read)) > 0.99 * len(read) and all(p.turns == (p.answer_text,) for p in plans["train_read"])


def test_read_sentences_know_topics_but_no_emotion(plans):
    read = " ".join(p.answer_text for p in plans["train_read"]).lower()
    assert all(topic in read for topic in domain.TOPICS)
    assert not any(key.lower() in read for keys in domain.KEY_WORDS.values() for key in keys)


def test_no_single_key_word_tells_the_emotion():
    for emotion, keys in domain.KEY_WORDS.items():
        texts = [text.lower() for text in domain.CONTEXTS[emotion]]
        counts = [sum(key.lower() in text for text in texts) for key in keys]
        assert counts == [3] * 5
        others = " ".join(text.lower() for e, texts in domain.CONTEXTS.items() if e != emotion for text in texts)
        assert not any(key.lower() in others for key in keys)


def test_ambiguous_answers_say_the_same_under_every_emotion(plans):
    rows = Counter((p.answer_text, p.emotion) for p in plans["train"] if p.style == "ambiguous")
    for text in {text for text, _ in rows}:
        counts = [rows[text, emotion] for emotion in domain.EMOTIONS if rows[text, emotion]]
        assert len(counts) == 5 and len(set(counts)) == 1  # chance from the words is 1/5 exactly


def test_ambiguous_prosody_does_not_know_the_emotion():
    index = next(i for i in range(60) if plan(CONFIG, "train", i).style == "ambiguous")
    calm, angry = (sample(CONFIG, "train", index, emotion=emotion) for emotion in ("neutral", "angry"))
    assert np.array_equal(calm.answer_audio, angry.answer_audio)
    assert not np.allclose(calm.motion[:, :50].mean(0), angry.motion[:, :50].mean(0), atol=0.1)
    assert calm.dialogue != angry.dialogue


def test_plain_prosody_does():
    index = next(i for i in range(60) if plan(CONFIG, "train", i).style == "plain")
    assert plan(CONFIG, "train", index, "sad").prosody[0] < plan(CONFIG, "train", index, "angry").prosody[0]


def test_last_question_of_two_turns_tells_neither_topic_nor_emotion(plans):
    two = [p for p in plans["train"] if len(p.turns) == 2]
    assert 0.1 < len(two) / len(plans["train"]) < 0.2
    assert {p.turns[1] for p in two} <= set(domain.CLOSINGS.values())


def test_the_share_of_kinds(plans):
    train = plans["train"]
    assert sum(p.style == "ambiguous" for p in train) / len(train) >= 0.4
    assert sum(p.high_dynamic for p in train) == sum(bool(p.gesture) for p in train) == 150
    assert len(dialogue.QUESTION_VOICES) >= 8 and len(domain.TOPICS) >= 12
    assert len({domain.held_out_combination(topic) for topic in domain.TOPICS}) == 6


# ---------------------------------------------------------------- sound and face


def test_motion_is_as_long_as_its_sound(samples):
    for s in samples:
        assert len(s.answer_audio) % 3200 == 0
        assert s.motion.shape == (len(s.answer_audio) // 640, 58)
        assert 1 <= len(s.answer_audio) / 16000 <= 12
        assert 0.6 < np.abs(s.answer_audio).max() <= 0.7
        assert np.abs(s.answer_audio[-1600:]).max() < 0.02, "an answer ends in silence"


def test_visemes_of_espeaks_symbols():
    assert viseme("m") == viseme("b") == ("closed", "closed")
    assert viseme("'aI") == ("open", "front")
    assert viseme(",oU") == ("round", "tight")
    assert viseme("tS") == ("hush", "hush")
    assert viseme("_:") == ("rest", "rest")


def test_bilabials_close_the_lips(face):
    head, flame = face
    phonemes = [(0.0, "_"), (0.2, "'A:"), (0.4, "m"), (0.5, "'A:"), (0.7, "_:")]
    units = articulate(phonemes, 25)
    units["jaw"] = JAW * units["jaw"]
    units = close_lips(units)
    motion = torch.zeros(25, 58)
    motion[:, 50] = torch.from_numpy(units.pop("jaw"))
    motion[:, :50] = torch.from_numpy(expression(units, np.zeros((25, 36))))
    opening = mouth_opening(flame(motion), head.landmarks) * 1000
    assert opening[int(0.3 * FPS)] > 10 and opening[int(0.6 * FPS)] > 10
    assert opening[int(0.45 * FPS)] < 2
    assert opening[0] < 1 and opening[-1] < 1


def test_the_lips_follow_the_phonemes_in_time():
    phonemes = [(0.2, "m"), (0.3, "'A:"), (0.5, "s"), (0.6, "_")]
    later = [(start + 0.4, symbol) for start, symbol in phonemes]
    here, there = articulate(phonemes, 50)["jaw"], articulate(later, 50)["jaw"]
    np.testing.assert_allclose(there[10:], here[:-10], atol=1e-9)


def test_coarticulation_calms_the_jaw(samples):
    phonemes, frames = samples[0].phonemes, len(samples[0].motion)
    steps, smooth = (articulate(phonemes, frames, width)["jaw"] for width in (0.0, 0.035))
    assert np.abs(np.diff(smooth)).mean() < 0.8 * np.abs(np.diff(steps)).mean()


def test_named_tracks_are_the_heads_action_units(face):
    head, _ = face
    track = np.linspace(0, 1, 4)
    mine = expression({"smile": track, "upper_lip_left": track / 2}, np.zeros((4, 36)))
    tracks = torch.from_numpy(track).float()
    torch.testing.assert_close(torch.from_numpy(mine).float(), head.expression(smile=tracks, upper_lip_left=tracks / 2))


def test_amplitudes_are_those_of_a_face(samples, face):
    head, flame = face
    upper = head.regions["upper_face"]
    neutral = flame(torch.zeros(58), vertices=upper)
    openings, dynamics = [], []
    for s in samples:
        motion = torch.from_numpy(s.motion)
        openings.append(mouth_opening(flame(motion, zero_pose=True), head.landmarks))
        moved = flame(motion, vertices=upper, zero_pose=True)
        dynamics.append(upper_face_dynamics(moved, torch.arange(len(upper)), neutral))
    opening = 1000 * torch.cat(openings)
    assert 3.5 < (opening - opening.mean()).abs().mean() < 7
    assert opening.max() < 35
    assert 5 < np.mean(dynamics) < 15


def test_chance_stays_in_bounds():
    draw = np.random.default_rng(0)
    closed = blinks(draw, 5000, 0.5)
    assert closed.min() == 0 and closed.max() == 1
    noise = smooth_noise(draw, 20000, 2, 3)
    np.testing.assert_allclose(noise.std(0), 1, atol=0.1)


def test_a_gesture_comes_with_the_first_clause_and_goes():
    course = gesture_course([(0.1, "h"), (0.2, "'A:"), (0.6, "_:"), (1.0, "D"), (1.1, "'A:")], 50, beat=0, share=0)
    assert course[int(0.5 * FPS)] > 0.9
    assert course[-5:].max() < 0.05


# ---------------------------------------------------------------- files and errors


def test_generation_goes_on_where_it_stopped(tmp_path, capsys):
    config = load_config("tiny", size="nano")
    generate(config, "dev", tmp_path)
    file = next(tmp_path.glob("dev-*.parquet"))
    stamp = file.stat().st_mtime_ns
    generate(config, "dev", tmp_path)
    assert file.stat().st_mtime_ns == stamp
    stored, made = load_samples(tmp_path, "dev")[1], sample(config.world, "dev", 1)
    assert np.array_equal(stored.answer_audio, made.answer_audio)
    assert np.array_equal(stored.motion, made.motion)
    assert stored.phonemes == made.phonemes


@pytest.mark.parametrize("split", ["dev", "train_read"])
def test_files_of_another_seed_are_not_taken_for_this_ones(tmp_path, split):
    config = load_config("tiny", size="nano")
    generate(config, split, tmp_path)
    with pytest.raises(ValueError, match=f"{split}-.*: is of another seed or version of the world; delete it"):
        generate(config.override(world=dict(seed=1)), split, tmp_path)


def test_made_up_words_are_many_and_tell_no_emotion():
    new = {domain.made_up(np.random.default_rng(i)) for i in range(5000)}
    assert len(new) > 4000
    assert not new & {word.lower() for words in domain.KEY_WORDS.values() for word in words}
    assert not new & set(domain.TOPICS)


@pytest.mark.parametrize("law", ["emotion", "width"])
def test_files_of_another_law_of_the_face_are_refused(tmp_path, monkeypatch, law):
    config = load_config("tiny", size="nano")
    generate(config, "dev", tmp_path)
    changed = config.override(world=dict(coarticulation=0.1)) if law == "width" else config
    if law == "emotion":
        monkeypatch.setattr(generation, "plan", lambda *args: replace(plan(*args), emotion="sad"))
    with pytest.raises(ValueError, match="is of another seed or version of the world"):
        generate(changed, "dev", tmp_path)


def test_several_processes_make_the_same_samples_as_one(tmp_path, monkeypatch):
    config = load_config("tiny", "nano")
    monkeypatch.setattr(generation, "SHARD", 2)
    generate(config, "train", tmp_path, count=5)
    assert len(list(tmp_path.glob("train-*-of-00003.parquet"))) == 3
    with pytest.raises(ValueError, match="train-00000-of-00003.parquet: is of a train of another size; delete it"):
        generate(config, "train", tmp_path, count=7)
    for index, stored in enumerate(load_samples(tmp_path, "train")):
        made = sample(config.world, "train", index)
        assert stored.id == made.id and np.array_equal(stored.answer_audio, made.answer_audio)


def test_a_process_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "SHARD", 1)
    with pytest.raises(RuntimeError, match="world train: a process failed .*FileExistsError"):
        generate(load_config("tiny", "nano"), "train", Path(__file__), count=2)


def test_errors_name_the_value(monkeypatch):
    with pytest.raises(ValueError, match="split 'tset'"):
        plan(CONFIG, "tset", 0)
    with pytest.raises(ValueError, match="voice 'nobody'"):
        speak("hello", "nobody")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r"pip install 'a2lite\[world\]'"):
        speak("hello", "en-us")
