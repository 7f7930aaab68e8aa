"""Streaming: the same answer as offline, segment by segment, and an `answer` that never leaves half a reply."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from a2lite import ROOT, realtime
from a2lite.__main__ import main
from a2lite.a2llm import A2LLM
from a2lite.audio import load_wav, save_wav
from a2lite.backbone import Backbone, Vocabulary, align_tail, answer, generate
from a2lite.config import load_config
from a2lite.realtime import Avatar, Reply, Turn, clip_of, save_reply
from a2lite.rvq import MotionRVQ
from a2lite.speech import SpeechTokenizer

CONFIG = load_config("tiny", size="nano")
GROUP = CONFIG.rvq.group
QUESTIONS = ROOT / "data_samples" / "questions"
TEXTS = ["the violin", "You are a helpful assistant.", "system", "human", "assistant"]


@pytest.fixture(scope="module")
def avatar():
    torch.manual_seed(3)
    vocabulary = Vocabulary.train(TEXTS, CONFIG.backbone.text_vocab, CONFIG.backbone.audio_codes)
    rvq = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58)).eval()
    model = A2LLM(CONFIG, Backbone(CONFIG.backbone, vocabulary), rvq)
    return Avatar(CONFIG, model, SpeechTokenizer(CONFIG.speech))


@pytest.fixture(scope="module")
def question():
    return 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))


def sampled():
    return dict(temperature=1.0, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("limit", [6, 31, 60, 95])
def test_streamed_equals_offline(avatar, question, limit):
    reply = avatar.answer(question, limit=limit, **sampled())
    whole = answer(avatar.model.backbone, [avatar.dialogue(question)], limit=limit, **sampled())[0]
    assert reply.summary.codes == whole.codes.tolist()
    hidden = align_tail(whole.hidden, GROUP, CONFIG.backbone.tail)
    codes = avatar.model.connector.generate(hidden[None])
    torch.testing.assert_close(reply.motion, avatar.model.motion(codes)[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reply.wave, avatar.speech.decode(whole.codes[None])[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("segment", [1, 2, CONFIG.connector.segment])
def test_the_first_motion_leaves_after_exactly_the_first_segments_audio_tokens(avatar, question, monkeypatch, segment):
    spoken, connector = [], avatar.model.connector
    monkeypatch.setattr(connector, "config", replace(connector.config, segment=segment))

    def counted(*args, **options):
        for step in generate(*args, **options):
            spoken.append(step.kind)
            yield step

    monkeypatch.setattr(realtime, "generate", counted)
    motion = next(e for e in avatar.stream(question, limit=95, **sampled()) if e.kind == "motion")
    span = segment * GROUP
    assert spoken.count("code") == span and len(motion.data) == span and motion.start == 0


def test_merged_lora_speaks_as_the_unmerged_does(question):
    torch.manual_seed(5)
    vocabulary = Vocabulary.train(TEXTS, CONFIG.backbone.text_vocab, CONFIG.backbone.audio_codes)
    rvq = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58)).eval()
    model = A2LLM(CONFIG, Backbone(CONFIG.backbone, vocabulary), rvq).eval()
    for name, p in model.backbone.lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.05)
    whole = Avatar.dialogue(SimpleNamespace(model=model), question)
    before = answer(model.backbone, [whole], limit=30)[0]
    merged = Avatar(CONFIG, model, SpeechTokenizer(CONFIG.speech))
    after = answer(merged.model.backbone, [whole], limit=30)[0]
    torch.testing.assert_close(before.hidden, after.hidden, atol=1e-4, rtol=1e-4)
    assert before.codes.tolist() == after.codes.tolist()


def test_codes_of_another_speech_tokenizer_are_refused(avatar):
    backbone = avatar.model.backbone
    backbone.speech = "of another"
    with pytest.raises(ValueError, match="backbone: speaks the codes of another speech tokenizer"):
        Avatar(CONFIG, avatar.model, avatar.speech)
    backbone.speech = avatar.speech.identity
    Avatar(CONFIG, avatar.model, avatar.speech)


def test_motion_never_waits_for_sound(avatar, question):
    played = {"motion": 0.0, "audio": 0.0}
    for event in avatar.stream(question, limit=95, **sampled()):
        if event.kind == "motion":
            played["motion"] = event.start + len(event.data) / 25
        elif event.kind == "audio":
            behind = CONFIG.connector.segment * GROUP / 25
            assert event.start + len(event.data) / 16000 <= played["motion"] + behind + 1e-6


def test_events_are_in_order_and_the_times_are_those_of_section_6_1(avatar, question):
    events = list(avatar.stream(question, limit=60, **sampled()))
    times = [event.at for event in events]
    assert times == sorted(times) and events[-1].kind == "end"
    summary = events[-1].data
    assert 0 < summary.ttft <= summary.ttfa <= summary.total
    assert summary.rtf == pytest.approx(summary.total / (len(summary.codes) / 25))
    assert next(e.at for e in events if e.kind == "motion") >= summary.ttfa


def test_the_limit_still_yields_the_partial_answer(avatar, question):
    reply = avatar.answer(question, limit=13, **sampled())
    assert not reply.summary.ended
    assert len(reply.motion) == -(-len(reply.summary.codes) // GROUP) * GROUP
    assert len(reply.wave) == 640 * len(reply.summary.codes)


def test_history_changes_the_answer_and_a_question_too_long_is_refused(avatar, question):
    turn = Turn(question.flip(0), "the violin", torch.randint(CONFIG.backbone.audio_codes, (10,)))
    plain, after = (avatar.dialogue(question, h) for h in ((), (turn,)))
    assert len(after.ids) > len(plain.ids) + 10
    with pytest.raises(ValueError, match="question of 60 s: takes .* positions and leaves no room"):
        avatar.dialogue(torch.zeros(16000 * 60))


def test_a_replys_clip_shows_every_token_the_model_wrote(avatar, question):
    reply = avatar.answer(question, limit=95, **sampled())
    text, audio, motion = clip_of(reply).tokens
    assert "".join("".join(text.labels).split()) == "".join(reply.text.split())
    assert audio.labels == [str(code) for code in reply.summary.codes] and audio.rate == 25
    codes = torch.tensor([reply.summary.motion_codes])
    torch.testing.assert_close(avatar.model.motion(codes)[0], reply.motion, atol=1e-5, rtol=1e-5)
    assert motion.labels == [str(first) for first in codes[0, :, 0].tolist()] and motion.rate == 25 / GROUP
    assert clip_of(Reply()).tokens == []


def test_a_reply_is_written_whole_and_leaves_other_files_alone(avatar, question, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    reply = avatar.answer(question, limit=60, **sampled())
    save_reply(tmp_path, reply)
    names = {"answer.wav", "answer.txt", "motion.npz", "timing.json", "face.html", "notes.txt"}
    assert {p.name for p in tmp_path.iterdir()} == names
    stored = np.load(tmp_path / "motion.npz", allow_pickle=False)
    assert stored["motion"].shape[1] == 58 and stored["motion"].dtype == np.float32 and stored["fps"] == 25
    assert set(json.loads((tmp_path / "timing.json").read_text())) >= {"ttft_ms", "ttfa_ms", "rtf"}


def test_a_reply_that_cannot_be_made_damages_nothing(tmp_path):
    (tmp_path / "answer.txt").write_text("old", encoding="utf-8")
    with pytest.raises(ValueError):
        save_reply(tmp_path, Reply(text="new", motion=torch.zeros(5, 57), wave=torch.zeros(640)))
    assert (tmp_path / "answer.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["answer.txt"]


def questions(folder):
    """Broken questions by name."""
    save_wav(folder / "whole.wav", torch.sin(torch.arange(16000) * 0.1))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("no sound", encoding="utf-8")
    (folder / "truncated.wav").write_bytes((folder / "whole.wav").read_bytes()[:9000])
    soundfile.write(folder / "nan.wav", np.full(16000, np.nan, np.float32), 16000, subtype="FLOAT")


@pytest.mark.parametrize("name", ["missing", "empty", "text", "truncated", "nan"])
def test_answer_says_in_one_line_what_is_wrong_with_a_question(tmp_path, capsys, name):
    questions(tmp_path)
    out = tmp_path / "reply"
    out.mkdir()
    (out / "answer.txt").write_text("old", encoding="utf-8")
    assert main(["answer", str(tmp_path / f"{name}.wav"), "--out", str(out)]) == 2
    said = capsys.readouterr().err.strip()
    assert f"{name}.wav" in said and "\n" not in said
    assert [p.name for p in out.iterdir()] == ["answer.txt"] and (out / "answer.txt").read_text() == "old"


@pytest.mark.parametrize("temperature", ["nan", "-1", "inf"])
def test_answer_refuses_a_temperature_that_means_nothing(tmp_path, capsys, temperature):
    questions(tmp_path)
    assert main(["answer", str(tmp_path / "whole.wav"), f"--temperature={temperature}"]) == 2
    assert "expected 0 (greedy) to 10" in capsys.readouterr().err


def test_answer_refuses_a_file_where_its_folder_should_be(tmp_path, capsys):
    questions(tmp_path)
    code = main(["answer", str(tmp_path / "whole.wav"), "--out", str(tmp_path / "text.wav")])
    assert code == 2 and "is a file; give --out" in capsys.readouterr().err


@pytest.mark.parametrize("rate, channels, subtype, seconds", [(8000, 2, "PCM_16", 1), (44100, 1, "PCM_24", 1)])
def test_other_rates_and_depths_and_silence_are_answered(avatar, tmp_path, rate, channels, subtype, seconds):
    silence = np.zeros((rate * seconds, channels))
    soundfile.write(tmp_path / "q.wav", silence, rate, subtype=subtype)
    reply = avatar.answer(realtime.load_wav(tmp_path / "q.wav"), limit=12)
    assert len(reply.summary.codes) > 0 and torch.isfinite(reply.motion).all()


# ---------------------------------------------------------------- the shipped model

ASKED = {
    "afraid_submarine_loud": "Ah! The submarine is right behind you!",
    "angry_violin_plan": "We will look at the violin together in the morning.",
    "happy_violin_plan": "We will look at the violin together in the morning.",
    "neutral_computer_steps": "First we bring the computer to the workshop. Then we write a letter to the mayor. "
    "After that we wait until Friday.",
    "sad_dinosaur_feel": "I feel so sorry about the dinosaur, my friend.",
    "surprised_telescope_help": "My cousin knows a lot about the telescope.",
}


@pytest.fixture(scope="module")
def shipped():
    return Avatar.load()


def test_the_shipped_model_answers_a_voice_it_never_met_faster_than_it_speaks(shipped):
    replies = {name: shipped.answer(load_wav(QUESTIONS / f"{name}.wav")) for name in ASKED}
    assert {name: reply.text for name, reply in replies.items()} == ASKED
    for reply in replies.values():
        assert reply.summary.ended and reply.summary.rtf < 1
        assert len(reply.motion) * 640 == len(reply.wave) == 640 * len(reply.summary.codes)
        assert 0.02 < reply.motion[:, 50].max() < 0.5, "the jaw opens, in radians"
    happy, angry = (replies[f"{emotion}_violin_plan"].motion[:, :50].mean(0) for emotion in ("happy", "angry"))
    assert (happy - angry).norm() > 0.5 * happy.norm(), "the same request, with another face"


def test_the_shipped_checkpoints_fit_together_and_are_small():
    files = sorted((ROOT / "data_samples" / "checkpoints").glob("*.safetensors"))
    assert [file.stem for file in files] == ["a2llm", "backbone", "rvq", "speech"]
    assert sum(file.stat().st_size for file in files) < 40e6
