"""What training adds to a backbone, as one small folder: LoRA as peft writes it, connector, motion tokenizer.

``save_pretrained`` and ``from_pretrained``. All numbers are kept in float32, in which they are learned:
the base may be in bfloat16 or quantised, and what is computed is the same before and after. At the paper's size
that is 1.1 GB beside the base's 16.6 GB.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from a2lite.a2llm import A2LLM, lora_config
from a2lite.backbone import Backbone
from a2lite.config import Config, load_config
from a2lite.fit import load_checkpoint, save_checkpoint
from a2lite.rvq import load as load_rvq

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
CONNECTOR, RVQ = "connector.safetensors", "rvq.safetensors"
SECTIONS = ("rvq", "connector", "lora", "training")
PREFIX = "base_model.model."  # of every name in peft's files


def lora_weights(lm: nn.Module) -> dict[str, Tensor]:
    """LoRA's parameters in ``lm`` under the names that peft gives them in its files."""
    found = ((name, p) for name, p in lm.named_parameters() if "lora_" in name)
    return {PREFIX + name.replace(".default.", "."): p for name, p in found}


# ---------------------------------------------------------------- writing


def save_pretrained(model: A2LLM, folder: str | Path) -> None:
    """Write the files beside the folder's others, config.json last: it holds a digest of each."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{os.getpid()}.partial"
    partial.mkdir()
    try:
        save_checkpoint(partial / CONNECTOR, model.connector, model.config.connector, half=False)
        save_checkpoint(partial / RVQ, model.rvq, model.rvq.config, half=False)
        if model.lora:
            adapter = lora_config(model.config.lora)
            adapter.inference_mode = True
            adapter.save_pretrained(partial)
            weights = {name: p.detach().cpu().contiguous() for name, p in lora_weights(model.backbone.lm).items()}
            (partial / ADAPTER).write_bytes(save(weights, metadata={"format": "pt"}))
        files = sorted(partial.iterdir())
        told = dict(
            base=model.backbone.identity, reading=model.backbone.reading, codes=model.rvq.identity,
            profile=model.config.profile, size=model.config.size, files={path.name: _digest(path) for path in files},
            **{name: asdict(getattr(model.config, name)) for name in SECTIONS},
        )  # fmt: skip
        (partial / "config.json").write_text(json.dumps(told, indent=2), encoding="utf-8")
        for name in {ADAPTER, ADAPTER_CONFIG} - {path.name for path in files}:
            (folder / name).unlink(missing_ok=True)  # of a model that was saved here before
        for path in (*files, partial / "config.json"):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(partial)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------- reading


def from_pretrained(folder: str | Path, backbone: Backbone) -> A2LLM:
    """What ``save_pretrained`` wrote, on ``backbone`` and its device, in eval mode.

    FileNotFoundError or ValueError in one line for a file missing or torn, another backbone, another reading of H.
    """
    folder = Path(folder)
    told = _told(folder)
    if told["base"] != backbone.identity:
        raise ValueError(f"{folder}: was trained on another backbone ({told['base']}); load that one, or retrain it")
    if told["reading"] != backbone.reading:
        raise ValueError(f"{folder}: H was read otherwise ({told['reading']}); configure it so, or retrain it")
    for name, digest in told["files"].items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: is missing; copy the whole folder again")
        if _digest(folder / name) != digest:
            raise ValueError(f"{folder / name}: is torn, or not the one saved here; copy the whole folder again")
    rvq = load_rvq(folder / RVQ)
    if rvq.identity != told["codes"]:
        raise ValueError(f"{folder / RVQ}: is not the connector's motion tokenizer; copy the whole folder again")
    model = A2LLM(_config(folder, told), backbone, rvq, lora=ADAPTER in told["files"])
    _fill(folder / CONNECTOR, load_checkpoint(folder / CONNECTOR)[0], model.connector.state_dict())
    if model.lora:
        _fill(folder / ADAPTER, load_file(folder / ADAPTER), lora_weights(backbone.lm))
    model.connector.to(backbone.device)
    model.rvq.to(backbone.device)
    return model.eval()


def _told(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is missing; expected a folder written by save_pretrained")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error}); copy the whole folder again") from None
    wanted = {"base", "reading", "codes", "profile", "size", "files", *SECTIONS}
    ours = isinstance(told, dict) and wanted <= set(told) and isinstance(told["files"], dict)
    if not ours or not {CONNECTOR, RVQ} <= set(told["files"]):
        raise ValueError(f"{path}: is no A2-LLM's; expected a folder written by save_pretrained")
    return told


def _config(folder: Path, told: dict[str, Any]) -> Config:
    tuples = lambda section: {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}  # noqa: E731
    try:
        return load_config(told["profile"], told["size"]).override(**{name: tuples(told[name]) for name in SECTIONS})
    except ValueError as error:  # fields that this version does not know
        raise ValueError(f"{folder / 'config.json'}: is of another version ({error}); retrain it") from None


@torch.no_grad()
def _fill(path: Path, found: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    if set(found) != set(own):
        raise ValueError(f"{path}: holds other weights than its config.json says; copy the whole folder again")
    for name, value in found.items():
        if value.shape != own[name].shape:
            raise ValueError(f"{path}: {name} is {tuple(value.shape)}; expected {tuple(own[name].shape)}")
        own[name].copy_(value)
