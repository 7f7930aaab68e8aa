"""Step-Audio-2-mini as it is published: a folder of shards straight into our modules, without remote code.

832 tensors under the names of our own modules: ``model.*`` and ``lm_head`` of Qwen2, ``encoder.*``, ``adapter.*``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen2Tokenizer

from a2lite.backbone.model import Backbone
from a2lite.backbone.tokens import Vocabulary
from a2lite.config import BackboneConfig
from a2lite.fit import Progress

INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs"
CODES = 6561  # of the S3 tokenizer, 3^8; the checkpoint registers more names than it uses
ROWS = 158720  # of its embedding, more than it has tokens
LANGUAGE = {  # fields of config.json -> ours
    "hidden_size": "hidden", "num_hidden_layers": "layers", "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads", "intermediate_size": "intermediate", "rope_theta": "rope_theta",
    "max_position_embeddings": "max_positions",
}  # fmt: skip
LISTENING = {
    "n_mels": "n_mels", "n_audio_ctx": "encoder_context", "n_audio_state": "encoder_width",
    "n_audio_head": "encoder_heads", "n_audio_layer": "encoder_layers",
}  # fmt: skip


def from_pretrained(
    path: str | Path, config: BackboneConfig | None = None, device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> Backbone:
    """The backbone out of a Step-Audio-2-mini checkpoint folder, in eval mode on ``device``.

    ``config`` gives what config.json does not tell (prompts, the adapter's width, which state is H); sizes are the
    folder's. Tensors go to ``device`` one by one, so that the host never holds the whole. FileNotFoundError or
    ValueError in one line for a missing shard, a Git LFS pointer, a tensor of another shape or name, another model.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder; expected the files of stepfun-ai/Step-Audio-2-mini")
    told = _json(path / "config.json")
    config = _sizes(path / "config.json", told, config or BackboneConfig())
    vocabulary = read_vocabulary(path, told["text_config"]["vocab_size"])
    shards = _json(path / INDEX).get("weight_map")
    if not isinstance(shards, dict):
        raise ValueError(f"{path / INDEX}: has no weight_map; download it again")
    with torch.device("meta"):
        model = Backbone(replace(config, text_vocab=vocabulary.texts, audio_codes=vocabulary.codes), vocabulary)
    _check_names(path, model, shards)
    _fill(path, model, shards, torch.device(device), dtype)
    return model.eval()


def read_config(path: str | Path, config: BackboneConfig | None = None) -> BackboneConfig:
    """``config`` with the sizes of the folder's files: what ``from_pretrained`` makes a model of, without a weight."""
    path = Path(path).expanduser()
    told = _json(path / "config.json")
    config = _sizes(path / "config.json", told, config or BackboneConfig())
    vocabulary = read_vocabulary(path, told["text_config"]["vocab_size"])
    return replace(config, text_vocab=vocabulary.texts, audio_codes=vocabulary.codes)


def read_vocabulary(path: Path, rows: int) -> Vocabulary:
    """The folder's tokenizer: ``tokenizer.json`` where it is more than a pointer, else its tables."""
    whole = path / "tokenizer.json"
    try:
        if whole.is_file() and not whole.read_bytes().startswith(POINTER):
            tokenizer = Tokenizer.from_file(str(whole))
        else:
            for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
                _check_file(path / name)
            tokenizer = Qwen2Tokenizer.from_pretrained(str(path), local_files_only=True).backend_tokenizer
    except (FileNotFoundError, ValueError):
        raise
    except Exception as error:  # the tokenizers library raises no other kind
        raise ValueError(f"{path}: its tokenizer cannot be read ({error}); download its files again") from None
    codes = CODES if tokenizer.token_to_id(f"<audio_{CODES}>") else None  # a small one's last name is its pad
    return Vocabulary(tokenizer, codes, rows)


def published_name(name: str) -> str:
    """The name of one of our tensors in the checkpoint."""
    return name.removeprefix("lm.")


# ---------------------------------------------------------------- reading


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is missing; download it again")
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ValueError(f"{path}: is a Git LFS pointer, not the file; fetch it with git lfs pull")


def _json(path: Path) -> dict[str, Any]:
    _check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; expected an object")
    return content


def _sizes(path: Path, told: dict[str, Any], config: BackboneConfig) -> BackboneConfig:
    """``config`` with the sizes that config.json tells."""
    if told.get("model_type") != "step_audio_2":
        raise ValueError(f"{path}: is of model_type {told.get('model_type')!r}; expected 'step_audio_2'")
    found = {}
    for section, names in (("text_config", LANGUAGE), ("audio_encoder_config", LISTENING)):
        for theirs, ours in names.items():
            value = told.get(section, {}).get(theirs)
            if not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"{path}: {section}.{theirs} is {value!r}; expected a number above 0")
            found[ours] = value
    if not isinstance(told["text_config"].get("vocab_size"), int):
        raise ValueError(f"{path}: text_config has no vocab_size; download it again")
    lite = dict(encoder_local=0, encoder_pool_first=False, encoder_window=0, lite_embedding_std=None)
    return replace(config, **found, **lite, tie_embeddings=False)


def _check_names(path: Path, model: nn.Module, shards: dict[str, str]) -> None:
    ours = {published_name(name) for name in model.state_dict()}
    for names, what in ((sorted(ours - set(shards)), "lacks"), (sorted(set(shards) - ours), "has an unknown")):
        if names:
            raise ValueError(f"{path / INDEX}: {what} {names[0]} ({len(names)} in all); another Step-Audio?")
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard:
            raise ValueError(f"{path / INDEX}: names a shard {shard!r}; expected a file of the folder")
        _check_file(path / shard)


def _fill(path: Path, model: Backbone, shards: dict[str, str], device: torch.device, dtype: torch.dtype) -> None:
    """Every tensor from its shard onto the device; what no checkpoint holds is made anew."""
    wanted = {published_name(name): (name, tensor.shape) for name, tensor in model.state_dict().items()}
    progress, done = Progress("reading", len(wanted)), 0
    for shard in sorted(set(shards.values())):
        state = {}
        try:
            with safe_open(path / shard, "pt") as file:
                held = set(file.keys())
                for name in (name for name, where in shards.items() if where == shard):
                    ours, shape = wanted[name]
                    if name not in held:
                        raise ValueError(f"{path / shard}: lacks {name}, which the index places there")
                    found = tuple(file.get_slice(name).get_shape())
                    if found != tuple(shape):
                        raise ValueError(f"{path / shard}: {name} is {found}; expected {tuple(shape)}")
                    state[ours] = file.get_tensor(name).to(device, dtype)
                    done += 1
                    progress.update(done)
        except SafetensorError as error:
            raise ValueError(f"{path / shard}: cannot be read ({error}); download it again") from None
        model.load_state_dict(state, strict=False, assign=True)
    inner = model.lm.model
    inner.rotary_emb = type(inner.rotary_emb)(model.lm.config).to(device)
