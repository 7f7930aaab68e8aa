"""What Step-Audio-2-mini is given, number by number: features, pieces of 25 s, prompts as published token ids.

The prompts are read with a table of the few words that they need, under their published ids, and once more with the
published tables where the environment variable A2LITE_STEP_AUDIO names their folder.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers.audio_utils import mel_filter_bank

from a2lite.audio import encoder_mel
from a2lite.backbone import Backbone, Dialogue, Vocabulary, answer, collate, patch_count
from a2lite.backbone.step_audio import read_vocabulary
from a2lite.backbone.tasks import Exchange, Item, converse, listen
from a2lite.backbone.tokens import QWEN_SPLIT
from a2lite.config import load_config

CONFIG = load_config("a100").backbone
WORDS = {
    8948: "system", 25312: "human", 77091: "assistant", 198: "\n", 13: ".", 0: "!", 2610: "You", 525: " are", 264: " a",
    10950: " helpful", 17847: " assistant", 38718: "Repeat", 1128: " what", 498: " you", 6723: " hear", 4418: "Read",
    419: " this", 1467: " text", 70411: " aloud", 785: "The", 62037: " violin", 374: " is", 1290: " right",
    4815: " behind", 9707: "Hello", 1205: " We", 686: " will", 1401: " look", 14880: "请", 65577: "记录", 16872: "下",
    56568: "你", 31838: "所", 104188: "听到", 9370: "的", 105761: "语音", 43815: "内容", 1773: "。",
}  # fmt: skip
NAMES = {
    151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>", 151665: "<|EOT|>", 151666: "<|BOT|>",
    151688: "<audio_start>", 151689: "<audio_end>", 151690: "<audio_patch>", 151691: "<audio_patch_pad>",
    151692: "<|SC|>", 151693: "<tts_start>", 151694: "<tts_end>", 151695: "<tts_pad>",
}  # fmt: skip


def by_hand() -> Vocabulary:
    """The published ids of a few words and of all names; a text of other words is an error."""
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = {as_bytes.pre_tokenize_str(word)[0][0]: token for token, word in WORDS.items()}
    names = {name: token for token, name in NAMES.items()} | {f"<audio_{i}>": 151696 + i for i in range(6656)}
    tokenizer = Tokenizer(models.WordPiece(spelled | names, unk_token="?", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return Vocabulary(tokenizer, 6561, 158720)


PUBLISHED = os.environ.get("A2LITE_STEP_AUDIO")


@pytest.fixture(scope="module", params=["a few words", "the published tables"] if PUBLISHED else ["a few words"])
def vocabulary(request) -> Vocabulary:
    return by_hand() if request.param == "a few words" else read_vocabulary(Path(PUBLISHED), 158720)


@pytest.mark.skipif(not PUBLISHED, reason="A2LITE_STEP_AUDIO names no folder of Step-Audio-2-mini's tokenizer")
def test_the_published_tables_give_back_any_text():
    published = read_vocabulary(Path(PUBLISHED), 158720)
    for text in ["Zoë — 12% of naïve 请记录 text\n\n!", " two  spaces ", ""]:
        ids = published.encode(text)
        assert published.decode(ids) == text and all(token < published.texts for token in ids)


# ---------------------------------------------------------------- features


def mel_by_hand(wave: np.ndarray, n_mels: int) -> np.ndarray:
    """Step-Audio 2's log-mel from its description, in float64: (samples,) -> (frames, n_mels)."""
    padded = np.pad(np.pad(wave.astype(np.float64), (0, 479)), 200, mode="reflect")
    window = np.sin(np.pi * np.arange(400) / 400) ** 2  # Hann, periodic
    frames = np.stack([padded[start : start + 400] * window for start in range(0, len(padded) - 399, 160)])
    power = np.abs(np.fft.rfft(frames[:-1])) ** 2
    mel = power @ mel_filter_bank(201, n_mels, 0, 8000, 16000, norm="slaney", mel_scale="slaney")
    log = np.log10(np.maximum(mel, 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


LENGTHS = [  # samples, frames, patches
    (1600, 12, 1), (3361, 24, 3), (12345, 80, 10), (16000, 102, 13), (32000, 202, 25), (48000, 302, 38),
    (400_000, 2502, 313), (478_400, 2992, 374),
]  # fmt: skip


@pytest.mark.parametrize(("samples", "frames", "patches"), LENGTHS)
def test_features_are_the_published_ones(samples, frames, patches):
    random = np.random.default_rng(samples)
    wave = 0.2 * np.sin(2 * np.pi * 440 * np.arange(samples) / 16000) * np.linspace(0, 1, samples)
    wave = (wave + 0.01 * random.standard_normal(samples)).astype(np.float32)
    mel = encoder_mel(torch.from_numpy(wave), 128)
    assert mel.shape == (frames, 128)
    np.testing.assert_allclose(mel, mel_by_hand(wave, 128), atol=5e-4)
    assert patch_count(frames) == patches == (((frames - 2 + 1) // 2 // 2) + 2 - 3) // 2 + 1


def minute() -> torch.Tensor:
    return 0.1 * torch.randn(60 * 16000, generator=torch.Generator().manual_seed(0))


def test_a_minute_is_heard_in_pieces_of_25_seconds_each_between_its_own_ends(vocabulary):
    wave = minute()
    mels = listen(wave, CONFIG)
    assert [mel.shape for mel in mels] == [(2502, 128), (2502, 128), (1002, 128)]
    for i, mel in enumerate(mels):
        np.testing.assert_allclose(mel, mel_by_hand(wave[400_000 * i : 400_000 * (i + 1)].numpy(), 128), atol=5e-4)
    sounds = [151688, *[151690] * 313, 151689, 151688, *[151690] * 313, 151689, 151688, *[151690] * 125, 151689]
    dialogue = Dialogue(vocabulary, CONFIG.system["AQAA"]).hear(*mels).open()
    assert dialogue.ids == [*HELPFUL, 151666, 25312, 198, *sounds, 151665, *SPEAK]


@pytest.mark.parametrize(("samples", "pieces"), [(400_000, [313]), (400_001, [313]), (401_600, [313, 1])])
def test_what_is_left_over_is_a_piece_where_it_makes_a_patch(samples, pieces):
    assert [patch_count(len(mel)) for mel in listen(minute()[:samples], CONFIG)] == pieces


def test_the_published_geometry_hears_a_minute_as_it_hears_the_pieces():
    """All of the encoder's strides and positions, at a small width."""
    small = replace(load_config("a100", size="nano").backbone, n_mels=128, max_positions=2048, audio_codes=40)
    torch.manual_seed(0)
    lite = Vocabulary.train(list(small.system.values()), 300, 40)
    model = Backbone(small, lite).eval()
    assert model.encoder.context == 1500
    mels = listen(minute(), small)
    dialogue = Dialogue(lite, small.system["AQAA"]).hear(*mels)
    batch = collate([dialogue])
    with torch.no_grad():
        together = model.hear(batch.mels, batch.frames)
        alone = torch.cat([model.hear(mel[None], torch.tensor([len(mel)])) for mel in mels])
        assert together.shape == (313 + 313 + 125, small.hidden)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        embedded = model.embed(batch)[0][torch.tensor(dialogue.ids) == lite.audio_patch]
    assert torch.equal(embedded, together)  # the i-th sound stands at the i-th <audio_start>
    assert len(answer(model, [dialogue.open()], limit=5)[0].ids) == 5


# ---------------------------------------------------------------- prompts

HELPFUL = [151666, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151665]
PATCHES = [151688, *[151690] * 10, 151689]  # 80 frames of mel
HEARD = [151666, 25312, 198, *PATCHES, 151665]
SPEAK = [151666, 77091, 198, 151693]
REPEAT = [151666, 8948, 198, 38718, 1128, 498, 6723, 13, 151665]
SOUND = torch.zeros(80, 128)


def test_words_and_names_have_their_published_ids(vocabulary):
    for token, word in (WORDS | NAMES).items():
        assert vocabulary.encode(word) == [token] and vocabulary.decode([token]) == word
    assert vocabulary.encode("<audio_0><audio_6560><audio_6561><audio_6655>") == [151696, 158256, 158257, 158351]
    kinds = {151642: "text", 151643: "endoftext", 151644: "unused", 151666: "bot", 151695: "tts_pad", 151696: "code",
             158256: "code", 158257: "audio_pad", 158258: "unused", 158719: "unused"}  # fmt: skip
    assert {token: vocabulary.kind(token) for token in kinds} == kinds
    assert (vocabulary.codes, len(vocabulary)) == (6561, 158720)
    assert all(mask.shape == (158720,) for mask in vocabulary.slot_masks.values())


def test_prompts_that_begin_a_conversation(vocabulary):
    ask = lambda task: Dialogue(vocabulary, CONFIG.system[task])  # noqa: E731
    assert ask("AQAA").hear(SOUND).open().ids == [*HELPFUL, *HEARD, *SPEAK]
    assert ask("AQAA").hear(SOUND).open(speech=False).ids == [*HELPFUL, *HEARD, *SPEAK[:3]]
    two = [151666, 25312, 198, 151688, *[151690] * 25, 151689, *PATCHES, 151665]
    assert ask("AQAA").hear(torch.zeros(202, 128), SOUND).open().ids == [*HELPFUL, *two, *SPEAK]
    asr = [151666, 8948, 198, 14880, 65577, 16872, 56568, 31838, 104188, 9370, 105761, 43815, 1773, 151665]
    assert ask("ASR").hear(SOUND).open(speech=False).ids == [*asr, *HEARD, *SPEAK[:3]]
    tts = [151666, 8948, 198, 4418, 419, 1467, 70411, 13, 151665]
    read = [151666, 25312, 198, 785, 62037, 374, 1290, 4815, 498, 0, 151665]
    assert ask("TTS").read("The violin is right behind you!").open().ids == [*tts, *read, *SPEAK]
    assert ask("Repeat").hear(SOUND).open().ids == [*REPEAT, *HEARD, *SPEAK]


HELLO = [9707, 151701, 151702, 151703, 151704, 13, 158256, *[158257] * 3, 151694, 151665]  # ran out of sound
LOOK = [1205, *range(151696, 151700), 686, *range(151700, 151704), 1401, *range(151704, 151708), 13,
        *range(151708, 151712), 151695, 151712, *[158257] * 3, 151694, 151665]  # fmt: skip


def item() -> Item:
    first = Exchange("You hear.", [SOUND], "Hello.", [SOUND], torch.tensor([5, 6, 7, 8, 6560]))
    second = Exchange("You are right.", [SOUND], " We will look.", [SOUND], torch.arange(17))
    return Item("x", "AQAA", [first, second])


def test_answers_are_interleaved_and_come_again_as_history(vocabulary):
    past = [*HELPFUL, *HEARD, *SPEAK, *HELLO]
    first = replace(item(), exchanges=item().exchanges[:1])
    said = converse("AQAA", first, vocabulary, CONFIG)
    assert said.ids == past and said.labels == [-100] * (len(past) - len(HELLO)) + HELLO
    opened = converse("AQAA", item(), vocabulary, CONFIG, answered=False)
    assert opened.ids == [*past, *HEARD, *SPEAK] and len(opened.mels) == 2
    whole = converse("AQAA", item(), vocabulary, CONFIG)
    assert whole.ids == [*past, *HEARD, *SPEAK, *LOOK]
    assert whole.labels == [-100] * (len(past) + len(HEARD) + len(SPEAK)) + LOOK  # the past is prompt
    third = whole.hear(SOUND).open()
    assert third.ids == [*past, *HEARD, *SPEAK, *LOOK, *HEARD, *SPEAK] and set(third.labels[-16:]) == {-100}
    assert converse("Repeat", item(), vocabulary, CONFIG).ids == [*REPEAT, *HEARD, *SPEAK, *LOOK]


def test_what_was_said_in_writing_comes_again_as_history(vocabulary):
    dialogue = Dialogue(vocabulary, CONFIG.system["AQAA"]).hear(SOUND).write("Hello.").hear(SOUND).open(speech=False)
    assert dialogue.ids == [*HELPFUL, *HEARD, *SPEAK[:3], 9707, 13, 151665, *HEARD, *SPEAK[:3]]
