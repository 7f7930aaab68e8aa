"""The rivals that hear the answer: shapes, and what they can and cannot know."""

import pytest
import torch

from a2lite.baselines.audio_only import AudioOnly, QuestionEmotion
from a2lite.config import load_config

NANO = load_config("tiny", size="nano")


def test_generation_is_teacher_forcing_on_its_own_codes():
    torch.manual_seed(0)
    model = AudioOnly(NANO, audio_codes=64).eval()
    tokens = torch.randint(64, (2, 40))
    codes = model.generate(tokens)
    assert codes.shape == (2, 8, NANO.rvq.quantizers)
    assert torch.equal(model(tokens, codes, torch.tensor([8, 8])).argmax(-1), codes)


def test_the_label_changes_the_face_only_where_the_model_takes_one():
    torch.manual_seed(0)
    tokens = torch.randint(64, (1, 20))
    told = AudioOnly(NANO, audio_codes=64, emotions=6).eval()
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
