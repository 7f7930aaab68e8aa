"""Step-Audio-2-mini as it is published: a folder of shards straight into our modules, without remote code.

832 tensors under the names of our own modules: ``model.*`` and ``lm_head`` of Qwen2, ``encoder.*``, ``adapter.*``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from a2lite.backbone.model import ATTENTION, Backbone
from a2lite.backbone.placement import Place, dispatch, place_of, places_of
from a2lite.backbone.tokens import Vocabulary
from a2lite.config import BackboneConfig
from a2lite.fit import Progress
from a2lite.speech.detokenizer import POINTER, check_file

INDEX = "model.safetensors.index.json"
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
    path: str | Path, config: BackboneConfig | None = None, device: Place = "cpu",
    dtype: torch.dtype = torch.bfloat16, device_map: str | dict[str, Place] | None = None,
    quantization_config: QuantizationConfigMixin | None = None,
) -> Backbone:
    """The backbone out of a Step-Audio-2-mini checkpoint folder, in eval mode on ``device``.

    ``config`` gives what config.json does not tell (prompts, the adapter's width, which state is H); sizes are the
    folder's. Tensors go to their device one by one, so that the host never holds the whole.

    ``device_map`` spreads it: "auto", or a device for each module of ``Backbone`` by name. Beside a GPU, "cpu" is
    where a module waits for its turn; "disk" leaves it in the folder's own shards until then. With transformers'
    ``quantization_config`` the language model's matrices are quantised; encoder, adapter and embeddings are not.

    FileNotFoundError or ValueError in one line for a missing shard, a Git LFS pointer, a tensor of another shape or
    name, another model, a device that is not there; ImportError for a quantiser that is not installed.
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
    if quantization_config is not None and device_map is not None:
        raise ValueError("device_map: cannot be had with a quantization_config; give a device instead")
    places = places_of(model, {"": device} if device_map is None else device_map, dtype)
    if quantization_config is not None:
        _quantise(path, model, shards, places[""], dtype, quantization_config)
        shards = {name: shard for name, shard in shards.items() if name.startswith(("encoder.", "adapter."))}
    waiting = _fill(path, model, shards, places, dtype)
    if waiting or len(set(places.values())) > 1:
        dispatch(model, places, waiting)
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
                check_file(path / name)
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


def _json(path: Path) -> dict[str, Any]:
    check_file(path)
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
        check_file(path / shard)


def _fill(
    path: Path, model: Backbone, shards: dict[str, str], places: dict[str, Place], dtype: torch.dtype
) -> dict[str, dict[str, str]]:
    """Every tensor from its shard onto its device; what no checkpoint holds is made anew.

    Returns those that stay on disk: where each is to be read when its turn comes.
    """
    progress, done, waiting = Progress("reading", len(shards)), 0, {}
    for shard in sorted(set(shards.values())):
        state = {}
        with _opened(path / shard) as file:
            for name, ours in _checked(path / shard, file, model, shards):
                if place_of(ours, places) == "disk":
                    kind = str(dtype).removeprefix("torch.")
                    waiting[ours] = dict(safetensors_file=str(path / shard), weight_name=name, dtype=kind)
                    state[ours] = torch.empty(file.get_slice(name).get_shape(), dtype=dtype, device="meta")
                else:
                    state[ours] = file.get_tensor(name).to(place_of(ours, places), dtype)
                done += 1
                progress.update(done)
        model.load_state_dict(state, strict=False, assign=True)
    inner, place = model.lm.model, place_of("lm.model.rotary_emb.inv_freq", places)
    inner.rotary_emb = type(inner.rotary_emb)(model.lm.config).to("cpu" if place == "disk" else place)
    return waiting


@contextmanager
def _opened(shard: Path) -> Iterator[Any]:
    try:
        with safe_open(shard, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{shard}: cannot be read ({error}); download it again") from None


def _checked(shard: Path, file: Any, model: Backbone, shards: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The name of each tensor that the index places in ``shard``, and our name, after a look at its shape."""
    wanted = {published_name(name): (name, tensor.shape) for name, tensor in model.state_dict().items()}
    held = set(file.keys())
    for name in (name for name, where in shards.items() if where == shard.name):
        if name not in held:
            raise ValueError(f"{shard}: lacks {name}, which the index places there")
        ours, shape = wanted[name]
        found = tuple(file.get_slice(name).get_shape())
        if found != tuple(shape):
            raise ValueError(f"{shard}: {name} is {found}; expected {tuple(shape)}")
        yield name, ours


def _quantise(
    path: Path, model: Backbone, shards: dict[str, str], device: torch.device, dtype: torch.dtype,
    quantization_config: QuantizationConfigMixin,
) -> None:
    """The language model as transformers quantises it while it reads the folder."""
    for shard in sorted(set(shards.values())):
        with _opened(path / shard) as file:
            list(_checked(path / shard, file, model, shards))  # transformers' own errors fill a page
    try:
        model.lm = LanguageModel.from_pretrained(
            path, config=copy.deepcopy(model.lm.config), quantization_config=quantization_config,
            device_map={"": device}, dtype=dtype, attn_implementation=ATTENTION, local_files_only=True,
        )  # fmt: skip
    except ImportError as error:
        raise ImportError(f"quantization_config: {str(error).strip().splitlines()[0]}") from None
    model.requires_grad_(False)


class LanguageModel(Qwen2ForCausalLM):
    """Qwen2 out of a folder that holds more than it, as transformers wants to be told."""

    _keys_to_ignore_on_load_unexpected = [r"^encoder\.", r"^adapter\."]
