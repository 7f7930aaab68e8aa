"""A2-LLM whole and its three stages, on the smallest nets: what is trained, what is kept, what is thrown away."""

from dataclasses import replace

import pytest
import torch

from a2lite.a2llm import A2LLM, examples_of, mixed
from a2lite.backbone import Backbone, Vocabulary
from a2lite.backbone.tasks import Exchange, Item
from a2lite.config import load_config
from a2lite.flame_qa import TASKS
from a2lite.rvq import MotionRVQ
from a2lite.training import optimizer_for, predict, reset_lora, three_stages, train

CONFIG = load_config("tiny", size="nano")
TEXTS = ["the violin is here", "I lost the dinosaur", "we will look at it in the morning"]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train([*TEXTS, "You are a helpful assistant.", "human", "assistant", "system"],
                            CONFIG.backbone.text_vocab, CONFIG.backbone.audio_codes)


def backbone(vocabulary, seed=0):
    torch.manual_seed(seed)
    return Backbone(CONFIG.backbone, vocabulary)


def model(vocabulary, lora=True):
    base = backbone(vocabulary)
    rvq = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58)).eval()
    return A2LLM(CONFIG, base, rvq, lora)


@pytest.fixture(scope="module")
def examples():
    random = torch.Generator().manual_seed(0)
    items, motions = [], []
    for i, tokens in enumerate((7, 10, 13, 15)):
        question, answer = (torch.randn(50 + 10 * i, CONFIG.backbone.n_mels, generator=random) for _ in range(2))
        codes = torch.randint(CONFIG.backbone.audio_codes, (tokens,), generator=random)
        exchange = Exchange("why is the violin here", [question], TEXTS[i % 3], [answer], codes)
        items.append(Item(f"e{i}", "AQAA", [exchange]))
        motions.append(torch.randn(tokens, 58, generator=random))
    rvq = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58)).eval()
    examples = examples_of(items, motions, rvq)
    return [*examples, mixed(examples)[-1]]


def test_the_loss_is_equation_6(vocabulary, examples):
    net = model(vocabulary).eval()
    terms = net.loss(net.collate(examples))
    torch.testing.assert_close(terms["loss"], terms["seq"] + CONFIG.training.motion_weight * terms["motion"])


def test_fresh_lora_leaves_the_language_model_as_it_was(vocabulary, examples):
    plain, adapted = model(vocabulary, lora=False).eval(), model(vocabulary).eval()
    batch = plain.collate(examples).sequence
    torch.testing.assert_close(plain.hidden(batch)[0], adapted.hidden(batch)[0])


def test_only_lora_and_connector_learn(vocabulary, examples):
    net = model(vocabulary)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    train(net, three_stages(CONFIG.training, examples, examples[:2]))
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("lora_" in name or name.startswith("connector.") for name in changed)


def test_adapter_only_learns_the_connector_alone(vocabulary, examples):
    net = model(vocabulary, lora=False)
    logits = net.hidden(net.collate(examples).sequence)[0]
    stages = three_stages(CONFIG.training, examples[:4], examples[:2])[:1]
    train(net, stages)
    torch.testing.assert_close(net.eval().hidden(net.collate(examples).sequence)[0], logits)
    assert not net.lora_parameters()


def test_the_reset_throws_lora_away_and_keeps_the_connectors_optimiser_state(vocabulary, examples):
    net = model(vocabulary)
    optimizer = optimizer_for(net)
    net.loss(net.collate(examples))["loss"].backward()
    optimizer.step()
    connector = {name: value.clone() for name, value in net.connector.state_dict().items()}
    reset_lora(net, optimizer)
    assert all(torch.equal(value, connector[name]) for name, value in net.connector.state_dict().items())
    assert all(not p.any() for name, p in net.backbone.lm.named_parameters() if "lora_B" in name)
    assert not any(p in optimizer.state for p in net.lora_parameters())
    assert all(p in optimizer.state for p in net.connector.parameters() if p.grad is not None)


def test_the_two_rates_are_the_papers_unless_lite_ones_are_set(vocabulary):
    net = model(vocabulary)
    net.config = CONFIG.override(training=dict(lite_lora_lr=None, lite_connector_lr=None))
    assert [group["lr"] for group in optimizer_for(net).param_groups] == [1e-5, 1e-4]


@pytest.mark.parametrize("killed", [1, 2, 4])  # last step of stage 1, the reset's own, in stage 3
def test_a_killed_run_resumes_across_the_reset(vocabulary, examples, tmp_path, killed):
    stages = three_stages(CONFIG.training, examples, examples[:2])
    whole = model(vocabulary)
    train(whole, stages)
    cut, seen = model(vocabulary), []
    original = cut.collate

    def collate(*args):
        seen.append(1)
        if len(seen) > killed:
            raise KeyboardInterrupt
        return original(*args)

    cut.collate = collate
    with pytest.raises(KeyboardInterrupt):
        train(cut, stages, tmp_path / "run")
    fresh = model(vocabulary)
    train(fresh, stages, tmp_path / "run")
    for name, value in whole.state().items():
        torch.testing.assert_close(fresh.state()[name], value, atol=1e-6, rtol=1e-5)


def test_a_dropped_tail_trains_and_predicts(vocabulary, examples):
    net = model(vocabulary)
    net.backbone.config = replace(net.backbone.config, tail="drop")
    net.config = net.config.override(backbone=dict(tail="drop"))
    batch = net.collate(examples[:4])
    assert batch.lengths.tolist() == [1, 2, 2, 3]
    assert torch.isfinite(net.loss(batch)["loss"])
    net.eval()
    for together, example in zip(predict(net, examples[:4]), examples, strict=False):
        assert together.equal(predict(net, [example])[0])


def test_a_checkpoint_round_trip_predicts_the_same_codes(vocabulary, examples, tmp_path):
    net = model(vocabulary)
    train(net, three_stages(CONFIG.training, examples, examples[:2]))
    net.save(tmp_path / "a2llm.safetensors")
    again = A2LLM.load(tmp_path / "a2llm.safetensors", CONFIG, backbone(vocabulary), net.rvq)
    same = [torch.equal(a, b) for a, b in zip(predict(net, examples[:4]), predict(again, examples[:4]))]
    assert sum(same) >= 3  # fp16 on disk may turn a tie
    other = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58))
    with pytest.raises(ValueError, match="a2llm.safetensors: was trained on another rvq.safetensors"):
        A2LLM.load(tmp_path / "a2llm.safetensors", CONFIG, backbone(vocabulary), other)
    with pytest.raises(ValueError, match="a2llm.safetensors: was trained on another backbone"):
        A2LLM.load(tmp_path / "a2llm.safetensors", CONFIG, backbone(vocabulary, seed=1), net.rvq)
    base = backbone(vocabulary)
    base.config = replace(base.config, hidden_layer=None)
    with pytest.raises(ValueError, match="a2llm.safetensors: H was read otherwise .*'hidden_layer': 1"):
        A2LLM.load(tmp_path / "a2llm.safetensors", CONFIG, base, net.rvq)


def test_how_codes_are_chosen_is_up_to_the_caller(vocabulary, examples, tmp_path):
    net = model(vocabulary)
    net.save(tmp_path / "a2llm.safetensors")
    wanted = CONFIG.override(connector=dict(sharpness=None))
    again = A2LLM.load(tmp_path / "a2llm.safetensors", wanted, backbone(vocabulary), net.rvq)
    assert net.config.connector.sharpness == 2.0 and again.connector.config.sharpness is None


def test_the_scale_of_lora_is_that_of_the_checkpoint(vocabulary, examples, tmp_path):
    net = model(vocabulary)
    train(net, three_stages(CONFIG.training, examples, examples[:2]))
    net.save(tmp_path / "a2llm.safetensors")
    other = CONFIG.override(lora=dict(alpha=64))
    again = A2LLM.load(tmp_path / "a2llm.safetensors", other, backbone(vocabulary), net.rvq)
    batch = net.eval().collate(examples[:2]).sequence
    torch.testing.assert_close(again.hidden(batch)[0], net.hidden(batch)[0], atol=2e-2, rtol=2e-2)
    assert again.config.lora == CONFIG.lora


def test_lora_goes_into_a_fresh_backbone_once(vocabulary):
    net = model(vocabulary)
    with pytest.raises(ValueError, match="backbone: has LoRA in it already"):
        A2LLM(CONFIG, net.backbone, net.rvq, lora=False)
    for layer in net.lora_layers():
        layer.merge()
    with pytest.raises(ValueError, match="reset_lora: LoRA has been merged"):
        net.reset_lora()


def test_motion_must_be_as_long_as_the_speech(examples):
    rvq = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58)).eval()
    with pytest.raises(ValueError, match="e0: 20 frames of motion for 7 audio tokens"):
        examples_of([examples[0].item], [torch.zeros(20, 58)], rvq)


def test_prediction_uses_its_own_history_and_ignores_company(vocabulary, examples):
    net = model(vocabulary).eval()
    together = predict(net, examples[:4], batch=4)
    alone = [predict(net, [example])[0] for example in examples[:4]]
    assert [len(c) for c in together] == [2, 2, 3, 3]
    assert all(torch.equal(a, b) for a, b in zip(together, alone))


def test_the_mixture_holds_the_four_subtasks_and_only_asr_has_no_motion(examples):
    asked = [e for e in examples if e.task == "AQAA"]
    again = [replace(e, task="Repeat") for e in asked[:3]]
    whole = mixed([*asked, *again], asr_every=3)
    assert [e.task for e in whole] == ["AQAA"] * 2 * len(asked) + ["Repeat"] * 2 + ["TTS"] + ["ASR"] * 3
    with pytest.raises(ValueError, match="mixed: expected examples of AQAA and Repeat alone"):
        mixed(whole)
    assert {e.task for e in whole if e.codes is None} == {"ASR"} == {t for t, v in TASKS.items() if not v.motion}


def test_merged_lora_is_not_trained_silently(vocabulary, examples):
    net = model(vocabulary)
    for layer in net.lora_layers():
        layer.merge()
    with pytest.raises(ValueError, match="LoRA has been merged into the language model; load the model anew"):
        train(net, three_stages(CONFIG.training, examples, examples[:2]))


def test_work_under_other_rates_is_not_taken_up_silently(vocabulary, examples, tmp_path):
    stages = three_stages(CONFIG.training, examples, examples[:2])
    train(model(vocabulary), stages, tmp_path / "run")
    other = model(vocabulary)
    other.config = other.config.override(training=dict(lite_lora_lr=0.5))
    with pytest.raises(ValueError, match="belongs to another run"):
        train(other, stages, tmp_path / "run")


def test_a_run_goes_on_in_smaller_parts_where_there_is_less_memory(vocabulary, examples, tmp_path, capsys):
    stages = three_stages(CONFIG.training, examples, examples[:2])
    train(model(vocabulary), stages, tmp_path / "run")
    other = model(vocabulary)
    other.config = other.config.override(training=dict(part=1, gradient_checkpointing=True))
    train(other, stages, tmp_path / "run")
    assert "resumed at step 6" in capsys.readouterr().out


def test_a_model_with_depth_heads_is_loaded_by_a_profile_that_chooses_by_sharpness(vocabulary, tmp_path):
    depth = CONFIG.override(connector=dict(heads_kind="depth", sharpness=None))
    rvq = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58)).eval()
    A2LLM(depth, backbone(vocabulary), rvq).save(tmp_path / "depth.safetensors")
    assert CONFIG.connector.sharpness is not None
    loaded = A2LLM.load(tmp_path / "depth.safetensors", CONFIG, backbone(vocabulary), rvq)
    assert loaded.connector.config.heads_kind == "depth"


def test_the_auxiliary_emotion_is_off_and_learns_from_the_answers_states_when_it_is_on(vocabulary, examples):
    off = model(vocabulary)
    assert off.emotion is None and "emotion" not in off.loss(off.collate(examples))
    config = CONFIG.override(training=dict(emotion_aux=0.5))
    rvq = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58)).eval()
    net = A2LLM(config, backbone(vocabulary), rvq).eval()
    told = [replace(e, emotion=name) for e, name in zip(examples, ("happy", "", "sad", "afraid", "angry"))]
    terms, plain = net.loss(net.collate(told)), net.loss(net.collate(examples))
    assert plain["emotion"] == 0  # nobody said what it was
    torch.testing.assert_close(terms["loss"], terms["seq"] + terms["motion"] + 0.5 * terms["emotion"])
    (terms["loss"] - plain["loss"]).backward()
    assert all(p.grad.abs().sum() > 0 for p in net.emotion.parameters())
    assert any(p.grad.abs().sum() > 0 for p in net.lora_parameters())
    learned = {id(p) for group in optimizer_for(net).param_groups for p in group["params"]}
    assert {id(p) for p in net.emotion.parameters()} <= learned
