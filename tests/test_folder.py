"""LoRA, connector and motion tokenizer as one small folder, on the smallest nets; peft reads it too."""

import json
from dataclasses import asdict, replace

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2ForCausalLM

from a2lite.a2llm import A2LLM, lora_config
from a2lite.backbone import qwen2_config
from a2lite.backbone.model import ATTENTION
from a2lite.folder import from_pretrained, save_pretrained
from a2lite.rvq import MotionRVQ
from a2lite.training import predict, three_stages, train
from test_training import CONFIG, backbone, examples, model, vocabulary


@pytest.fixture(scope="module")
def trained(vocabulary, examples):
    net = model(vocabulary)
    train(net, three_stages(CONFIG.training, examples, examples[:2]))
    return net.eval()


@pytest.fixture
def saved(trained, tmp_path):
    save_pretrained(trained, tmp_path / "mine")
    return tmp_path / "mine"


def test_a_folder_round_trip_computes_the_same(vocabulary, examples, trained, saved):
    again = from_pretrained(saved, backbone(vocabulary))
    assert not again.training and again.config == trained.config
    batch = trained.collate(examples)
    for ours, theirs in zip(again.hidden(batch.sequence), trained.hidden(batch.sequence), strict=True):
        assert torch.equal(ours, theirs)
    assert all(torch.equal(a, b) for a, b in zip(predict(again, examples), predict(trained, examples), strict=True))
    assert torch.equal(again.motion(batch.codes), trained.motion(batch.codes))
    for name, value in trained.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_folder_is_written_over_and_keeps_what_else_lies_there(vocabulary, trained, saved):
    (saved / "README.md").write_text("mine")
    (saved / "connector.safetensors").write_bytes(b"torn")
    save_pretrained(trained, saved)
    assert torch.equal(from_pretrained(saved, backbone(vocabulary)).connector.norm.weight,
                       trained.connector.norm.weight)  # fmt: skip
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "config.json", "connector.safetensors"]
    assert sorted(path.name for path in saved.iterdir()) == [*names, "rvq.safetensors"]


def test_without_lora_there_is_no_adapter(vocabulary, examples, tmp_path):
    save_pretrained(model(vocabulary), tmp_path)
    net = model(vocabulary, lora=False).eval()
    save_pretrained(net, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "connector.safetensors", "rvq.safetensors"
    ]  # fmt: skip
    again = from_pretrained(tmp_path, backbone(vocabulary))
    assert not again.lora and not again.lora_parameters()
    assert all(torch.equal(a, b) for a, b in zip(predict(again, examples), predict(net, examples), strict=True))


def plain_qwen2(vocabulary) -> Qwen2ForCausalLM:
    lm = Qwen2ForCausalLM(qwen2_config(CONFIG.backbone, vocabulary))
    lm.load_state_dict(backbone(vocabulary).lm.state_dict())
    lm.set_attn_implementation(ATTENTION)
    return lm.eval()


def test_peft_reads_the_folder(vocabulary, examples, trained, saved):
    theirs = peft.PeftModel.from_pretrained(plain_qwen2(vocabulary), saved).eval()
    batch = trained.collate(examples).sequence
    with torch.no_grad():
        x = trained.backbone.embed(batch)
        ours = trained.backbone.lm(inputs_embeds=x).logits
        assert torch.equal(theirs(inputs_embeds=x).logits, ours)
        with theirs.disable_adapter():
            assert not torch.equal(theirs(inputs_embeds=x).logits, ours)


def test_the_adapter_files_are_what_peft_itself_writes(vocabulary, trained, saved, tmp_path):
    theirs = peft.get_peft_model(plain_qwen2(vocabulary), lora_config(CONFIG.lora))
    names = {name for name, _ in trained.backbone.lm.named_parameters() if "lora_" in name}
    state = {f"base_model.model.{name}": trained.backbone.lm.get_parameter(name) for name in names}
    assert not theirs.load_state_dict(state, strict=False).unexpected_keys
    theirs.save_pretrained(tmp_path / "peft")
    written = [json.loads((folder / "adapter_config.json").read_text()) for folder in (saved, tmp_path / "peft")]
    for told in written:
        told["target_modules"] = sorted(told["target_modules"])  # a set
    assert written[0] == written[1]
    ours, others = (load_file(folder / "adapter_model.safetensors") for folder in (saved, tmp_path / "peft"))
    assert set(ours) == set(others) and all(torch.equal(ours[name], others[name]) for name in ours)


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


HARMS = [
    (lambda f: (f / "config.json").unlink(), "config.json: is missing; expected a folder written by save_pre"),
    (lambda f: (f / "config.json").write_text("{"), "config.json: is no JSON"),
    (lambda f: (f / "config.json").write_text('{"base": 1}'), "config.json: is no A2-LLM's; expected a folder"),
    (lambda f: change(f / "config.json", lora=dict(alpha=3, depth=1)), r"is of another version .*lora.'depth'.*"),
    (lambda f: (f / "rvq.safetensors").unlink(), "rvq.safetensors: is missing; copy the whole folder again"),
    (lambda f: (f / "connector.safetensors").write_bytes(b"x" * 99), "connector.safetensors: is torn, or not the one"),
    (lambda f: change(f / "adapter_config.json", r=8), "adapter_config.json: is torn, or not the one saved here"),
    (lambda f: change(f / "config.json", codes="0"), "rvq.safetensors: is not the connector's motion tokenizer; copy"),
    (lambda f: change(f / "config.json", lora=asdict(replace(CONFIG.lora, rank=8))), r"lora_A.weight is .*; expected"),
    (lambda f: change(f / "config.json", lora=asdict(replace(CONFIG.lora, targets=("q_proj",)))), "other weights than"),
]


@pytest.mark.parametrize(("harm", "message"), HARMS)
def test_what_is_wrong_with_a_folder_is_said_in_one_line(vocabulary, saved, harm, message):
    harm(saved)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        from_pretrained(saved, backbone(vocabulary))
    assert "\n" not in str(caught.value) and str(saved) in str(caught.value)


def test_a_folder_of_another_base_or_reading_is_refused(vocabulary, saved):
    with pytest.raises(ValueError, match="mine: was trained on another backbone"):
        from_pretrained(saved, backbone(vocabulary, seed=1))
    base = backbone(vocabulary)
    base.config = replace(base.config, hidden_state="before")
    with pytest.raises(ValueError, match="mine: H was read otherwise .*'hidden_state': 'at'"):
        from_pretrained(saved, base)
    with pytest.raises(FileNotFoundError, match="config.json: is missing"):
        from_pretrained(saved / "absent", backbone(vocabulary))


# ---------------------------------------------------------------- on a base in bfloat16


def test_a_base_in_bfloat16_trains_and_predicts_nearly_the_same(vocabulary, examples, tmp_path):
    rvq = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58)).eval()
    trained = A2LLM(CONFIG, backbone(vocabulary).bfloat16().float(), rvq)  # the same numbers in twice the room
    train(trained, three_stages(CONFIG.training, examples, examples[:2]))
    save_pretrained(trained, tmp_path)
    net = from_pretrained(tmp_path, backbone(vocabulary).bfloat16())
    assert {p.dtype for p in (*net.lora_parameters(), *net.connector.parameters())} == {torch.float32}
    batch = trained.collate(examples)
    with torch.no_grad():
        ours, theirs = net.loss(batch), trained.loss(batch)
    for name in ("loss", "seq", "motion"):
        torch.testing.assert_close(ours[name], theirs[name], atol=0.02, rtol=0.02)
    assert [codes.shape for codes in predict(net, examples)] == [codes.shape for codes in predict(trained, examples)]
    net.train().loss(batch)["loss"].backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.lora_parameters())
    motion = [p.grad for name, p in net.named_parameters() if p.requires_grad and "connector" in name]
    assert any(grad.any() for grad in motion if grad is not None)


def test_lora_learns_in_float32(vocabulary):
    rvq = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58))
    net = A2LLM(CONFIG, backbone(vocabulary).bfloat16(), rvq)
    assert {p.dtype for p in net.lora_parameters()} == {torch.float32}
    assert {p.dtype for name, p in net.backbone.named_parameters() if "lora_" not in name} == {torch.bfloat16}
    torch.manual_seed(0)
    net.reset_lora()
    assert {p.dtype for p in net.lora_parameters()} == {torch.float32}
    a = next(net.lora_layers()).lora_A["default"].weight
    assert not torch.equal(a, a.bfloat16().float())  # drawn in float32, not widened


def test_a_base_that_takes_no_lora_is_refused_in_one_line(vocabulary):
    class Sealed(torch.nn.Module):
        """Some quantiser's matrix that peft does not know."""

    base = backbone(vocabulary)
    base.lm.model.layers[0].mlp.up_proj = Sealed()
    rvq = MotionRVQ.from_statistics(CONFIG.rvq, torch.zeros(58), torch.ones(58))
    with pytest.raises(ValueError, match="backbone: takes no LoRA .*Sealed.*; quantise it by bitsandbytes") as caught:
        A2LLM(CONFIG, base, rvq)
    assert "\n" not in str(caught.value)
