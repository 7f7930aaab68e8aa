"""The Motion Connector: the paper's size, streaming equals teacher forcing, padding and history behave."""

import pytest
import torch
from torch import nn

from a2lite.config import load_config
from a2lite.connector import MotionConnector, motion_loss

NANO = load_config("tiny", size="nano")


def codebooks():
    return torch.randn(NANO.rvq.quantizers, NANO.rvq.codes, 8, generator=torch.Generator().manual_seed(2))


def connector(**changes):
    torch.manual_seed(0)
    config = NANO.override(connector=changes).connector
    return MotionConnector(config, NANO.rvq, hidden=24, codebooks=codebooks()).eval()


def states(batch, tokens):
    return torch.randn(batch, tokens * NANO.rvq.group, 24, generator=torch.Generator().manual_seed(1))


def test_the_papers_sizes_give_012_billion_parameters():
    config = load_config("a100")
    with torch.device("meta"):
        model = MotionConnector(config.connector, config.rvq, config.backbone.hidden)
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e9, 2) == 0.12
    decoder = sum(p.numel() for layer in model.layers for p in layer.parameters())
    reference = nn.TransformerDecoderLayer(768, 12, device="meta")
    assert decoder == 6 * sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize("how", [dict(sharpness=3.0), dict(sharpness=None), dict(sharpness=None, heads_kind="depth")])
@pytest.mark.parametrize("self_attention", [True, False])
@pytest.mark.parametrize("segment", [1, 2, 5])
def test_teacher_forcing_on_its_own_codes_reproduces_generation(how, self_attention, segment):
    model = connector(self_attention=self_attention, **how)
    hidden = states(2, 13)
    codes = model.generate(hidden, segment)
    logits = model(hidden, codes, torch.tensor([13, 13]), segment)
    assert torch.equal(model.choose(logits), codes)


def test_generation_of_a_ragged_batch_equals_each_answer_alone():
    model, hidden = connector(), states(2, 12)
    together = model.generate(hidden, lengths=torch.tensor([12, 7]))
    assert torch.equal(together[:1], model.generate(hidden[:1]))
    assert torch.equal(together[1:, :7], model.generate(hidden[1:, : 7 * NANO.rvq.group]))


def test_an_unknown_kind_of_heads_is_refused():
    with pytest.raises(ValueError, match="heads_kind 'deep': expected 'parallel' or 'depth'"):
        connector(heads_kind="deep")


def test_sharpness_gives_the_codes_of_the_mean_latent():
    model, books = connector(sharpness=1.0), codebooks()
    logits = torch.full((1, 1, NANO.rvq.quantizers, NANO.rvq.codes), -1e3)
    logits[0, 0, 0, [3, 5]] = 0.0  # two candidates at the first level, one at the others
    logits[0, 0, 1:, 7] = 0.0
    mean = (books[0, 3] + books[0, 5]) / 2 + books[1:, 7].sum(0)
    for level, book in enumerate(books):  # Eq. 3, by hand
        code = (mean - book).square().sum(1).argmin()
        assert model.choose(logits)[0, 0, level] == code
        mean = mean - book[code]


def test_sharpness_needs_codebooks_and_parallel_heads():
    with pytest.raises(ValueError, match="sharpness 2.0: expected codebooks"):
        MotionConnector(NANO.connector, NANO.rvq, hidden=24)
    with pytest.raises(ValueError, match="sharpness 2.0 with heads_kind 'depth': expected None, or parallel heads"):
        connector(heads_kind="depth")


def test_a_ragged_batch_equals_each_answer_alone():
    model, hidden = connector(), states(2, 9)
    codes = torch.randint(NANO.rvq.codes, (2, 9, NANO.rvq.quantizers))
    together = model(hidden, codes, torch.tensor([9, 4]))
    alone = model(hidden[1:, : 4 * NANO.rvq.group], codes[1:, :4], torch.tensor([4]))
    torch.testing.assert_close(together[1:, :4], alone, atol=1e-5, rtol=1e-5)


def test_a_segment_sees_the_one_before_and_nothing_after():
    model, hidden = connector(), states(1, 15)
    codes = torch.randint(NANO.rvq.codes, (1, 15, NANO.rvq.quantizers))
    changed = codes.clone()
    changed[:, 5:10] = (changed[:, 5:10] + 1) % NANO.rvq.codes
    before, after = (model(hidden, c, torch.tensor([15])) for c in (codes, changed))
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


def test_history_is_spoiled_in_training_only():
    model = connector(code_replacement=1.0, memory_dropout=0.0, dropout=0.0)
    codes = torch.zeros(8, 5, NANO.rvq.quantizers, dtype=torch.long)
    spoiled = model._spoil(codes)
    assert (spoiled[..., 0] == 0).all() and (spoiled[..., -1] != 0).any()
    hidden, lengths = states(1, 10), torch.tensor([10])
    same = torch.zeros(1, 10, NANO.rvq.quantizers, dtype=torch.long)
    torch.testing.assert_close(model(hidden, same, lengths), model(hidden, same, lengths))


def test_training_draws_segments_of_every_length(monkeypatch):
    model, seen = connector().train(), set()
    monkeypatch.setattr(model, "decode", lambda queries, *rest: seen.add(queries.shape[1]) or queries)
    codes = torch.zeros(1, 10, NANO.rvq.quantizers, dtype=torch.long)
    for _ in range(40):
        model(states(1, 10), codes, torch.tensor([10]))
    assert seen == {1, 2, 5}


def test_the_loss_sums_levels_and_ignores_padding():
    logits = torch.zeros(1, 4, 3, 16)
    codes = torch.zeros(1, 4, 3, dtype=torch.long)
    logits[:, 2:] = 100 * torch.eye(16)[5]
    terms = motion_loss(logits, codes, torch.tensor([2]))
    assert float(terms["motion"]) == pytest.approx(3 * torch.log(torch.tensor(16.0)).item(), rel=1e-5)


def test_it_learns_codes_that_follow_from_the_states():
    torch.manual_seed(0)
    model = connector(dropout=0.0, sharpness=None).train()
    hidden = torch.randn(4, 50, 24)
    codes = (hidden[:, ::5, :3] > 0).long()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    lengths = torch.full((4,), 10)
    for _ in range(80):
        loss = motion_loss(model(hidden, codes, lengths), codes, lengths)["motion"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model.eval().generate(hidden) == codes).float().mean() > 0.95


def test_too_few_states_are_refused():
    with pytest.raises(ValueError, match="H has 3 states: expected at least 5"):
        connector().queries(torch.randn(1, 3, 24))


def test_a_segment_may_be_longer_than_those_of_training():
    hidden = states(2, 14)
    assert connector(segment=7).generate(hidden).shape == (2, 14, NANO.rvq.quantizers)


def test_an_answer_without_a_motion_token_has_no_codes():
    assert connector().generate(states(2, 0)).shape == (2, 0, NANO.rvq.quantizers)
