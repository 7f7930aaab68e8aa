"""The audio language model: vocabulary, TA4, encoder, cache, grammar, loss, and the order of its pretraining."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2AudioEncoder, Qwen2AudioEncoderConfig

from a2lite.audio import encoder_mel
from a2lite.backbone import (
    SLOTS,
    Adapter,
    Backbone,
    Dialogue,
    Encoder,
    SlotGrammar,
    Vocabulary,
    align_tail,
    answer,
    collate,
    generate,
    patch_count,
    qwen2_config,
    stream,
)
from a2lite.backbone.listening import Listener, augment, edits
from a2lite.backbone.model import cross_entropies
from a2lite.backbone.pretraining import Curriculum, drawl, pretrain, train_vocabulary
from a2lite.backbone.tasks import TASKS, Exchange, Item, converse, listen, prepare, silence
from a2lite.config import load_config
from a2lite.flame_qa import load_samples

CONFIG = replace(load_config("laptop", "nano").backbone, encoder_local=7)
TEXTS = ["There is a violin in the library. What is the plan?", "We will look at the violin together."]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train(TEXTS + list(CONFIG.system.values()), CONFIG.text_vocab, CONFIG.audio_codes)


@pytest.fixture(scope="module")
def model(vocabulary):
    torch.manual_seed(0)
    return Backbone(CONFIG, vocabulary).eval()


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def question(vocabulary, samples: int = 20000, seed: int = 0) -> Dialogue:
    return Dialogue(vocabulary, CONFIG.system["AQAA"]).hear(*listen(noise(samples, seed), CONFIG))


def items(count: int = 6) -> list[Item]:
    made = []
    for i in range(count):
        codes = torch.arange(10 + 3 * i) % CONFIG.audio_codes
        mel = listen(noise(12000 + 900 * i, i), CONFIG)
        exchange = Exchange(TEXTS[0], mel, TEXTS[1], mel, codes)
        made.append(Item(str(i), "AQAA", [exchange] * (1 + i % 2)))
        if i == 5:  # somebody says a sentence, to be said again
            said = replace(exchange, question=TEXTS[1], answer_mels=listen(noise(9000, 99), CONFIG))
            made[-1] = Item(str(i), "Repeat", [said])
    return made


# ---------------------------------------------------------------- vocabulary and TA4


def test_bpe_gives_back_any_text(vocabulary):
    for text in [*TEXTS, "Zoë — 12% of naïve 请记录 text\n\n!", " two  spaces ", ""]:
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_text_keeps_up_with_speech_on_the_shipped_samples():
    samples = load_samples("tiny", "train").select(range(12))
    size = load_config("laptop").backbone.text_vocab
    vocabulary = Vocabulary.train(samples.column("question_text") + samples.column("answer_text"), size, 4)
    for sample in samples:
        assert len(vocabulary.encode(sample.answer_text)) / (len(sample.answer_audio) / 16000) <= 6


def test_ids_are_text_then_control_then_audio_and_pad(vocabulary):
    v = vocabulary
    assert v.texts == v.endoftext < v.eot < v.tts_pad < v.audio0
    assert v.encode("<|EOT|><|BOT|><audio_0><audio_63><audio_64>") == [
        v.eot, v.bot, v.audio0, v.audio0 + 63, v.audio_pad
    ]  # fmt: skip
    assert v.codes == CONFIG.audio_codes and len(v) == v.audio_pad + 1
    again = Vocabulary.from_json(v.to_json())
    assert again.encode(TEXTS[0]) == v.encode(TEXTS[0]) and again.codes == v.codes


def test_ta4_by_hand(vocabulary):
    v = vocabulary
    a = v.audio0
    assert v.interleave([7, 8, 9], [0, 1, 2, 3, 4]) == [
        v.tts_start, 7, a, a + 1, a + 2, a + 3, 8, a + 4, *[v.audio_pad] * 3, 9, *[v.audio_pad] * 4, v.tts_end
    ]  # fmt: skip
    assert v.interleave([7], range(6)) == [
        v.tts_start, 7, a, a + 1, a + 2, a + 3, v.tts_pad, a + 4, a + 5, v.audio_pad, v.audio_pad, v.tts_end
    ]  # fmt: skip


def test_ta4_round_trip_for_all_lengths(vocabulary):
    g = torch.Generator().manual_seed(1)
    for t in range(0, 14):
        for a in range(0, 61):
            if t + a == 0:
                continue
            text = torch.randint(vocabulary.texts, (t,), generator=g).tolist()
            codes = torch.randint(vocabulary.codes, (a,), generator=g).tolist()
            ids = vocabulary.interleave(text, codes)
            assert len(ids) == 2 + 5 * max(t, -(-a // 4))
            assert vocabulary.deinterleave(ids) == (text, codes)
            part_text, part_codes = vocabulary.deinterleave(ids[: len(ids) // 2])  # cut short
            assert text[: len(part_text)] == part_text and codes[: len(part_codes)] == part_codes


def test_ta4_errors_are_one_clear_line(vocabulary):
    v = vocabulary
    with pytest.raises(ValueError, match="neither text nor audio"):
        v.interleave([], [])
    with pytest.raises(ValueError, match=r"codes 0..64; expected 0..63"):
        v.interleave([1], [0, 64])
    with pytest.raises(ValueError, match=r"position 2: '<\|BOT\|>' in a slot for code or audio_pad"):
        v.deinterleave([v.tts_start, 5, v.bot])
    with pytest.raises(ValueError, match="slot for text or tts_pad"):
        v.deinterleave([v.audio0])


def test_prompt_is_step_audio_2_minis(vocabulary):
    dialogue = question(vocabulary, 32000).open()
    assert vocabulary.decode(dialogue.ids) == (
        "<|BOT|>system\nYou are a helpful assistant.<|EOT|><|BOT|>human\n<audio_start>"
        + "<audio_patch>" * 25
        + "<audio_end><|EOT|><|BOT|>assistant\n<tts_start>"
    )
    assert vocabulary.encode(vocabulary.decode(dialogue.ids)) == dialogue.ids


def test_history_repeats_the_earlier_answer_and_has_no_label(vocabulary):
    v = vocabulary
    dialogue = question(v).say(TEXTS[1], range(9))
    first = list(dialogue.ids)
    dialogue.hear(*dialogue.mels).say(TEXTS[0], range(7))
    turn = v.interleave(v.encode(TEXTS[0]), range(7))[1:] + [v.eot]
    assert dialogue.ids[: len(first)] == first and dialogue.ids[-len(turn) :] == turn
    assert dialogue.labels == [-100] * (len(dialogue.ids) - len(turn)) + turn


# ---------------------------------------------------------------- encoder


@pytest.mark.parametrize("samples, patches", [(32000, 25), (400000, 313), (12345, 10), (48000, 38)])
def test_patch_counts_are_the_published_ones(samples, patches, model):
    mel = encoder_mel(noise(samples), CONFIG.n_mels)
    assert patch_count(len(mel)) == patches
    assert model.hear(mel[None], torch.tensor([len(mel)])).shape == (patches, CONFIG.hidden)


@pytest.mark.parametrize("pool_first", [False, True])
def test_ragged_batch_hears_what_each_hears_alone(pool_first, vocabulary):
    model = Backbone(replace(CONFIG, encoder_pool_first=pool_first), vocabulary).eval()
    mels = [encoder_mel(noise(n, n), CONFIG.n_mels) for n in (3200, 3361, 8000, 8161, 12345, 20000)]
    frames = torch.tensor([len(mel) for mel in mels])
    together = model.hear(torch.nn.utils.rnn.pad_sequence(mels, True), frames)
    alone = [model.hear(mel[None], torch.tensor([len(mel)])) for mel in mels]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_encoder_equals_transformers_qwen2_audio():
    c = replace(CONFIG, encoder_local=0, encoder_window=0, encoder_pool_first=False)  # the published form
    published = Encoder(c).eval()
    other = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(
        num_mel_bins=c.n_mels, d_model=c.encoder_width, encoder_layers=c.encoder_layers, max_source_positions=50,
        encoder_attention_heads=c.encoder_heads, encoder_ffn_dim=4 * c.encoder_width,
    )).eval()  # fmt: skip
    names = {
        "positional_embedding": "embed_positions", "after_norm": "layer_norm", "blocks": "layers", "out": "out_proj",
        "attn_ln": "self_attn_layer_norm", "mlp_ln": "final_layer_norm", "attn": "self_attn", "query": "q_proj",
        "key": "k_proj", "value": "v_proj",
    }  # fmt: skip
    state = {}
    for key, value in published.state_dict().items():
        key = ".".join(names.get(part, part) for part in key.split("."))
        state[key.replace("mlp.0", "fc1").replace("mlp.2", "fc2")] = value
    state["embed_positions.weight"] = state["embed_positions.weight"][:50]
    other.load_state_dict(state)
    mel = torch.randn(2, 100, c.n_mels)
    ours = published(mel, torch.tensor([101, 101]))  # no frame is padding
    torch.testing.assert_close(ours, other(mel.transpose(1, 2))[0], atol=1e-5, rtol=1e-5)


def test_full_size_has_the_published_parameter_counts(vocabulary):
    config = load_config("a100").backbone
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    with torch.device("meta"):
        assert count(Encoder(config)) == 636_968_960 and count(Adapter(config)) == 14_883_584
        assert len(Encoder(config).state_dict()) == 487
        whole = qwen2_config(config, vocabulary)
        lm = Backbone(replace(config, encoder_layers=0), vocabulary).lm
        assert count(lm) - 2 * whole.vocab_size * config.hidden == 6_525_618_176 + config.hidden


@pytest.mark.parametrize("std", [None, 0.06, 0.3])
def test_embeddings_begin_as_wide_as_configured(vocabulary, std):
    lm = Backbone(replace(CONFIG, lite_embedding_std=std), vocabulary).lm
    table = lm.get_input_embeddings().weight
    assert table.std().item() == pytest.approx(std or lm.config.initializer_range, rel=0.05)
    assert lm.lm_head.weight is table


def test_long_question_is_heard_in_pieces(vocabulary, model):
    mels = listen(noise(16000 * 60), CONFIG)
    assert [int(patch_count(len(mel))) for mel in mels] == [313, 313, 125]
    with pytest.raises(ValueError, match="the encoder has 1500; cut the sound into pieces of at most 30 s"):
        model.hear(torch.zeros(1, 3002, CONFIG.n_mels), torch.tensor([3002]))


# ---------------------------------------------------------------- forward, loss, H


def test_loss_sees_only_the_last_answer(vocabulary, model):
    dialogue = question(vocabulary).say(TEXTS[1], range(9))
    batch = collate([dialogue])
    logits, _ = model(batch)
    start = len(dialogue.ids) - sum(label != -100 for label in dialogue.labels)
    torch.testing.assert_close(model.labelled(batch)[0], logits[0, start - 1 : -1])
    loss = model.loss(batch)["loss"]
    by_hand = torch.nn.functional.cross_entropy(
        logits[0, start - 1 : -1], batch.ids[0, start:], reduction="none"
    )
    target = batch.ids[0, start:]
    weight = torch.where((target < vocabulary.audio0) & (target != vocabulary.tts_pad), 4.0, 1.0)
    torch.testing.assert_close(loss, (by_hand * weight).sum() / weight.sum())


def test_padding_does_not_change_a_dialogue(vocabulary, model):
    short, long = (
        question(vocabulary, 9000).say("Yes.", range(3)),
        question(vocabulary).say(TEXTS[0], range(30)),
    )
    logits, hidden = model(collate([short, long]))
    alone, own = model(collate([short]))
    torch.testing.assert_close(logits[:1, : alone.shape[1]], alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(hidden[:1, : own.shape[1]], own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("reading", [dict(), dict(hidden_state="before"), dict(hidden_layer=None)])
def test_cached_hidden_states_equal_a_full_pass_for_lengths_1_to_60(reading, vocabulary, model):
    model = with_config(model, **reading)
    prompt = question(vocabulary, 6000).open()
    lengths = range(1, 61)
    codes = [torch.arange(length) * 7 % CONFIG.audio_codes for length in lengths]
    whole = [question(vocabulary, 6000).say("We will look.", c) for c in codes]
    ids = [dialogue.ids[len(prompt.ids) :] for dialogue in whole]
    cached = answer(model, [prompt] * 60, forced=ids)  # all at once; three of them alone
    cached += [answer(model, [prompt], forced=[ids[length - 1]])[0] for length in (1, 13, 60)]
    batch = collate(whole)
    full = model.audio_hidden(batch, model(batch)[1])
    for length, spoken in zip([*lengths, 1, 13, 60], cached, strict=True):
        assert spoken.ids == ids[length - 1] and spoken.codes.equal(codes[length - 1]) and spoken.ended
        torch.testing.assert_close(spoken.hidden, full[length - 1], atol=1e-4, rtol=1e-4)


def test_tail_is_repeated_or_dropped():
    for length in range(1, 61):
        hidden = torch.randn(length, 3)
        longer, shorter = align_tail(hidden, 5, "repeat"), align_tail(hidden, 5, "drop")
        assert (len(longer), len(shorter)) == (-(-length // 5) * 5, length // 5 * 5)
        assert longer[:length].equal(hidden) and shorter.equal(hidden[: len(shorter)])
        assert longer[length:].equal(hidden[-1:].expand(-length % 5, -1))
    with pytest.raises(ValueError, match="tail 'cut': expected 'repeat' or 'drop'"):
        align_tail(torch.zeros(3, 1), 5, "cut")


@pytest.mark.parametrize("option", [dict(hidden_state="after"), dict(tail="cut"), dict(hidden_layer=9)])
def test_an_unknown_reading_of_the_paper_is_refused(vocabulary, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} .*: expected"):
        Backbone(replace(CONFIG, **option), vocabulary)


def test_greedy_generation_takes_the_best_of_a_full_pass(vocabulary, model):
    prompt = question(vocabulary).open()
    (spoken,) = answer(model, [prompt], limit=40)
    ids = prompt.ids + spoken.ids
    labels = [-100] * len(ids)
    logits = model(collate([replace(prompt, ids=ids, labels=labels)]))[0][0, len(prompt.ids) - 1 : -1]
    grammar, masks = SlotGrammar(vocabulary), vocabulary.slot_masks
    for row, token in zip(logits, spoken.ids, strict=True):
        assert torch.where(masks[grammar.state], row, -1e9).argmax() == token
        grammar.advance(token)


def test_a_batch_says_what_each_says_alone(vocabulary, model):
    prompts = [question(vocabulary, n, n).open() for n in (5000, 20000, 9000)]
    prompts.append(question(vocabulary).say(TEXTS[1], range(9)).hear(*listen(noise(7000), CONFIG)).open())
    together = answer(model, prompts, limit=60)
    for prompt, one in zip(prompts, together, strict=True):
        (alone,) = answer(model, [prompt], limit=60)
        assert alone.ids == one.ids
        torch.testing.assert_close(alone.hidden, one.hidden, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- generation


def test_random_model_never_leaves_the_grammar(vocabulary, model):
    prompts = [question(vocabulary, 5000).open()] * 24
    g = torch.Generator().manual_seed(0)
    replies = answer(model, prompts, limit=250, temperature=8.0, generator=g)
    for spoken in replies:
        text, codes = vocabulary.deinterleave(spoken.ids)  # raises where a slot is broken
        assert codes == spoken.codes.tolist() and len(spoken.hidden) == len(codes)
        if spoken.ended:
            assert vocabulary.interleave(text, codes)[1:] + [vocabulary.eot] == spoken.ids
    assert 0 < sum(spoken.ended for spoken in replies)


def test_every_walk_through_the_grammar_is_an_interleave(vocabulary):
    v, g = vocabulary, torch.Generator().manual_seed(0)
    one = {"text": 5, "code": v.audio0 + 3, "tts_pad": v.tts_pad, "audio_pad": v.audio_pad,
           "tts_end": v.tts_end, "eot": v.eot}  # fmt: skip
    for _ in range(300):
        grammar, ids = SlotGrammar(v), []
        while grammar.state != "over":
            kinds = SLOTS[grammar.state]
            ids.append(one[kinds[int(torch.randint(len(kinds), (1,), generator=g))]])
            grammar.advance(ids[-1])
        assert v.interleave(*v.deinterleave(ids))[1:] + [v.eot] == ids


def test_limit_yields_the_partial_answer_step_by_step(vocabulary, model):
    prompt = question(vocabulary).open()
    steps = list(generate(model, prompt, limit=13))
    (spoken,) = answer(model, [prompt], limit=13)
    assert [s.token for s in steps] == spoken.ids and len(steps) == 13 and not spoken.ended
    assert all((s.hidden is not None) == (s.kind == "code") for s in steps)
    first = next(stream(model, [prompt]))  # the first token comes before the rest is known
    assert first[0].token == steps[0].token


def test_prompt_that_fills_the_context_is_refused(vocabulary, model):
    small = with_config(model, max_positions=60)
    with pytest.raises(ValueError, match="the prompt has .* tokens, the context 60"):
        answer(small, [question(vocabulary, 48000).open()])
    (spoken,) = answer(small, [question(vocabulary, 3200).open()])
    assert not spoken.ended and len(spoken.ids) > 0


def with_config(model: Backbone, **fields) -> Backbone:
    other = Backbone(replace(model.config, **fields), model.vocabulary).eval()
    other.load_state_dict(model.state_dict())
    return other


# ---------------------------------------------------------------- tasks, pretraining, checkpoints


def test_tasks_hear_and_say_what_they_should(vocabulary):
    (item,) = items(1)
    last = {task: converse(task, item, vocabulary, CONFIG) for task in TASKS}
    words = {task: vocabulary.decode([i for i in d.labels if i >= 0]) for task, d in last.items()}
    assert words["ASR"] == TEXTS[0] + "<|EOT|>"
    spoken = vocabulary.interleave(vocabulary.encode(TEXTS[1]), item.last.codes)
    for task in ("AQAA", "Repeat", "TTS"):
        assert words[task] == vocabulary.decode(spoken[1:]) + "<|EOT|>"
        assert vocabulary.decode(last[task].ids).startswith("<|BOT|>system\n" + CONFIG.system[task])
    assert not last["TTS"].mels and TEXTS[1] in vocabulary.decode(last["TTS"].ids)
    other = replace(item, task="Repeat")  # somebody else said it first
    assert torch.equal(converse("Repeat", other, vocabulary, CONFIG).mels[0], item.last.question_mels[0])
    assert torch.equal(last["Repeat"].mels[0], item.last.answer_mels[0])
    with pytest.raises(ValueError, match="task 'AQTA': expected one of AQAA, Repeat, TTS, ASR"):
        converse("AQTA", item, vocabulary, CONFIG)


def test_samples_become_items_with_their_history():
    turn = dict(question_text="a", question_audio=noise(8000).numpy(), answer_text="b",
                answer_audio=noise(6400).numpy())  # fmt: skip
    sample = SimpleNamespace(id="s", task="AQAA", history=[turn], **turn)
    encode = lambda wave: torch.zeros(len(wave), wave.shape[1] // 640, dtype=torch.long)  # noqa: E731
    (item,) = prepare([sample], SimpleNamespace(identity="abc", encode=encode), CONFIG)
    assert item.speech == "abc" and len(item.exchanges) == 2 and item.last.codes.shape == (10,)
    dialogue = converse("AQAA", item, train_vocabulary([item], CONFIG), CONFIG, answered=False)
    assert len(dialogue.mels) == 2 and dialogue.vocabulary.decode(dialogue.ids).count("<|EOT|>") == 4


def test_control_hears_nothing_of_the_question(vocabulary, model):
    opened = [silence(vocabulary, CONFIG).open() for _ in range(2)]
    assert opened[0].ids == opened[1].ids and not opened[0].mels
    one, two = answer(model, opened, limit=20)
    assert one.ids == two.ids


def test_augmentation_keeps_the_form_and_batches_are_pure_functions_of_the_step(vocabulary):
    mel = encoder_mel(noise(16000), CONFIG.n_mels)
    other = augment(mel, torch.Generator().manual_seed(3))
    assert other.shape[1] == CONFIG.n_mels and 0.88 < len(other) / len(mel) < 1.62 and other.isfinite().all()
    course = Curriculum(items(), vocabulary, CONFIG)
    for make in (course.text, course.voice, course.speech, course.blind):
        for left, right in zip(vars(make(5)).values(), vars(make(5)).values(), strict=True):
            assert left.equal(right)
    ids = drawl([5, 6, 7], 0, torch.Generator().manual_seed(0))
    assert [i for i, j in zip(ids, [0, *ids], strict=False) if i and i != j] == [5, 6, 7]


def test_each_step_of_pretraining_asks_for_its_own_tasks(vocabulary):
    config = replace(CONFIG, batch=1)
    course = Curriculum(items(), vocabulary, config)

    def asks(batch):
        """The task of the (only) dialogue, and whether its answer is spoken."""
        said = vocabulary.decode(batch.ids[0].tolist())
        (task,) = [name for name, text in config.system.items() if said.startswith(f"<|BOT|>system\n{text}<|EOT|>")]
        return task, bool(vocabulary.is_code(batch.labels).any())

    assert [asks(course.text(step)) for step in range(3)] == [("AQAA", False), ("AQAA", False), ("ASR", False)]
    voice = [("AQAA", True), ("TTS", True), ("AQAA", True), ("Repeat", True), ("AQAA", False)]
    assert [asks(course.voice(step)) for step in range(5)] == voice
    sentence = vocabulary.encode(TEXTS[1])
    assert [course.words(step)[2][: len(sentence)].tolist() == sentence for step in range(4)] == [False] * 3 + [True]
    drawn = {asks(course.speech(step)) for step in range(60)}
    assert drawn == {("AQAA", True), ("AQAA", False), ("ASR", False), ("Repeat", True), ("TTS", True)}


@pytest.mark.parametrize("others", [[], [("5", "TTS")]])
def test_samples_that_no_step_asks_for_are_refused(vocabulary, others):
    wrong = [replace(item, task=dict(others).get(item.id, "Repeat")) for item in items()]
    with pytest.raises(ValueError, match="items: expected questions"):
        Curriculum(wrong, vocabulary, CONFIG)


def test_settled_ears_put_vectors_where_the_embeddings_are(vocabulary, model):
    listener = Listener(with_config(model))
    mel = encoder_mel(noise(16000), CONFIG.n_mels)[None]
    frames = torch.tensor([mel.shape[1]])
    before = listener.adapter(listener.encoder(mel, frames)) - listener.mean
    listener.settle(mel, frames)
    after = listener.adapter(listener.encoder(mel, frames)) - listener.mean
    torch.testing.assert_close(torch.cosine_similarity(after, before, dim=-1), torch.ones(1, after.shape[1]))
    torch.testing.assert_close(after.norm(dim=-1).mean(), listener.targets.norm(dim=1).mean())


def test_an_embedding_in_the_place_of_a_sound_is_read_as_its_token(model):
    listener = Listener(with_config(model))
    embeddings = listener.targets + listener.mean  # blank first
    assert listener.chances(embeddings[None])[0].argmax(-1).tolist() == list(range(len(embeddings)))


def test_settling_pulls_what_is_heard_to_the_embeddings(vocabulary, model):
    listener, course = Listener(with_config(model)), Curriculum(items(), vocabulary, CONFIG)
    listener.settle(*course.words(0)[:2])
    optimizer = torch.optim.Adam(listener.parameters(), 3e-3)
    pulls = []
    for _ in range(30):
        terms = listener.settling_loss(course.words(0))
        torch.testing.assert_close(terms["loss"], terms["ctc"] + 5 * terms["pull"])
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        pulls.append(float(terms["pull"]))
    assert pulls[-1] < 0.5 * pulls[0]


def test_errors_are_counted_as_edits():
    assert edits([1, 2, 3], [1, 3, 4]) == 2 and edits([], [5]) == 1


def test_pretraining_resumes_saves_and_loads(tmp_path):
    path = tmp_path / "backbone.safetensors"
    model, traces = pretrain(CONFIG, items(), path, dev=items(2))
    assert list(traces) == ["text", "voice", "ears", "settling", "speech"] and list(tmp_path.iterdir()) == [path]
    loaded = Backbone.load(path)
    assert loaded.config == CONFIG
    prompt = converse("AQAA", items(1)[0], loaded.vocabulary, CONFIG, answered=False)
    half = with_config(model)
    half.load_state_dict({k: v.half().float() for k, v in model.state_dict().items()})
    assert answer(loaded, [prompt], limit=20)[0].ids == answer(half, [prompt], limit=20)[0].ids


@pytest.mark.parametrize("at", ["ears", "settling"])
def test_pretraining_killed_in_any_step_ends_with_the_same_weights(tmp_path, monkeypatch, at):
    whole = pretrain(CONFIG, items(), tmp_path / "whole.safetensors")[0]
    path = tmp_path / "backbone.safetensors"
    calls = iter(range(100))

    def dies(course, step, words=Curriculum.words):
        if next(calls) == {"ears": 1, "settling": 4}[at]:
            raise KeyboardInterrupt
        return words(course, step)

    monkeypatch.setattr(Curriculum, "words", dies)
    with pytest.raises(KeyboardInterrupt):
        pretrain(CONFIG, items(), path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="backbone.text.safetensors: is a step of another run; delete it"):
        pretrain(CONFIG, items(), path, seed=1)
    again = pretrain(CONFIG, items(), path)[0]
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_checkpoint_of_another_kind_is_refused(tmp_path, model):
    from a2lite.fit import save_checkpoint

    path = tmp_path / "other.safetensors"
    save_checkpoint(path, torch.nn.Linear(2, 2), CONFIG)
    with pytest.raises(
        ValueError, match="other.safetensors: holds no tokenizer; expected a backbone checkpoint"
    ):
        Backbone.load(path)
    save_checkpoint(path, torch.nn.Linear(2, 2), CONFIG, tokenizer=model.vocabulary.to_json())
    with pytest.raises(ValueError, match="other.safetensors: is of another version of the backbone"):
        Backbone.load(path)


def test_cross_entropy_in_chunks_is_that_of_all_logits_at_once():
    head, random = torch.nn.Linear(8, 50), torch.Generator().manual_seed(0)
    last, target = torch.randn(23, 8, generator=random), torch.randint(50, (23,), generator=random)
    found = []
    for logits in (10**9, 50 * 7, 1):
        x = last.clone().requires_grad_()
        each = cross_entropies(head, x, target, logits)
        found.append((each, *torch.autograd.grad((each * torch.arange(23)).sum(), [x, *head.parameters()])))
    whole = torch.nn.functional.cross_entropy(head(last), target, reduction="none")
    torch.testing.assert_close(found[0][0], whole)
    for chunked in found[1:]:
        torch.testing.assert_close(chunked, found[0])
