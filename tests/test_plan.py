"""The plan against what is really there: parameters to the byte, live tensors of a true training step within 15 %."""

import json
import math
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import a2lite
from a2lite.__main__ import main
from a2lite.backbone.model import ATTENTION, cross_entropies
from a2lite.config import load_config
from a2lite.flame import Flame, load_head
from a2lite.footprint import (
    Shape,
    connector_bytes,
    counts,
    kept_bytes,
    memory,
    model_flops,
    more_flops,
    rvq_bytes,
)
from a2lite.plan import CARDS, GIB, Setup, compare, estimate, inference, largest, on_card
from a2lite.rvq import MotionRVQ
from a2lite.rvq.loss import Geometry
from a2lite.training import optimizer_for

sys.path.insert(0, str(a2lite.ROOT / "benchmarks"))
import full_size  # noqa: E402
import shapes  # noqa: E402

CPU = torch.device("cpu")
SMALL = load_config("a100").override(  # the paper's form, narrow: what a step holds is tens of megabytes
    backbone=dict(encoder_width=64, encoder_layers=2, encoder_heads=2, adapter_width=64, hidden=128, layers=6, heads=4,
                  kv_heads=2, intermediate=680, text_vocab=2000, audio_codes=200),
    connector=dict(width=64, layers=2, heads=2, feedforward=128), lora=dict(rank=8, alpha=8),
    rvq=dict(width=16, latent=16, codes=16),
)  # fmt: skip
WIDE = SMALL.override(backbone=dict(hidden=256, layers=3, intermediate=512))
STEADY = SMALL.override(lora=dict(dropout=0.0))
CASES = [
    (SMALL, Shape(2, 4.0, 6.0), True), (SMALL, Shape(8, 4.0, 6.0), True), (SMALL, Shape(4, 2.0, 12.0), True),
    (SMALL, Shape(4, 10.0, 4.0), True), (WIDE, Shape(4, 4.0, 6.0), True), (STEADY, Shape(4, 4.0, 6.0), True),
    (SMALL, Shape(4, 4.0, 6.0), False), (SMALL, Shape(4, 2.0, 12.0), False), (WIDE, Shape(4, 4.0, 6.0), False),
]  # fmt: skip


@pytest.fixture(scope="module")
def paper():
    return load_config("a100"), counts(load_config("a100"))


def test_the_parameters_are_the_papers(paper):
    config, n = paper
    assert n.layers + n.rest == 8_315_179_264
    assert n.lora == 161_480_704
    assert round(n.matrices / 1e9, 2) == 7.09  # the language model's, with its output matrix
    assert memory(config, n, Shape())["trained weights"] == 16 * (n.lora + n.connector)


def test_an_example_has_the_length_that_the_plan_says():
    for config, shape, _ in CASES:
        model = full_size.build(config, CPU)
        data = full_size.batch(config, model.backbone.vocabulary, shape)
        assert data.sequence.ids.shape == (shape.examples, shape.length(config))
        assert len(model.backbone.audio_hidden(data.sequence, data.sequence.ids)[0]) == shape.codes(config)


def test_weights_gradients_and_moments_are_exact_to_the_byte():
    config, model = SMALL, full_size.build(SMALL, CPU)
    optimizer = optimizer_for(model)
    full_size.step(model, optimizer, full_size.batch(config, model.backbone.vocabulary, Shape(1, 1.0, 1.0)))
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)  # noqa: E731
    trained = [p for p in model.parameters() if p.requires_grad]
    moments = [x for state in optimizer.state.values() for x in state.values() if x.ndim]
    planned = memory(SMALL, counts(SMALL), Shape())
    assert size([*trained, *(p.grad for p in trained), *moments]) == planned["trained weights"]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert size([*frozen, model.rvq.quantizer.codebooks]) == planned["frozen weights"]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_real_step_holds_what_the_plan_says(case):
    """Every tensor alive is counted: at the end of the forward pass, and at the worst moment of a whole step."""
    config, shape, checkpointing = CASES[case]
    n, model = counts(config), full_size.build(config, CPU, checkpointing)
    data, optimizer = full_size.batch(config, model.backbone.vocabulary, shape), optimizer_for(model)
    known = [*model.parameters(), *model.buffers(), *vars(data.sequence).values(), data.codes]
    with full_size.LiveBytes(known) as live:
        before = live.now
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(data)["loss"]
        kept = live.now - before
        loss.backward()
    logits = 4 * shape.examples * shape.spoken(config) * n.rows  # fewer than are held at once: one chunk, kept
    copies = 2 * (n.connector if checkpointing else n.trained)
    planned = kept_bytes(config, shape, checkpointing, cpu=True) + connector_bytes(config, shape) + logits + copies
    assert planned == pytest.approx(kept, rel=0.15)
    full_size.step(model, optimizer, data)
    peak = full_size.peak_gib(model, optimizer, data)["peak_gib"]
    planned = memory(config, n, shape, checkpointing=checkpointing, cpu=True)["peak"] / GIB
    assert planned == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize("checkpointing", (True, False))
def test_with_a_gpus_dropout_and_attention_a_step_holds_what_the_plan_says_for_one(monkeypatch, checkpointing):
    """CUDA's kernels keep less: a mask of bytes, attention in bf16. A processor can be made to do the same."""
    monkeypatch.setattr(torch.nn.functional, "dropout", shapes.dropout)
    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, sdpa_attention_forward)
    shape = Shape(4, 4.0, 6.0)
    config = SMALL.override(backbone=dict(text_vocab=200, layers=4), connector=dict(segments=(5,)))
    model = full_size.build(config, CPU, checkpointing)
    optimizer, data = optimizer_for(model), full_size.batch(config, model.backbone.vocabulary, shape)
    full_size.step(model, optimizer, data)
    n, peak = counts(config), full_size.peak_gib(model, optimizer, data)["peak_gib"]
    gpu, cpu = (memory(config, n, shape, checkpointing=checkpointing, cpu=on)["peak"] / GIB for on in (False, True))
    assert gpu == pytest.approx(peak, rel=0.15)
    assert cpu > 1.15 * peak  # as a processor computes it, it would be more than that
    monkeypatch.undo()
    assert shapes.trace(config, shape, checkpointing)["peak_gib"] == pytest.approx(peak, rel=0.005)  # without numbers


def test_the_chunks_of_the_loss_bound_its_memory(monkeypatch):
    monkeypatch.setattr(cross_entropies, "__defaults__", (2**18,))
    monkeypatch.setattr("a2lite.footprint.LOGITS", 2**18)
    config, shape = SMALL.override(backbone=dict(text_vocab=8000, layers=2, intermediate=128)), Shape(4, 2.0, 12.0)
    model = full_size.build(config, CPU)
    optimizer, data = optimizer_for(model), full_size.batch(config, model.backbone.vocabulary, shape)
    full_size.step(model, optimizer, data)
    planned = memory(config, counts(config), shape, cpu=True)["peak"] / GIB
    assert planned == pytest.approx(full_size.peak_gib(model, optimizer, data)["peak_gib"], rel=0.15)


def test_the_motion_tokenizer_holds_what_the_plan_says():
    config, head, clips = load_config("a100"), load_head(), 4
    geometry = Geometry.of(Flame(head), head.regions, len(head.v_template), config.rvq)
    model = MotionRVQ.from_statistics(config.rvq, torch.zeros(58), torch.ones(58)).train()
    motion = 0.1 * torch.randn(clips, config.rvq.crop, 58)
    model(motion[:1, :5], geometry)  # the head's slices are made once
    with full_size.LiveBytes([*model.parameters(), *model.buffers()]) as live:
        before = live.now
        model(motion, geometry)[2]["loss"].backward()
    assert rvq_bytes(config, clips) == pytest.approx(live.peak - before, rel=0.15)


@pytest.mark.parametrize("checkpointing", (True, False))
def test_the_arithmetic_is_what_torch_counts(checkpointing):
    config, shape = SMALL, Shape(2, 4.0, 6.0)
    model = full_size.build(config, CPU, checkpointing)
    data = full_size.batch(config, model.backbone.vocabulary, shape)
    with FlopCounterMode(display=False, custom_mapping=shapes.KERNELS) as counter:
        full_size.step(model, optimizer_for(model), data)
    n = counts(config)
    unread = 4 * n.head * shape.examples * (shape.length(config) - shape.spoken(config))  # logits that nobody computes
    planned = model_flops(config, n, shape) + more_flops(config, n, shape, checkpointing) - unread
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.1)


# ---------------------------------------------------------------- the plan


def test_the_largest_part_is_the_largest(paper):
    config, n = paper
    for setup in (Setup(), Setup(8, fsdp=True), Setup(8, checkpointing=False)):
        most = largest(config, n, Shape(), setup)
        need = [
            on_card(memory(config, n, Shape(k), setup.gpus, setup.fsdp, setup.checkpointing)["peak"])
            for k in (most, most + 1)
        ]
        assert need[0] <= 0.985 * 80 < need[1]
    assert largest(config, n, Shape(), Setup(8, fsdp=True)) > largest(config, n, Shape(), Setup(8))


def test_more_gpus_take_less_time_and_cost_the_same():
    one, eight = (estimate(load_config("a100"), Setup(gpus), part=8) for gpus in (1, 8))
    assert eight["tokens_per_second"] == pytest.approx(8 * one["tokens_per_second"])
    for a, b in zip(one["stages"][1:], eight["stages"][1:]):
        assert a["dollars"] == pytest.approx(b["dollars"])
    steps = load_config("a100").training.stage1_steps
    assert eight["stages"][1]["hours"] == pytest.approx(
        steps * 64 * eight["positions"] / eight["tokens_per_second"] / 3600
    )


def test_a_24_gb_card_answers(paper):
    rows = {row["weights"]: row for row in inference(paper[0])}
    assert rows["bf16"]["kv_bytes"] == 57_344
    assert rows["bf16"]["gib"]["16k"] > rows["int8"]["gib"]["16k"] > rows["nf4"]["gib"]["16k"]
    assert rows["bf16"]["gib"]["1k"] > 16_630_358_528 / GIB
    assert rows["nf4"]["fits"]["16k"]
    step = rows["bf16"]["real_time"] / 31.25 * 936e9  # bytes a step: all matrices, and the cache of 4096 positions
    assert step == pytest.approx(2 * paper[1].matrices + 57_344 * 4096)


@pytest.mark.parametrize("arguments", (
    ["--profile", "a100", "--gpus", "8"], ["--gpus", "8", "--memory", "40", "--fsdp", "--gpu", "h100"],
    ["--profile", "laptop", "--size", "nano", "--memory", "80"], ["--profile", "laptop", "--part", "2"],
))  # fmt: skip
def test_the_command_prints_a_table_or_one_object(capsys, arguments):
    assert main(["plan", *arguments]) == 0
    out = capsys.readouterr().out
    assert "memory of one GPU" in out and "stage 3" in out and "nf4" in out
    assert max(map(len, out.splitlines())) <= 120
    assert main(["plan", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"peak_gib", "tokens_per_second", "memory_gib", "stages", "cards", "inference"} <= set(found)


def test_the_readme_shows_what_the_command_prints(capsys):
    command = ["plan", "--profile", "a100", "--gpus", "8"]
    assert main(command) == 0
    shown = f"$ python -m a2lite {' '.join(command)}\n{capsys.readouterr().out}```"
    assert shown in (a2lite.ROOT / "README.md").read_text(encoding="utf-8"), "paste the new table into README.md"


@pytest.mark.parametrize("arguments, said", (
    (["--memory", "10"], "10 GB: 1 example at once needs"), (["--gpus", "100"], "a batch of 64 has not one example"),
    (["--gpus", "0"], "gpus 0: expected at least 1"), (["--memory", "24"], "--part 1 fits"),
    (["--part", "0"], "part 0: expected at least 1"), (["--answer", "0"], "expected more than 0"),
    (["--utilisation", "2"], "utilisation 2.0: expected a share"), (["--memory", "nan"], "memory nan: expected"),
))  # fmt: skip
def test_what_cannot_be_ends_in_one_line(capsys, arguments, said):
    assert main(["plan", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_a_run_is_compared_with_its_plan(tmp_path, capsys):
    config = load_config("laptop", "nano")
    planned = estimate(config, Setup(2, checkpointing=config.training.gradient_checkpointing))
    measured = dict(peak_gib=2 * planned["peak_gib"], tokens_per_second=planned["tokens_per_second"] / 4, gpus=2,
                    stage="stage 1")  # fmt: skip
    assert [row["ratio"] for row in compare(planned, measured)] == pytest.approx([2, 0.25])
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    (tmp_path / "plan.json").write_text(json.dumps(planned))
    assert main(["plan", "--compare", str(tmp_path), "--json"]) == 0
    assert [row["ratio"] for row in json.loads(capsys.readouterr().out)] == pytest.approx([2, 0.25])
    assert main(["plan", "--compare", str(tmp_path)]) == 0
    assert "peak_gib" in capsys.readouterr().out
    (tmp_path / "measured.json").write_text(json.dumps(measured | dict(device="cpu")))
    assert main(["plan", "--compare", str(tmp_path)]) == 2
    assert "was measured on a CPU; the plan is for GPUs" in capsys.readouterr().err
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    (tmp_path / "plan.json").unlink()  # then the plan is made now, of the arguments
    nano = ["plan", "--compare", str(tmp_path), "--profile", "laptop", "--size", "nano", "--json"]
    assert main(nano) == 0
    assert [row["ratio"] for row in json.loads(capsys.readouterr().out)] == pytest.approx([2, 0.25])
    assert main([*nano, "--gpus", "1"]) == 2
    assert "measured on 2 GPUs, planned for 1" in capsys.readouterr().err
    assert main(["plan", "--compare", str(tmp_path / "none.json")]) == 2
    assert "none.json: no such file" in capsys.readouterr().err
    (tmp_path / "measured.json").write_text(json.dumps(dict(measured, gpus="two")))
    assert main(nano) == 2
    assert "gpus two: expected at least 1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected what estimate gives"):
        compare({}, measured)
    with pytest.raises(ValueError, match="expected peak_gib or tokens_per_second"):
        compare(planned, dict(gpus=2))


# ---------------------------------------------------------------- benchmarks/full_size.py, benchmarks/shapes.py


def numbers(found):
    if isinstance(found, dict | list):
        for value in found.values() if isinstance(found, dict) else found:
            yield from numbers(value)
    elif isinstance(found, int | float):
        yield found


def test_the_full_size_benchmark_runs_dry(capsys):
    dry = ["--size", "nano", "--device", "cpu", "--examples", "2", "--answer", "2", "--rounds", "1", "--peak", "1"]
    assert full_size.main([*dry, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (run,) = found["runs"]
    for stage in full_size.STAGES:
        row = run[stage]
        assert {"tokens_per_second", "peak_gib", "mfu", "plan", "first_loss", "seconds"} <= set(row)
        assert [figure["name"] for figure in row["plan"]] == ["peak_gib", "tokens_per_second"]
        assert row["plan"][0]["ratio"] == pytest.approx(1, abs=0.3)
        assert 0 < row["mfu"] < 0.35 and row["where"]["top"]  # slower than the bar: it says why
        assert row["tokens_per_second"] == pytest.approx(run["positions"] / row["seconds"])
    assert all(map(math.isfinite, numbers(found)))


def test_at_the_papers_width_a_step_holds_and_computes_what_the_plan_says(capsys):
    """Two layers of the full-size model, every tensor of the true code by its shape; all 28 take a minute."""
    config = load_config("a100").override(backbone=dict(layers=2, encoder_layers=2), connector=dict(layers=2))
    for checkpointing in (True, False):
        found = shapes.trace(config, Shape(16), checkpointing)
        assert found["peak_ratio"] == pytest.approx(1, abs=0.15)
        assert found["flops_ratio"] == pytest.approx(1, abs=0.15)
    assert shapes.main(["--size", "nano", "--examples", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["examples"] == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_benchmark_says_so(capsys):
    assert full_size.main([]) == 2
    assert capsys.readouterr().err == "full_size: no CUDA GPU here; --size nano --device cpu is the dry run\n"


def test_the_cards_of_plan_and_benchmark_agree():
    assert {name.upper(): card.tflops for name, card in CARDS.items()}.items() <= full_size.PEAKS.items()
