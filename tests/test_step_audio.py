"""The published checkpoint's layout: its names and sizes, its tokens, and a small folder of the same form."""

import hashlib
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from a2lite.__main__ import main
from a2lite.a2llm import A2LLM
from a2lite.backbone import Backbone, Dialogue, Vocabulary, answer, collate, from_pretrained
from a2lite.backbone.step_audio import published_name
from a2lite.config import load_config
from a2lite.realtime import Avatar
from a2lite.rvq import MotionRVQ
from a2lite.sizes import empty_backbone
from a2lite.speech import SpeechTokenizer
from full_size_files import write_backbone

NAMES = "f23afcc10cdfd2785b45a3e3f6c369c165726684ddaedcb1bdbbaa26260ef940"  # sha256 of the published index's names
SMALL = replace(
    load_config("a100", size="nano").backbone, n_mels=128, encoder_layers=2, layers=3, hidden_layer=None,
)  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.train(["the violin is right behind you", "You are a helpful assistant."], 300, 40)


@pytest.fixture(scope="module")
def source(vocabulary) -> Backbone:
    torch.manual_seed(0)
    return Backbone(replace(SMALL, audio_codes=40, text_vocab=vocabulary.texts), vocabulary).eval()


@pytest.fixture
def folder(source, tmp_path) -> Path:
    """A checkpoint as it is published, of three shards."""
    return write_backbone(tmp_path, source)


def loaded(folder: Path) -> Backbone:
    return from_pretrained(folder, SMALL, dtype=torch.float32)


# ---------------------------------------------------------------- the paper's size


def test_names_and_sizes_are_the_published_ones():
    backbone = empty_backbone(load_config("a100"))
    state = backbone.state_dict()
    names = sorted(published_name(name) for name in state)
    assert len(names) == 832
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == NAMES
    assert sum(tensor.numel() for tensor in backbone.parameters()) == 8_315_179_264
    assert sum(2 * tensor.numel() for tensor in state.values()) == 16_630_358_528


def test_lora_and_connector_are_of_the_papers_size(capsys):
    assert main(["sizes", "--profile", "a100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["backbone"], found["lora"], found["connector"]) == (8_315_179_264, 161_480_704, 116_611_840)
    assert found["connector"] + found["connector_positions"] <= 0.125e9
    assert found["rvq"] > 0


def test_lora_leaves_the_encoder_alone():
    config = load_config("a100", size="nano")
    with torch.device("meta"):
        model = A2LLM(config, empty_backbone(config), MotionRVQ(config.rvq))
    adapted = {name for name, _ in model.backbone.named_modules() if name.endswith("lora_a") or "lora" in name}
    assert adapted and not any("encoder" in name or "adapter" in name for name in adapted)


# ---------------------------------------------------------------- a small one of the same form


def by_hand(folder: Path, mel: torch.Tensor, frames: int) -> torch.Tensor:
    """Encoder and adapter from the published tensors, one sound (frames, 128) at a time -> (P, hidden)."""
    w = {name: tensor for shard in folder.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    get = lambda name, key: (w[f"{name}.{key}"] if f"{name}.{key}" in w else None)  # noqa: E731
    linear = lambda x, name: F.linear(x, get(name, "weight"), get(name, "bias"))  # noqa: E731
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], get(name, "weight"), get(name, "bias"))  # noqa: E731
    x = F.gelu(F.conv1d(mel[:frames].T[None], w["encoder.conv1.weight"], w["encoder.conv1.bias"], padding=1))
    x = F.gelu(F.conv1d(x, w["encoder.conv2.weight"], w["encoder.conv2.bias"], stride=2, padding=1))[0].T
    x = x + w["encoder.positional_embedding.weight"][: len(x)]
    heads, seen = SMALL.encoder_heads, (frames - 2 + 1) // 2  # the last two frames are padding
    for block in range(SMALL.encoder_layers):
        name = f"encoder.blocks.{block}"
        y = norm(x, f"{name}.attn_ln")
        q, k, v = (linear(y, f"{name}.attn.{part}").unflatten(1, (heads, -1)) for part in ("query", "key", "value"))
        scores = torch.einsum("qhd,khd->hqk", q, k[:seen]) / q.shape[-1] ** 0.5
        x = x + linear(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[:seen]).flatten(1), f"{name}.attn.out")
        y = norm(x, f"{name}.mlp_ln")
        x = x + linear(F.gelu(linear(y, f"{name}.mlp.0")), f"{name}.mlp.2")
    x = norm(F.avg_pool1d(x.T[None], 2)[0].T, "encoder.after_norm")
    x = F.gelu(F.conv1d(x.T[None], w["adapter.conv.weight"], w["adapter.conv.bias"], stride=2, padding=1))[0].T
    return linear(F.relu(linear(x, "adapter.linear1")), "adapter.linear2")[: (seen // 2 - 1) // 2 + 1]


def test_what_is_loaded_hears_as_the_published_tensors_say(folder):
    model, frames = loaded(folder), torch.tensor([80, 202, 81, 119])
    mels = torch.nn.utils.rnn.pad_sequence(list(torch.randn(202, 128)[:n] for n in frames), True)
    with torch.no_grad():
        heard = model.hear(mels, frames)
        alone = torch.cat([by_hand(folder, mel, int(n)) for mel, n in zip(mels, frames)])
    torch.testing.assert_close(heard, alone, atol=1e-5, rtol=1e-4)


def test_what_is_loaded_speaks_as_transformers_own_qwen2_does(folder, vocabulary):
    plain = Qwen2ForCausalLM.from_pretrained(folder, config=Qwen2Config(
        vocab_size=len(vocabulary), hidden_size=SMALL.hidden, intermediate_size=SMALL.intermediate,
        num_hidden_layers=SMALL.layers, num_attention_heads=SMALL.heads, num_key_value_heads=SMALL.kv_heads,
        tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": SMALL.rope_theta},
    ), dtype=torch.float32).eval()  # fmt: skip
    dialogue = Dialogue(vocabulary, "You are a helpful assistant.").read("the violin").say("right", [1, 2, 3])
    batch = collate([dialogue])
    with torch.no_grad():
        ours = loaded(folder)(batch)[0]
        torch.testing.assert_close(ours, plain(batch.ids).logits, atol=1e-5, rtol=1e-5)
        past = plain(batch.ids[:, :-4], use_cache=True).past_key_values
        rest = [plain(batch.ids[:, [place]], past_key_values=past, use_cache=True).logits for place in range(-4, 0)]
    torch.testing.assert_close(ours[:, -4:], torch.cat(rest, 1), atol=1e-5, rtol=1e-5)


def test_halves_are_kept_and_nothing_stays_unfilled(folder, source):
    model = from_pretrained(folder, SMALL)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.bfloat16()), name


def test_rows_that_mean_nothing_are_kept_in_our_own_file_too(tmp_path, vocabulary):
    wide = Vocabulary(vocabulary.tokenizer, rows=len(vocabulary) + 14)
    Backbone(replace(SMALL, audio_codes=40), wide).save(tmp_path / "wide.safetensors")
    again = Backbone.load(tmp_path / "wide.safetensors").vocabulary
    assert (len(again), again.codes, again.kind(len(again) - 1)) == (len(wide), 40, "unused")


def change(folder: Path, name: str, act) -> None:
    path = folder / name
    content = json.loads(path.read_text())
    act(content)
    path.write_text(json.dumps(content))


SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / SHARD).unlink(), f"{SHARD}: is missing; download it again"),
        (lambda f: (f / SHARD).write_text(POINTER), f"{SHARD}: is a Git LFS pointer"),
        (lambda f: (f / SHARD).write_bytes(b"\xff" * 90), f"{SHARD}: cannot be read .* download it again"),
        (lambda f: (f / INDEX).unlink(), f"{INDEX}: is missing"),
        (lambda f: (f / INDEX).write_text("{"), f"{INDEX}: is no JSON"),
        (lambda f: change(f, INDEX, lambda c: c["weight_map"].pop("lm_head.weight")), r"lacks lm_head.weight \(1 in"),
        (lambda f: change(f, INDEX, lambda c: c["weight_map"].update(extra=SHARD)), "has an unknown extra"),
        (lambda f: change(f, INDEX, lambda c: c["weight_map"].update({"lm_head.weight": "../x"})), "a shard '../x'"),
        (lambda f: change(f, "config.json", lambda c: c.update(model_type="step1")), "model_type 'step1'; expected"),
        (lambda f: change(f, "config.json", lambda c: c["text_config"].pop("hidden_size")), "hidden_size is None"),
        (lambda f: change(f, "config.json", lambda c: c["text_config"].update(intermediate_size=96)),
         r"mlp.down_proj.weight is \(32, 64\); expected \(32, 96\)"),
        (lambda f: (f / "tokenizer.json").write_text(POINTER), "vocab.json: is missing"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "its tokenizer cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said_in_one_line(folder, harm, message):
    harm(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        loaded(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


# ---------------------------------------------------------------- on several devices, and quantised

OFFLOADED = {
    "encoder": "disk", "adapter": "cpu", "lm.model.embed_tokens": "disk", "lm.model.layers.0": "cpu",
    "lm.model.layers.1": "disk", "lm.model.layers.2": "disk", "lm.model.norm": "cpu", "lm.model.rotary_emb": "cpu",
    "lm.lm_head": "disk",
}  # fmt: skip


def conversation(vocabulary) -> Dialogue:
    sound = torch.randn(80, 128, generator=torch.Generator().manual_seed(0))
    return Dialogue(vocabulary, "You are a helpful assistant.").hear(sound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device_map", ["auto", {"": "disk"}, OFFLOADED], ids=["auto", "all on disk", "some on disk"])
def test_what_waits_on_disk_computes_the_same(folder, vocabulary, dtype, device_map):
    plain = from_pretrained(folder, SMALL, dtype=dtype)
    spread = from_pretrained(folder, SMALL, dtype=dtype, device_map=device_map)
    away = {name for name, tensor in spread.state_dict().items() if tensor.is_meta}
    on_disk = [name for name, place in ({} if device_map == "auto" else device_map).items() if place == "disk"]
    assert away == {name for name in plain.state_dict() if name.startswith(tuple(on_disk))}
    assert spread.identity == plain.identity and spread.device.type == "cpu"
    batch = collate([conversation(vocabulary).say("right", [1, 2, 3, 4, 5]), conversation(vocabulary).say("you", [7])])
    with torch.no_grad():
        for ours, theirs in zip(spread(batch), plain(batch), strict=True):
            assert torch.equal(ours, theirs)
        ours, theirs = spread.labelled(batch), plain.labelled(batch)
        assert torch.equal(ours[0], theirs[0])
        for one, other in zip(spread.audio_hidden(batch, ours[1]), plain.audio_hidden(batch, theirs[1]), strict=True):
            assert torch.equal(one, other)
        assert spread.loss(batch)["loss"] == plain.loss(batch)["loss"]
    (ours,), (theirs,) = (answer(model, [conversation(vocabulary).open()], limit=12) for model in (spread, plain))
    assert ours.ids == theirs.ids and torch.equal(ours.hidden, theirs.hidden)


def test_lora_stands_where_its_base_computes(folder, vocabulary):
    profile, batch = load_config("a100", size="nano"), collate([conversation(vocabulary).say("right", [1, 2, 3])])
    states = []
    for device_map in (None, OFFLOADED):
        base = from_pretrained(folder, SMALL, device_map=device_map)
        net = A2LLM(profile, base, MotionRVQ(profile.rvq)).eval()
        assert {(p.device.type, p.dtype) for p in net.lora_parameters()} == {("cpu", torch.float32)}
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            states.append([base(batch)[1]])
            for parameter in net.lora_parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random))
            states[-1].append(base(batch)[1])
    (fresh, trained), others = states
    assert torch.equal(fresh, others[0]) and torch.equal(trained, others[1]) and not torch.equal(fresh, trained)


def test_an_avatar_merges_lora_only_into_what_stays(folder, vocabulary):
    profile, batch = load_config("a100", size="nano"), collate([conversation(vocabulary).say("right", [1, 2, 3])])
    base = from_pretrained(folder, SMALL, dtype=torch.float32, device_map=OFFLOADED)
    net = A2LLM(profile, base, MotionRVQ(profile.rvq)).eval()
    for parameter in net.lora_parameters():
        torch.nn.init.normal_(parameter.data, std=0.1)
    with torch.no_grad():
        before = base(batch)[0]
        Avatar(profile, net, SpeechTokenizer(profile.speech))
        torch.testing.assert_close(base(batch)[0], before, atol=1e-5, rtol=1e-5)
    waits = [layer.get_base_layer().weight.is_meta for layer in net.lora_layers()]
    assert [not layer.merged for layer in net.lora_layers()] == waits and 0 < sum(waits) < len(waits)


def test_auto_fills_what_there_is_and_never_cuts_a_layer(folder, monkeypatch):
    size = 400_000  # bytes, of some 560 000
    monkeypatch.setattr("a2lite.backbone.placement.get_balanced_memory", lambda *a, **k: {"cpu": size})
    spread = from_pretrained(folder, SMALL, dtype=torch.float32, device_map="auto")
    here = sum(4 * p.numel() for p in spread.parameters() if not p.is_meta)
    assert 0 < here <= size
    for block in (*spread.lm.model.layers, spread.encoder):
        assert len({p.is_meta for p in block.parameters()}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(device_map="fastest"), "device_map 'fastest': expected 'auto', or a dict"),
        (dict(device_map={"lm": "cpu", "ears": "cpu"}), "device_map: no module 'ears'; expected names such as"),
        (dict(device_map={"lm": "cpu", "encoder": "cpu"}), "device_map: leaves out adapter.conv.weight; expected"),
        (dict(device_map={"": "cpu", "lm.model.layers.1.mlp": "disk"}), "lm.model.layers.1.mlp cuts a Qwen2DecoderL"),
        (dict(device_map={"": "cpu", "lm": "cuda:99"}), "device 'cuda:99': is not there"),
        (dict(device="tpu3"), "device 'tpu3': is not there"),
    ],
)
def test_a_place_that_is_not_there_is_said_in_one_line(folder, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_pretrained(folder, SMALL, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def roomy(vocabulary, tmp_path) -> Path:
    """A folder whose matrices are as wide as one block of a quantiser."""
    torch.manual_seed(0)
    sizes = dict(hidden=64, intermediate=128, audio_codes=40, text_vocab=vocabulary.texts)
    return write_backbone(tmp_path, Backbone(replace(SMALL, **sizes), vocabulary))


BITS = [
    dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16),
    dict(load_in_8bit=True),
]


@pytest.mark.parametrize("bits", BITS, ids=["4 bits", "8 bits"])
def test_a_quantised_language_model_says_nearly_the_same_and_takes_lora(roomy, vocabulary, bits):
    if find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed; pip install 'a2lite[quantised]'")
    config = transformers.BitsAndBytesConfig(**bits)
    model, plain = from_pretrained(roomy, SMALL, quantization_config=config), from_pretrained(roomy, SMALL)
    kept = {n: p for n, p in model.state_dict().items() if n.startswith(("encoder.", "adapter.")) or "embed" in n}
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in kept.items())
    assert model.identity == plain.identity  # one folder of LoRA and connector fits both
    assert type(model.lm.model.layers[0].mlp.up_proj).__module__.startswith("bitsandbytes")
    profile, batch = load_config("a100", size="nano"), collate([conversation(vocabulary).say("right", [1, 2, 3, 4])])
    net = A2LLM(profile, from_pretrained(roomy, SMALL, quantization_config=config), MotionRVQ(profile.rvq))
    net.train().backbone.loss(batch)["loss"].backward()
    learns = {name: p for name, p in net.backbone.named_parameters() if p.grad is not None}
    assert learns and all("lora_" in name and p.grad.isfinite().all() for name, p in learns.items())
    assert len(learns) == len(net.lora_parameters()) and {p.dtype for p in learns.values()} == {torch.float32}
    with torch.no_grad():
        (_, ours), (_, theirs) = model(batch), plain(batch)
        assert torch.equal(net.eval().backbone(batch)[1], ours)  # fresh LoRA adds nothing
    assert 0 < (ours - theirs).float().norm() < 0.3 * theirs.float().norm()


def test_what_quantising_needs_is_said_in_one_line(folder, monkeypatch):
    monkeypatch.setattr("transformers.quantizers.quantizer_bnb_8bit.is_bitsandbytes_available", lambda: False)
    config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    with pytest.raises(ImportError, match="quantization_config: .*bitsandbytes") as caught:
        from_pretrained(folder, SMALL, quantization_config=config)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="device_map: cannot be had with a quantization_config; give a device"):
        from_pretrained(folder, SMALL, quantization_config=config, device_map="auto")
