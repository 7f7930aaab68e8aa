"""Folders in the exact layouts that a run at ``a100`` is given, at tiny sizes and with random weights.

A Step-Audio-2-mini checkpoint, a FLAME model with what lies beside it, and samples in several shards.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from a2lite.backbone import Backbone, Vocabulary
from a2lite.backbone.step_audio import CODES, LANGUAGE, LISTENING, published_name
from a2lite.config import load_config
from a2lite.flame import FlameHead, load_head
from a2lite.flame.official import MASKS, PLACES
from a2lite.flame_qa import load_samples, save_samples
from a2lite.flame_qa.samples import shard_name
from a2lite.speech.detokenizer import FILES
from a2lite.world import SPLITS
from flame_files import chumpy, dump, sparse

# ---------------------------------------------------------------- the language model


def write_backbone(folder: Path, model: Backbone) -> Path:
    """A checkpoint as it is published, of three shards: configuration, index, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {published_name(name): tensor.clone() for name, tensor in model.state_dict().items()}
    names = sorted(state)
    shards = {name: f"model-{1 + 3 * place // len(names):05d}-of-00003.safetensors" for place, name in enumerate(names)}
    for shard in set(shards.values()):
        save_file({name: state[name] for name in names if shards[name] == shard}, folder / shard)
    total = sum(tensor.numel() * 2 for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    c = model.config
    text = {theirs: getattr(c, ours) for theirs, ours in LANGUAGE.items()} | {"vocab_size": len(model.vocabulary)}
    sound = {theirs: getattr(c, ours) for theirs, ours in LISTENING.items()}
    told = {"model_type": "step_audio_2", "text_config": text, "audio_encoder_config": sound}
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "tokenizer.json").write_text(model.vocabulary.to_json(), encoding="utf-8")
    return folder


def write_model_dir(folder: Path, seed: int = 0) -> Path:
    """A whole model folder: a small language model with all 6561 codes, and ``token2wav/``."""
    torch.manual_seed(seed)
    texts = load_samples("tiny", "train").column("answer_text")
    config = replace(load_config("a100", "nano").backbone, n_mels=128, max_positions=16384)
    vocabulary = Vocabulary.train(texts, 400, CODES)
    config = replace(config, audio_codes=CODES, text_vocab=vocabulary.texts)
    write_token2wav(folder / "token2wav")
    return write_backbone(folder, Backbone(config, vocabulary))


def write_token2wav(folder: Path) -> Path:
    """The published names: a small S3 tokenizer in ONNX, and beside it files that a stand-in of the vocoder ignores."""
    from test_step_audio_speech import write_tokenizer  # needs onnx

    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / FILES[0])
    for name in FILES[1:]:
        (folder / name).write_bytes(b"weights")
    (folder / "flow.yaml").write_text("flow: !new:cosyvoice2.flow.flow.CausalMaskedDiffWithXvec\n")
    return folder


HUM = """
import array


class Token2wav:  # with the official class's methods: every token sounds for 40 ms at 24 kHz
    def __init__(self, model_path, float16=False):
        pass

    def set_stream_cache(self, prompt_wav):
        self.stream_cache, self.hift_cache_dict = {}, {}

    def stream(self, generated_speech_tokens, prompt_wav, last_chunk=False):
        settled = generated_speech_tokens if last_chunk else generated_speech_tokens[:-3]
        hum = [(960 // (2 + token % 7), token) for token in settled]
        wave = [token if place % period < period // 2 else -token for period, token in hum for place in range(960)]
        return array.array("h", wave).tobytes()
"""


def write_code(folder: Path) -> Path:
    """A stand-in for the clone of the official code that the speech worker imports, and for torch, to load quickly."""
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "default_female.wav").write_bytes(b"RIFF")
    (folder / "token2wav.py").write_text(HUM)
    (folder / "torch.py").write_text("def manual_seed(number):\n    pass\n")
    return folder


# ---------------------------------------------------------------- the head


def flame_arrays(head: FlameHead) -> dict:
    """What FLAME's dict holds, in its own types."""
    return dict(
        f=head.faces.numpy().astype(np.uint32),
        v_template=head.v_template.double().numpy(),
        shapedirs=head.shapedirs.double().numpy(),
        posedirs=head.posedirs.T.reshape(5023, 3, -1).double().numpy(),
        weights=head.lbs_weights.double().numpy(),
        J_regressor=head.J_regressor.double().numpy(),
        kintree_table=np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        J=np.zeros((5, 3)),
        bs_style="lbs",
        bs_type="lrotmin",
    )


def write_flame(folder: Path) -> Path:
    """``generic_model.pkl`` with masks, lids and landmarks beside it: the kit's head as FLAME 2020 is published."""
    folder.mkdir(parents=True, exist_ok=True)
    head = load_head()
    arrays = flame_arrays(head)
    arrays |= dict(shapedirs=chumpy(arrays["shapedirs"]), J_regressor=sparse(arrays["J_regressor"]))
    (folder / "generic_model.pkl").write_bytes(dump(arrays))
    (folder / "FLAME_masks.pkl").write_bytes(dump({name: head.regions[name].numpy() for name in sorted(MASKS)}))
    for side, lid in zip("lr", head.eyelids[:, 0].numpy()):
        np.save(folder / f"{side}_eyelid.npy", lid)
    triangles, corners = np.zeros(51, np.uint32), np.tile([1.0, 0.0, 0.0], (51, 1))
    for name, number in PLACES.items():
        triangles[number - 17], corner = (head.faces == head.landmarks[name]).nonzero()[0].tolist()
        corners[number - 17] = np.eye(3)[corner]
    embedding = dict(lmk_face_idx=triangles, lmk_b_coords=corners)
    (folder / "flame_static_embedding.pkl").write_bytes(dump(embedding))
    return folder / "generic_model.pkl"


# ---------------------------------------------------------------- the samples


def write_data_dir(folder: Path, train: int = 24, shard: int = 8) -> Path:
    """Some shipped samples in shards of at most ``shard``: fewer of train than are shipped, the other splits whole."""
    for split in SPLITS:
        samples = list(load_samples("tiny", split))[: train if split == "train" else None]
        size = shard if split == "train" else max(1, len(samples) // 2)
        parts = [samples[i : i + size] for i in range(0, len(samples), size)]
        for number, part in enumerate(parts):
            save_samples(part, folder / shard_name(split, number, len(parts)))
    return folder
