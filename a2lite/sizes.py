"""How many parameters the models of a profile have, without making them: ``python -m a2lite sizes --profile a100``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from a2lite.a2llm import A2LLM
from a2lite.backbone import CONTROL, Backbone
from a2lite.backbone.step_audio import CODES, ROWS
from a2lite.config import PROFILES, SIZES, Config, load_config
from a2lite.rvq import MotionRVQ


@dataclass(frozen=True)
class Rows:
    """As much of a vocabulary as a network needs to know of it: the rows of its embedding."""

    count: int
    endoftext: int
    eot: int

    def __len__(self) -> int:
        return self.count


def empty_backbone(config: Config) -> Backbone:
    """The profile's audio language model on the meta device: shapes without numbers."""
    text, codes = config.backbone.text_vocab, config.backbone.audio_codes
    rows = ROWS if codes == CODES else text + len(CONTROL) + codes + 1
    with torch.device("meta"):
        return Backbone(config.backbone, Rows(rows, text, text + 1))


def sizes(config: Config) -> dict[str, int]:
    """Parameters of each model; the connector's learned first memory and its positions are counted apart."""
    with torch.device("meta"):
        rvq, backbone = MotionRVQ(config.rvq), empty_backbone(config)
        whole = count(backbone)
        model = A2LLM(config, backbone, rvq)
    connector = dict(model.connector.named_parameters())
    apart = {name: p for name, p in connector.items() if name == "first_memory" or "position" in name}
    return {
        "backbone": whole,
        "lora": sum(p.numel() for name, p in model.backbone.named_parameters() if "lora" in name),
        "connector": sum(p.numel() for p in connector.values()) - sum(p.numel() for p in apart.values()),
        "connector_positions": sum(p.numel() for p in apart.values()),
        "rvq": count(rvq) + sum(b.numel() for name, b in rvq.named_buffers() if name.endswith("codebooks")),
    }


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def main(argv: Sequence[str]) -> int:
    """``python -m a2lite sizes [--profile a100] [--json]``"""
    parser = argparse.ArgumentParser(prog="python -m a2lite sizes", description=__doc__)
    parser.add_argument("--profile", default="a100", choices=PROFILES)
    parser.add_argument("--size", choices=[name for name in SIZES if name], help="shrunk, for tests")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else on stdout")
    args = parser.parse_args(argv)
    found = sizes(load_config(args.profile, args.size))
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:20} {number:>15,}" for name, number in found.items()))
    return 0
