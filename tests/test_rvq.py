"""The motion tokenizer: streaming equals offline, Eq. 3 against another library, dead codes and their remedy."""

from dataclasses import replace

import pytest
import torch
from vector_quantize_pytorch import ResidualVQ

from a2lite.config import load_config
from a2lite.fit import load_checkpoint, save_checkpoint
from a2lite.flame import Flame, load_head
from a2lite.rvq import Geometry, MotionRVQ, ResidualQuantizer, load, magnitudes, quality, train, usage, weights
from a2lite.rvq.loss import spread, squared_norm
from a2lite.rvq.training import Crops

NANO = load_config("tiny", size="nano").rvq
LAPTOP = load_config("laptop").rvq


def nano(**changes):
    return load_config("tiny", size="nano").override(rvq=changes).rvq


def model(**changes):
    torch.manual_seed(0)
    return MotionRVQ(nano(**changes)).eval()


def random_codes(config, tokens, batch=2):
    draw = torch.Generator().manual_seed(1)
    return torch.randint(config.codes, (batch, tokens, config.quantizers), generator=draw)


@pytest.fixture(scope="module")
def motions():
    """Smooth motion of 12 independent sources in 58 dimensions: 24 clips of 100 frames."""
    draw = torch.Generator().manual_seed(2)
    time = torch.arange(100) / 25
    rate, phase = 0.5 + 2 * torch.rand(24, 12, generator=draw), 6.3 * torch.rand(24, 12, generator=draw)
    sources = torch.sin(6.3 * rate[:, None] * time[:, None] + phase[:, None])  # (24, 100, 12)
    return list(sources @ torch.randn(12, 58, generator=draw) * 0.3)


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def performance(head):
    """A jaw that opens and shuts, a smile that comes and goes, a head that turns: (2, 20, 58)."""
    motion = torch.zeros(2, 20, 58)
    wave = torch.sin(torch.linspace(0, 9, 20))
    motion[:, :, :50] = head.expression(smile=wave.clamp(min=0), funnel=(-wave).clamp(min=0))
    motion[:, :, 50] = 0.15 * (1 + wave)
    motion[1, :, 54] = 0.3 * wave
    return motion


# ---------------------------------------------------------------- streaming, codes, shapes


@pytest.mark.parametrize("levels", [None, 1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_streaming_equals_offline_for_any_chunking(seed, levels):
    rvq, codes = model(), random_codes(NANO, 23)
    draw, stream, pieces, start = torch.Generator().manual_seed(seed), rvq.stream(levels), [], 0
    while start < codes.shape[1]:
        size = int(torch.randint(1, 6, (), generator=draw))
        pieces.append(stream.step(codes[:, start : start + size]))
        start += size
    torch.testing.assert_close(torch.cat(pieces, 1), rvq.decode(codes, levels), atol=1e-5, rtol=0)


def test_streaming_equals_offline_at_the_papers_size():
    torch.manual_seed(0)
    rvq, codes = MotionRVQ(LAPTOP).eval(), random_codes(LAPTOP, 12)
    stream = rvq.stream()
    pieces = [stream.step(codes[:, n : n + 1]) for n in range(12)]
    assert all(piece.shape == (2, 5, 58) for piece in pieces)  # each code yields its motion at once
    torch.testing.assert_close(torch.cat(pieces, 1), rvq.decode(codes), atol=1e-5, rtol=0)


def test_the_decoder_never_looks_ahead_and_the_encoder_may():
    rvq, codes = model(), random_codes(NANO, 10)
    changed = codes.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % NANO.codes
    before, after = rvq.decode(codes), rvq.decode(changed)
    torch.testing.assert_close(before[:, :30], after[:, :30])
    assert not torch.allclose(before[:, 30:35], after[:, 30:35])


@pytest.mark.parametrize("frames", [1, 4, 5, 6, 43, 50])
def test_any_length_is_padded_by_its_last_frame(frames):
    rvq, motion = model(), torch.randn(2, frames, 58)
    codes = rvq.encode(motion)
    assert codes.shape == (2, -(-frames // 5), NANO.quantizers) and codes.dtype == torch.int64
    held = torch.cat([motion, motion[:, -1:].expand(-1, -frames % 5, -1)], 1)
    assert torch.equal(codes, rvq.encode(held))
    assert rvq(motion)[0].shape == motion.shape


def test_the_papers_sizes():
    rvq = MotionRVQ(load_config("a100").rvq)
    assert rvq.quantizer.codebooks.shape == (6, 256, 256)
    assert rvq.encode(torch.zeros(1, 100, 58)).shape == (1, 20, 6)  # 25 fps -> 5 Hz
    assert rvq.config.vertices is None and weights(rvq.config)["lips"] == 1e5


def test_codes_stand_for_vectors(motions):
    rvq, batch = model(), torch.stack(motions[:4])
    codes = rvq.encode(batch)
    assert torch.equal(codes, rvq.encode(batch))
    q, again = rvq.quantise(rvq.latents(batch))
    assert torch.equal(again, codes)
    torch.testing.assert_close(rvq.quantizer.vectors(codes), q)
    recon = rvq(batch)[0]
    torch.testing.assert_close(rvq.decode(codes), recon, atol=1e-5, rtol=1e-5)


def test_encoding_in_training_mode_leaves_the_codebooks_alone(motions):
    rvq = model().train()
    before = rvq.quantizer.codebooks.clone()
    rvq.encode(torch.stack(motions[:4]))
    assert torch.equal(before, rvq.quantizer.codebooks)


# ---------------------------------------------------------------- Eq. 3 and 4


def test_residual_quantisation_agrees_with_vector_quantize_pytorch():
    config = nano(quantizers=4, codes=32)
    ours = ResidualQuantizer(config)
    ours.codebooks.normal_(generator=torch.Generator().manual_seed(3))
    theirs = ResidualVQ(dim=config.latent, num_quantizers=4, codebook_size=32).eval()
    for layer, codebook in zip(theirs.layers, ours.codebooks, strict=True):
        layer._codebook.embed.data.copy_(codebook[None])
    z = 3 * torch.randn(2, 50, config.latent)
    q, codes = ours(z)
    their_q, their_codes, _ = theirs(z)
    assert torch.equal(codes, their_codes)
    torch.testing.assert_close(q, their_q, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.vectors(codes), theirs.get_output_from_indices(codes), atol=1e-5, rtol=1e-5)


def test_each_level_quantises_what_the_levels_above_left():
    quantizer = ResidualQuantizer(nano())
    quantizer.codebooks.normal_(generator=torch.Generator().manual_seed(3))
    z = torch.randn(200, NANO.latent)
    codes = quantizer(z)[1]
    for level in range(NANO.quantizers):
        residual = z - (quantizer.vectors(codes, level) if level else 0)
        distance = torch.cdist(residual, quantizer.codebooks[level])
        assert torch.equal(distance.argmin(1), codes[:, level])


def test_the_straight_through_gradient_skips_the_quantiser():
    rvq = model(param_weight=1.0, vq_weight=0.0)
    seen = {}
    rvq.encoder.register_forward_hook(lambda *args: args[-1].retain_grad() or seen.update(z=args[-1]))
    rvq.decoder.register_forward_hook(lambda module, inputs, out: inputs[0].retain_grad() or seen.update(q=inputs[0]))
    rvq(torch.randn(2, 20, 58))[2]["loss"].backward()
    assert seen["z"].grad.abs().sum() > 0
    torch.testing.assert_close(seen["z"].grad, seen["q"].grad)


def test_eq_4_moves_the_codebook_by_gradient_and_ema_by_averages(motions):
    batch = torch.stack(motions[:8])
    literal, ema = model(codebook="gradient"), model().train()
    losses = literal(batch)[2]
    losses["loss"].backward()
    assert literal.quantizer.codebooks.grad.abs().sum() > 0
    torch.testing.assert_close(losses["codebook"], losses["commitment"])  # equal in value, not in gradient
    before = ema.quantizer.codebooks.clone()
    assert "codebook" not in ema(batch)[2]
    assert not torch.equal(before, ema.quantizer.codebooks)


@pytest.fixture(scope="module")
def trained(motions, tmp_path_factory):
    path = tmp_path_factory.mktemp("rvq") / "rvq.safetensors"
    return path, *train(nano(codes=48, batch=16, lite_lr=5e-3, lite_steps=150), motions, path)


def test_ema_uses_its_codes_and_eq_4_taken_literally_does_not(motions, trained):
    _, rvq, trace = trained
    config = replace(rvq.config, codebook="gradient", lite_steps=60)
    literal, _ = train(config, motions)
    clips = torch.stack(motions)
    alive, _ = usage(rvq.encode(clips), 48)
    dead, perplexity = usage(literal.eval().encode(clips), 48)
    assert min(alive) >= 0.85
    assert min(dead) <= 0.5 and perplexity[0] < 16
    assert trace.values["param"][-1] < 0.7 * trace.values["param"][0]


# ---------------------------------------------------------------- checkpoints and data


def test_a_checkpoint_returns_the_same_codes_and_does_not_start_again(motions, trained):
    path, rvq, trace = trained
    again, clips = load(path), torch.stack(motions)
    assert torch.equal(again.encode(clips), rvq.encode(clips))
    assert again.quantizer.started and not again.training
    assert load_checkpoint(path)[1]["trace"]["values"]["loss"] == trace.values["loss"]
    before = again.quantizer.codebooks.clone()
    again.train()(clips)
    moved = (again.quantizer.codebooks - before).norm(dim=-1) / before.norm(dim=-1)
    assert 0 < moved.median() < 0.1  # an EMA step, not a new k-means


def test_foreign_checkpoints_are_refused_in_one_line(tmp_path):
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, torch.nn.Linear(2, 2), NANO)
    with pytest.raises(ValueError, match="other.safetensors: holds no motion RVQ") as error:
        load(path)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="missing.safetensors"):
        load(tmp_path / "missing.safetensors")


def test_quiet_parameters_stay_quiet():
    motion = torch.randn(200, 58)
    motion[:, 45:50] *= 1e-6
    rvq = MotionRVQ.from_motions(NANO, [motion[:80], motion[80:]])
    normalised = rvq.normalise(motion)
    assert normalised[:, 45:50].abs().max() < 1e-2
    torch.testing.assert_close(normalised[:, :45].std(0), torch.ones(45))
    torch.testing.assert_close(rvq.denormalise(normalised), motion)


def test_crops_depend_on_the_step_alone_and_hold_the_end_of_short_clips():
    clips = [torch.full((3, 58), 1.0), torch.arange(60.0)[:, None].expand(60, 58)]
    crops = Crops(clips, crop=40, batch=64, seed=5)
    assert torch.equal(crops(7), crops(7)) and not torch.equal(crops(7), crops(8))
    batch = crops(0)
    assert batch.shape == (64, 40, 58)
    steps = batch[..., 0].diff(dim=1)
    assert ((steps == 1).all(1) | (steps == 0).all(1)).all()  # a crop never runs from one clip into the next
    drawn = torch.cat([crops(step)[:, 0, 0] for step in range(20)])
    assert drawn.max() == 20  # the last crop that fits


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(torch.zeros(20, 58)), r"motion \(20, 58\): expected \(B, T, 58\)"),
        (lambda m: m.encode(torch.zeros(1, 20, 57)), r"expected \(B, T, 58\)"),
        (lambda m: m.encode(torch.zeros(1, 0, 58)), "with T > 0"),
        (lambda m: m.encode(torch.full((1, 5, 58), torch.nan)), "NaN"),
        (lambda m: m.decode(torch.zeros(1, 4, 9, dtype=torch.long)), r"codes \(1, 4, 9\): expected \(B, N, 3\)"),
        (lambda m: m.decode(torch.full((1, 4, 3), 16)), "codes 16 to 16: expected 0 to 15"),
        (lambda m: m.decode(random_codes(NANO, 2), levels=4), "levels 4: expected 1 to 3"),
        (lambda m: MotionRVQ(nano(codebook="magic")), "rvq.codebook 'magic': expected 'ema' or 'gradient'"),
        (lambda m: MotionRVQ(nano(reduction="max")), "rvq.reduction 'max': expected 'mean' or 'sum'"),
        (lambda m: MotionRVQ(nano(param_space="log")), "rvq.param_space 'log'"),
    ],
)
def test_mistakes_end_in_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(model())
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- Eq. 7-10


def test_the_terms_are_those_of_eq_7_to_10(head, performance):
    flame, config = Flame(head), nano(vertices=None)
    geometry = Geometry.of(flame, head.regions, len(head.v_template), config)
    rvq = model(vertices=None)
    recon, _, losses = rvq(performance, geometry)
    truth, guess = (flame(m, zero_pose=True) for m in (performance, recon))
    off = truth - guess  # (2, 20, 5023, 3)
    expected = dict(
        param=((performance - recon) ** 2).mean(),
        lips=(off[:, :, head.regions["lips"]] ** 2).sum(-1).mean(),
        face=(off[:, :, head.regions["face"]] ** 2).sum(-1).mean(),
        velocity=((off[:, 1:] - off[:, :-1]) ** 2).sum(-1).mean(),
        acceleration=((off[:, 2:] - 2 * off[:, 1:-1] + off[:, :-2]) ** 2).sum(-1).mean(),
    )
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-3, atol=1e-12)
    table = magnitudes(losses, config)
    assert sum(weighted for _, weighted in table.values()) == pytest.approx(losses["loss"].item(), rel=1e-5)


def test_turning_the_head_costs_parameters_but_no_vertices(head, performance):
    geometry = Geometry.of(Flame(head), head.regions, len(head.v_template), NANO)
    turned = performance.clone()
    turned[..., 53:56] += 0.5
    for still, moved in zip(geometry.vertices(performance), geometry.vertices(turned), strict=True):
        torch.testing.assert_close(still, moved)


def test_the_head_stays_where_it_is_when_the_loss_is_measured_elsewhere(head):
    flame = Flame(head)
    there = Geometry.of(flame, head.regions, len(head.v_template), NANO).to("meta")
    assert all(part.is_meta for part in there.vertices(torch.zeros(1, 2, 58, device="meta")))
    assert flame.template.device.type == "cpu"


@pytest.mark.parametrize("term", ["face", "velocity", "acceleration"])
def test_a_subset_of_vertices_gives_the_gradient_of_all(head, performance, term):
    """The gradient that reaches the decoder's output, over the 400 vertices of laptop and over every vertex."""
    flame, recon = Flame(head), performance + 0.1 * torch.randn(performance.shape, generator=torch.manual_seed(4))
    gradients = []
    for vertices in (LAPTOP.vertices, None):
        geometry = Geometry.of(flame, head.regions, len(head.v_template), nano(vertices=vertices))
        leaf = recon.clone().requires_grad_()
        model().reconstruction_terms(performance, leaf, geometry)[term].backward()
        gradients.append(leaf.grad.flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.97
    assert gradients[0].norm() == pytest.approx(float(gradients[1].norm()), rel=0.15)


def test_sums_and_means_differ_by_the_number_of_entries():
    x = torch.randn(2, 7, 30, 3)
    torch.testing.assert_close(squared_norm(x, "sum"), 30 * squared_norm(x, "mean"))
    torch.testing.assert_close(squared_norm(x[..., 0], "sum"), 30 * squared_norm(x[..., 0], "mean"))
    one_millimetre = torch.zeros(1, 1, 30, 3)
    one_millimetre[..., 0] = 1e-3
    assert float(squared_norm(one_millimetre, "mean")) == pytest.approx(1e-6)


def test_a_subset_is_spread_over_the_list():
    vertices = torch.arange(100, 200)
    assert torch.equal(spread(vertices, 500), vertices) and torch.equal(spread(vertices, None), vertices)
    chosen = spread(vertices, 20)
    assert len(chosen) == 20 and 1 <= chosen.diff().min() and chosen.diff().max() <= 10


def test_every_level_brings_the_reconstruction_nearer(head, motions, trained):
    _, rvq, _ = trained
    faces = [0.1 * motion for motion in motions[:3]]
    rows = [
        quality(rvq, faces, Flame(head), head.landmarks, head.regions["upper_face"], level) for level in (1, 2, 3)
    ]
    assert rows[0].error > rows[1].error > rows[2].error
    assert rows[0].usage == rows[2].usage and len(rows[0].usage) == 3  # of the codes, however many are decoded
    assert rows[2].ufd_ratio > 0 and rows[2].measures["temporal"].n == 3


def test_usage_counts_codes_and_perplexity():
    codes = torch.tensor([[0, 0], [0, 1], [0, 2], [0, 3]])
    fraction, perplexity = usage(codes, 8)
    assert fraction == [1 / 8, 4 / 8]
    assert perplexity == pytest.approx([1.0, 4.0])
