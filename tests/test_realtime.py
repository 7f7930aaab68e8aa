"""Streaming: the same answer as offline, segment by segment, and an `answer` that never leaves half a reply."""

import json

import numpy as np
import pytest
import torch

from a2lite.a2llm import A2LLM
from a2lite.backbone import Backbone, Vocabulary, align_tail, answer
from a2lite.config import load_config
from a2lite.realtime import Avatar, Reply, Turn, save_reply
from a2lite.rvq import MotionRVQ
from a2lite.speech import SpeechTokenizer

CONFIG = load_config("tiny", size="nano")
GROUP = CONFIG.rvq.group


@pytest.fixture(scope="module")
def avatar():
    torch.manual_seed(3)
    texts = ["the violin", "You are a helpful assistant.", "system", "human", "assistant"]
    vocabulary = Vocabulary.train(texts, CONFIG.backbone.text_vocab, CONFIG.backbone.audio_codes)
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


def test_the_first_motion_leaves_after_exactly_the_first_segments_audio_tokens(avatar, question):
    span = CONFIG.connector.segment * GROUP
    stream = avatar.stream(question, limit=95, **sampled())
    tokens = 0
    original = avatar.model.connector.step
    try:
        seen = []
        avatar.model.connector.step = lambda h, p: seen.append(h.shape[1]) or original(h, p)
        for event in stream:
            tokens += event.kind == "audio"
            if event.kind == "motion":
                break
    finally:
        del avatar.model.connector.step
    assert seen == [span] and len(event.data) == span and event.start == 0


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
