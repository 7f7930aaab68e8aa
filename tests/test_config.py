"""The configuration: the paper's numbers at a100, smaller profiles beside, unknown names refused."""

import pytest

from a2lite.config import PROFILES, load_config


def test_a100_is_the_paper():
    config = load_config("a100")
    assert (config.rvq.group, config.rvq.quantizers, config.rvq.codes, config.rvq.latent) == (5, 6, 256, 256)
    assert (config.connector.width, config.connector.layers, config.connector.heads) == (768, 6, 12)
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (64, 32, 0.05)
    assert (config.training.lora_lr, config.training.connector_lr) == (1e-4, 1e-5)


@pytest.mark.parametrize("profile", PROFILES)
def test_no_profile_bends_the_papers_learning_rates_or_loss_weights(profile):
    paper, config = load_config("a100"), load_config(profile)
    for name in ("lr", "commitment", "lips_weight", "face_weight", "velocity_weight", "acceleration_weight"):
        assert getattr(config.rvq, name) == getattr(paper.rvq, name)
    assert config.training.lora_lr == paper.training.lora_lr
    assert config.training.connector_lr == paper.training.connector_lr


def test_tiny_has_the_nets_of_laptop():
    tiny, laptop = load_config("tiny"), load_config("laptop")
    assert tiny.connector == laptop.connector and tiny.lora == laptop.lora
    assert tiny.backbone.hidden == laptop.backbone.hidden and tiny.rvq.width == laptop.rvq.width


def test_unknown_names_are_refused_in_one_line():
    with pytest.raises(ValueError, match="profile 'huge': expected one of tiny, laptop, a100"):
        load_config("huge")
    with pytest.raises(ValueError, match="size 'big'"):
        load_config("tiny", size="big")
    with pytest.raises(ValueError, match="config section 'rqv'"):
        load_config().override(rqv={})
    with pytest.raises(ValueError, match="config field rvq.'groups'"):
        load_config().override(rvq=dict(groups=4))
