"""Where a run takes its inputs from, and where it puts what it makes.

It stands above the rooms: notebooks and commands make one ``Workplace`` of their parameters and ask it for data,
head and models; of the rooms only the last, ``realtime``, knows of it. The published weights and data are nobody's to
ship: a notebook at ``a100`` is told where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from a2lite import ROOT
from a2lite.backbone import Backbone, from_pretrained
from a2lite.backbone.step_audio import read_config
from a2lite.config import Config, load_config
from a2lite.course import report, run_folder
from a2lite.flame import FlameHead, load_flame, load_head
from a2lite.flame_qa import Samples, load_samples
from a2lite.rvq import MotionRVQ
from a2lite.rvq import load as load_rvq
from a2lite.speech import SpeechTokenizer
from a2lite.speech import load as load_speech

SHIPPED = ROOT / "data_samples" / "checkpoints"
MAKERS = {  # which notebook makes what
    "rvq.safetensors": "03_rvq_tokenization",
    "speech.safetensors": "04_audio_language_model",
    "backbone.safetensors": "04_audio_language_model",
    "a2llm.safetensors": "06_three_stage_training",
}


@dataclass(frozen=True)
class Workplace:
    """The parameters that all notebooks share; empty ones mean what the kit ships, or ``runs/<profile>/``.

    ``model_dir`` is the folder of Step-Audio-2-mini, ``flame_path`` a published FLAME file, ``data_dir`` a folder of
    samples, ``num_gpus`` how many processes train (0: the notebook's own), ``output_dir`` where results go.
    FileNotFoundError or ValueError in one line for a path that is not there and a number below 0.
    """

    profile: str = "tiny"
    size: str | None = ""
    model_dir: str | Path = ""
    flame_path: str | Path = ""
    data_dir: str | Path = ""
    num_gpus: int = 0
    output_dir: str | Path = ""

    def __post_init__(self) -> None:
        load_config(self.profile, self.size or None)
        if self.num_gpus < 0:
            raise ValueError(f"num_gpus {self.num_gpus}: expected 0 (train in the notebook) or more")
        model, flame, data = (_path(text) for text in (self.model_dir, self.flame_path, self.data_dir))
        if model and not model.is_dir():
            raise FileNotFoundError(f"model_dir {model}: no such folder; expected the files of "
                                    "stepfun-ai/Step-Audio-2-mini, at huggingface.co")  # fmt: skip
        if flame and not flame.is_file():
            raise FileNotFoundError(f"flame_path {flame}: no such file; expected generic_model.pkl or another FLAME, "
                                    "which https://flame.is.tue.mpg.de gives to those who register")  # fmt: skip
        if data and not data.is_dir():
            raise FileNotFoundError(f"data_dir {data}: no such folder; expected the samples' Parquet files "
                                    "(notebook 02 says how they are made); leave it empty for those")  # fmt: skip
        for path in (self.folder, *self.folder.parents):
            if path.is_file():
                raise ValueError(f"output_dir {path}: is a file; give the path of a folder")

    # ---------------------------------------------------------------- what the run is

    @cached_property
    def config(self) -> Config:
        """The profile's configuration; with ``model_dir`` the backbone's sizes are those of its files."""
        config = load_config(self.profile, self.size or None)
        if not self.model_dir:
            return config
        return replace(config, backbone=read_config(_path(self.model_dir), config.backbone))

    @property
    def ships(self) -> bool:
        """Whether the shipped checkpoints are of this size: at tiny and laptop, where nothing else was given."""
        return self.profile != "a100" and not self.size and not self.model_dir

    @property
    def brief(self) -> bool:
        """Whether training is a glimpse of some steps, and the shipped models do the rest: at tiny."""
        return self.profile == "tiny" and self.ships

    @property
    def pretrains(self) -> bool:
        """Whether notebook 04 makes the language model; at a100 it is the published one, only a shrunk one is made."""
        return not self.model_dir and (self.profile != "a100" or bool(self.size))

    @property
    def device(self) -> torch.device:
        """Where the models stand: on a GPU, if there is one, at full size and beside a published backbone."""
        large = self.profile == "a100" or self.model_dir
        return torch.device("cuda" if large and torch.cuda.is_available() else "cpu")

    # ---------------------------------------------------------------- what comes in

    @property
    def data_folder(self) -> Path:
        """``data_dir``; else data_samples/ at tiny, and what notebook 02 generates elsewhere."""
        if self.data_dir:
            return _path(self.data_dir)
        return ROOT / "data_samples" if self.profile == "tiny" else self.folder / "artefacts" / "world"

    def samples(self, split: str) -> Samples:
        """The samples of a split (``flame_qa.load_samples``)."""
        return load_samples(self.data_folder, split)

    def head(self) -> FlameHead:
        """The published FLAME at ``flame_path``, else the kit's own head."""
        return load_flame(_path(self.flame_path)) if self.flame_path else load_head()

    def speech(self) -> SpeechTokenizer:
        """The published tokenizer and vocoder in ``model_dir``, else the trained small one."""
        if self.model_dir:
            from a2lite.speech.step_audio import StepAudioSpeech  # needs the extra "speech"

            return StepAudioSpeech(_path(self.model_dir) / "token2wav")
        return load_speech(self.find_artefact("speech.safetensors"))

    def backbone(self) -> Backbone:
        """The published language model in ``model_dir``, bf16 on a GPU and float32 without; else the trained one."""
        if self.model_dir:
            dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
            return from_pretrained(_path(self.model_dir), self.config.backbone, self.device, dtype)
        if not self.pretrains:
            raise ValueError("model_dir: is empty, and at a100 the language model is the published one; "
                             "give the folder of stepfun-ai/Step-Audio-2-mini, at huggingface.co")  # fmt: skip
        return Backbone.load(self.find_artefact("backbone.safetensors"))

    def rvq(self) -> MotionRVQ:
        """The trained motion tokenizer."""
        return load_rvq(self.find_artefact("rvq.safetensors"))

    # ---------------------------------------------------------------- what goes out

    @property
    def folder(self) -> Path:
        """``output_dir``, else ``runs/<profile>``, or ``runs/<profile>-nano`` for a shrunk one."""
        return run_folder(self.profile, self.size or "", self.output_dir)

    def artefact_path(self, name: str) -> Path:
        """Where the artefact ``name`` is written (its folder is made)."""
        folder = self.folder / "artefacts"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def has_artefact(self, name: str) -> bool:
        """Whether ``find_artefact`` would find it."""
        return any(path.exists() for path, _ in self._places(name))

    def find_artefact(self, name: str) -> Path:
        """The artefact of one's own run if there is one, else the shipped one where it fits; prints which.

        FileNotFoundError names the places, and the notebook that makes it.
        """
        for path, origin in self._places(name):
            if path.exists():
                print(f"{name}: {origin}")
                return path
        places = " nor in ".join(str(path.parent) for path, _ in self._places(name))
        maker = f"notebook {MAKERS[name]}" if name in MAKERS else "the notebook that makes it"
        raise FileNotFoundError(f"{name}: not in {places}; run {maker} with the same parameters")

    def _places(self, name: str) -> list[tuple[Path, str]]:
        label = f"{self.profile}, {self.size}" if self.size else self.profile
        own = (self.folder / "artefacts" / name, f"from your own run ({label})")
        return [own, (SHIPPED / name, "as shipped")] if self.ships else [own]

    def player(self, name: str) -> Path:
        """Where ``player.show`` puts the page ``name``."""
        return self.folder / "players" / f"{name}.html"

    def report(self, notebook: str, figures: Mapping[str, Any]) -> Path:
        """Merge ``figures`` into the run's metrics.json (``course.report``)."""
        return report(notebook, self.profile, figures, self.folder)


def _path(text: str | Path) -> Path | None:
    return Path(text).expanduser().absolute() if text else None
