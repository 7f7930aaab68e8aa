"""The rivals that hear the answer: shapes, and what they can and cannot know."""

import pytest
import torch

from a2lite.a2llm import Example
from a2lite.backbone.tasks import Exchange, Item
from a2lite.baselines.audio_only import AudioOnly, QuestionEmotion, predict, train, train_question_emotion
from a2lite.config import load_config

NANO = load_config("tiny", size="nano")
CODEBOOKS = torch.randn(NANO.rvq.quantizers, NANO.rvq.codes, 8, generator=torch.Generator().manual_seed(0))


def test_generation_is_teacher_forcing_on_its_own_codes():
    torch.manual_seed(0)
    model = AudioOnly(NANO, audio_codes=64, codebooks=CODEBOOKS).eval()
    tokens = torch.randint(64, (2, 40))
    codes = model.generate(tokens)
    assert codes.shape == (2, 8, NANO.rvq.quantizers)
    logits = model(tokens, codes, torch.tensor([8, 8]))
    assert torch.equal(model.connector.choose(logits), codes)


def test_the_label_changes_the_face_only_where_the_model_takes_one():
    torch.manual_seed(0)
    tokens = torch.randint(64, (1, 20))
    told = AudioOnly(NANO, audio_codes=64, codebooks=CODEBOOKS, emotions=6).eval()
    assert not torch.allclose(told.features(tokens, torch.tensor([0])), told.features(tokens, torch.tensor([1])))
    with pytest.raises(ValueError, match="emotion is None"):
        told.features(tokens)


def test_question_emotion_does_not_mind_word_order_or_company():
    torch.manual_seed(0)
    model = QuestionEmotion(50, 6).eval()
    first, second = torch.tensor([3, 7, 9]), torch.tensor([4, 4, 11, 2])
    together = model([first, second])
    torch.testing.assert_close(together[:1], model([first.flip(0)]))
    torch.testing.assert_close(together[1:], model([second]))


def test_a_ragged_batch_equals_each_answer_alone():
    torch.manual_seed(0)
    model = AudioOnly(NANO, audio_codes=64, codebooks=CODEBOOKS).eval()
    tokens = torch.randint(64, (2, 40))
    together = model.features(tokens, lengths=torch.tensor([40, 25]))
    torch.testing.assert_close(together[1:, :25], model.features(tokens[1:, :25]), atol=1e-5, rtol=1e-5)


def test_it_learns_what_the_sound_tells():
    torch.manual_seed(0)
    tokens = [torch.randint(2, (4,)).repeat_interleave(5) for _ in range(16)]
    examples = [
        Example(Item(str(i), "AQAA", [Exchange("", [], "", [], t)]), t[::5, None].repeat(1, NANO.rvq.quantizers))
        for i, t in enumerate(tokens)
    ]
    config = NANO.override(training=dict(batch=8, lite_connector_lr=5e-3), connector=dict(sharpness=None))
    model = AudioOnly(config, audio_codes=64)
    train(model, examples, steps=60)
    right = [(p == e.codes).float().mean() for p, e in zip(predict(model, examples), examples)]
    assert torch.stack(right).mean() > 0.95


def test_the_questions_emotion_is_learned_from_its_words():
    torch.manual_seed(0)
    questions = [torch.tensor([i % 3 + 10, 4, 5]) for i in range(30)]
    model = QuestionEmotion(50, 3)
    train_question_emotion(model, questions, [i % 3 for i in range(30)], steps=60)
    assert (model.eval()(questions).argmax(-1) == torch.tensor([i % 3 for i in range(30)])).all()
