"""FLAME-QA: Parquet round trips, the validator finds what is planted, the controls say what they should."""

from dataclasses import replace

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from a2lite import ROOT
from a2lite.audio import load_wav
from a2lite.flame_qa import TASKS, Sample, card, card_table, load_samples, save_samples, subtask, validate
from a2lite.flame_qa.card import (
    SoundClassifier,
    TfIdf,
    chance,
    keyword_spotting,
    nearest_question,
    sound_features,
)
from a2lite.world import SPLITS

SHIPPED = ROOT / "data_samples"


def tone(hertz, seconds=0.4):
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)
    return (np.round(wave * 32767) / 32768).astype(np.float32)


def made(i=0, **values):
    """A small sample that never was spoken."""
    draw = np.random.default_rng(i)
    motion = draw.uniform(0, 0.1, (10, 58)).astype(np.float16).astype(np.float32)
    fields = dict(
        id=f"train-{i:05d}", split="train", task="AQAA", topic="violin", emotion="happy", style="plain",
        high_dynamic=False, gesture="", question_text="I love the violin. What now?", question_voice="v",
        question_audio=tone(200 + i), answer_text="Play the violin!", avatar_voice="a", answer_audio=tone(400 + i),
        motion=motion, history=[], phonemes=[(0.08, "p"), (0.125, "'eI")],
    )  # fmt: skip
    return Sample(**{**fields, **values})


def assert_equal(a, b):
    for name in Sample.__dataclass_fields__:
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype and np.array_equal(x, y), name
        elif name == "history":
            assert len(x) == len(y)
            for turn, other in zip(x, y):
                assert all(np.array_equal(turn[key], other[key]) for key in turn)
        else:
            assert x == y, name


# ---------------------------------------------------------------- files


def test_parquet_gives_back_what_went_in(tmp_path):
    turn = dict(question_text="It is gone.", question_audio=tone(250), answer_text="Go on.", answer_audio=tone(350))
    read = made(1, task="TTS", question_audio=np.zeros(0, np.float32))
    samples = [made(0, history=[turn]), read, *[made(i) for i in range(2, 20)]]
    save_samples(samples, tmp_path / "train-00000-of-00001.parquet")
    loaded = load_samples(tmp_path, "train")
    assert len(loaded) == 20
    for i in (0, 1, 19, 7):
        assert_equal(loaded[i], samples[i])
    assert not list(tmp_path.glob("*.partial"))


def test_datasets_reads_the_same_file(tmp_path):
    path = tmp_path / "train-00000-of-00001.parquet"
    save_samples([made(0), made(1)], path)
    rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path))
    assert rows.features["answer_audio"] == datasets.Audio(sampling_rate=16000, decode=False)
    assert rows[1]["answer_audio"]["bytes"][:4] == b"fLaC"
    np.testing.assert_array_equal(np.array(rows[1]["motion"], np.float32), made(1).motion)


def test_columns_selections_and_filters(tmp_path):
    save_samples([made(i, emotion="sad" if i % 3 else "happy") for i in range(20)], tmp_path / "x.parquet")
    samples = load_samples(tmp_path / "x.parquet", "train")
    assert samples.column("emotion")[:3] == ["happy", "sad", "sad"]
    happy = samples.where(emotion="happy")
    assert [s.id for s in happy] == [f"train-{i:05d}" for i in range(0, 20, 3)]
    assert happy.select([2, 0]).column("id") == ["train-00006", "train-00000"]
    with pytest.raises(ValueError, match="column 'mood'"):
        samples.column("mood")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no samples of split 'train'"):
        load_samples(tmp_path, "train")
    save_samples([made(0)], tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(ValueError, match="1 of 2 files"):
        load_samples(tmp_path, "train")
    (tmp_path / "dev-00000-of-00001.parquet").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a Parquet file"):
        load_samples(tmp_path, "dev")
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a"]}), tmp_path / "y.parquet")
    with pytest.raises(ValueError, match="lacks column"):
        load_samples(tmp_path / "y.parquet", "train")


# ---------------------------------------------------------------- tasks


def test_the_four_subtasks():
    assert {name for name, task in TASKS.items() if task.motion} == {"AQAA", "Repeat", "TTS"}
    sample = made(0)
    heard = subtask(sample, "ASR")
    assert heard.answer_text == sample.question_text and len(heard.answer_audio) == len(heard.motion) == 0
    again = subtask(sample, "Repeat")
    assert np.array_equal(again.question_audio, sample.answer_audio) and again.answer_text == sample.answer_text
    assert np.array_equal(again.motion, sample.motion)
    aloud = subtask(sample, "TTS")
    assert len(aloud.question_audio) == 0 and aloud.question_text == sample.answer_text
    assert subtask(sample, "AQAA") is sample


def test_an_ambiguous_answer_is_no_material_for_reading():
    with pytest.raises(ValueError, match="words alone do not tell"):
        subtask(made(0, style="ambiguous"), "TTS")
    with pytest.raises(ValueError, match="task 'Sing'"):
        subtask(made(0), "Sing")


# ---------------------------------------------------------------- validator

LOUD = np.ones(6400, np.float32)
FAULTS = {
    "the same within one": dict(motion=np.zeros((14, 58), np.float32)),
    "motion holds NaN": dict(motion=np.full((10, 58), np.nan, np.float32)),
    "motion has shape": None,  # cannot be stored; tested on the sample itself
    "rotation spans": dict(motion=np.full((10, 58), 1.04, np.float32)),
    "eyelid spans": dict(motion=np.full((10, 58), -0.15, np.float32)),
    "answer_audio is clipped": dict(answer_audio=LOUD),
    "question_audio is silence": dict(question_audio=np.zeros(6400, np.float32)),
    "question_audio is missing": dict(question_audio=np.zeros(0, np.float32)),
    "emotion is 'smug'": dict(emotion="smug"),
    "task is 'Sing'": dict(task="Sing"),
    "style is 'odd'": dict(style="odd"),
    "answer_text is empty": dict(answer_text=" "),
    "phonemes are not in order": dict(phonemes=[(0.3, "a"), (0.1, "b")]),
}


@pytest.mark.parametrize("fault", [name for name, values in FAULTS.items() if values])
def test_the_validator_finds(fault, tmp_path):
    save_samples([made(0), made(1, **FAULTS[fault])], tmp_path / "train-00000-of-00001.parquet")
    lines = validate(tmp_path)
    assert any(fault in line for line in lines), lines
    assert all("train-00001" in line and "\n" not in line for line in lines)


def test_the_validator_finds_wrong_shapes_and_nan_sound():
    from a2lite.flame_qa.check import faults

    assert any("motion has shape" in f for f in faults(made(0, motion=np.zeros((10, 56), np.float32))))
    assert any("NaN" in f for f in faults(made(0, answer_audio=np.full(6400, np.nan, np.float32))))


def test_the_validator_finds_duplicates(tmp_path):
    save_samples([made(0)], tmp_path / "train-00000-of-00001.parquet")
    save_samples([made(0, id="dev-00000", split="dev")], tmp_path / "dev-00000-of-00001.parquet")
    assert any("the same recording as" in line for line in validate(tmp_path))
    save_samples([made(3), made(3)], tmp_path / "twice.parquet")
    assert any("stands there twice" in line for line in validate(tmp_path / "twice.parquet"))
    with pytest.raises(FileNotFoundError, match="no Parquet files"):
        validate(tmp_path / "nowhere")


# ---------------------------------------------------------------- what is shipped


@pytest.fixture(scope="module")
def shipped():
    return {split: load_samples("tiny", split) for split in SPLITS}


def test_shipped_samples_are_sound_and_small():
    assert validate(SHIPPED) == []
    size = sum(file.stat().st_size for pattern in ("*.parquet", "questions/*") for file in SHIPPED.glob(pattern))
    assert size <= 11_000_000


def test_shipped_samples_cover_every_split(shipped):
    assert all(len(samples) >= 4 for samples in shipped.values())
    assert set(shipped["train"].column("emotion")) == {"neutral", "happy", "sad", "angry", "surprised", "afraid"}
    assert any(shipped["train"].column("high_dynamic")) and any(map(len, shipped["train"].column("history")))


def test_questions_are_ready_to_ask():
    questions = sorted((SHIPPED / "questions").glob("*.wav"))
    assert len(questions) >= 5
    assert all(1 < len(load_wav(path)) / 16000 < 10 for path in questions)


def test_a_shipped_sample_regenerates(shipped):
    from a2lite.config import load_config
    from a2lite.world import sample

    stored = shipped["test_voice"][1]
    assert_equal(sample(load_config("tiny").world, "test_voice", 1), stored)


# ---------------------------------------------------------------- controls


def store(path, samples):
    save_samples(samples, path)
    return load_samples(path, samples[0].split)


def test_tfidf_by_hand():
    vectors = TfIdf(["the cat", "the dog", "the cat sleeps"])
    cat, the = vectors(["cat"])[0], vectors(["the"])[0]
    assert vectors.idf[vectors.vocabulary["sleeps"]] == pytest.approx(np.log(4 / 2) + 1)
    assert vectors.idf[vectors.vocabulary["the"]] == pytest.approx(1)
    assert cat @ the == 0 and np.linalg.norm(cat) == pytest.approx(1)
    assert np.all(vectors(["unheard"]) == 0)


def test_text_controls(tmp_path):
    feelings = {"happy": ["joy", "smile"], "sad": ["tears", "gloom"]}
    train, test = [], []
    for i in range(16):
        emotion = ("happy", "sad")[i % 2]
        word = feelings[emotion][i % 4 // 2 if i < 12 else 0]
        sample = made(i, emotion=emotion, style="ambiguous", question_text=f"There is {word} about the violin",
                      answer_text="We go home.")
        (train if i < 12 else test).append(sample if i < 12 else replace(sample, split="dev"))
    train, test = store(tmp_path / "a.parquet", train), store(tmp_path / "b.parquet", test)
    assert nearest_question(train, test)[1].value == 1
    assert keyword_spotting(train, test, None).value == 1
    assert chance(train, test) == 0.5


def test_the_sound_classifier_hears_a_planted_leak():
    draw = np.random.default_rng(0)

    def noise(gain):
        return (gain * draw.standard_normal(8000)).astype(np.float32)

    labels = ["calm", "loud"] * 20
    leaking = [noise(0.05 if label == "calm" else 0.2) for label in labels]
    ear = SoundClassifier(leaking, labels)
    assert ear.predict([noise(0.05), noise(0.2)]) == ["calm", "loud"]
    assert sound_features(leaking[:2]).shape == (2, 121)


def test_the_card_is_a_table(shipped):
    rows = card({split: shipped[split] for split in ("train", "train_read", "test_voice", "test_paraphrase")})
    assert rows["train"]["samples"] == len(shipped["train"])
    assert "retrieved answer" in rows["test_voice"] and "retrieved answer" not in rows["train"]
    table = card_table(rows)
    assert table.splitlines()[0].count("|") == 6 and "| ambiguous |" in table


def test_what_is_to_be_repeated_is_heard_from_somebody_else(shipped):
    for sample in shipped["train_read"]:
        assert sample.task == "Repeat" and sample.question_text == sample.answer_text and len(sample.question_audio)
        assert sample.question_voice != sample.avatar_voice and len(subtask(sample, "TTS").question_audio) == 0


def test_emotion_can_be_read_from_the_true_face(shipped):
    rows = card({"train": shipped["train"], "again": shipped["train"]})
    assert rows["again"]["emotion on true motion"].value >= 0.95
    assert rows["again"]["retrieved answer"].value == 1
