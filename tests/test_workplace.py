"""Where a run takes its inputs from: what is given, what is its own, what is shipped, and what fits."""

import json

import pytest
import torch

from a2lite import ROOT, workplace
from a2lite.config import load_config
from a2lite.course import figures
from a2lite.flame import load_head
from a2lite.flame_qa import load_samples, save_samples
from a2lite.workplace import Workplace


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone in which nothing has been run yet."""
    for module in (workplace, figures):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def test_what_is_shipped_serves_until_one_has_trained(clone, capsys):
    place = Workplace("laptop")
    assert place.find_artefact("rvq.safetensors") == workplace.SHIPPED / "rvq.safetensors"
    assert capsys.readouterr().out == "rvq.safetensors: as shipped\n"
    place.artefact_path("rvq.safetensors").touch()
    assert place.find_artefact("rvq.safetensors") == clone / "runs" / "laptop" / "artefacts" / "rvq.safetensors"
    assert capsys.readouterr().out == "rvq.safetensors: from your own run (laptop)\n"


@pytest.mark.parametrize("given", [dict(size="nano"), dict(profile="a100"), dict(model_dir=ROOT)])
def test_what_is_shipped_is_not_taken_where_it_does_not_fit(clone, given):
    place = Workplace(**given)
    assert not place.ships and not place.has_artefact("a2llm.safetensors")
    with pytest.raises(FileNotFoundError, match="not in .*; run notebook 06_three_stage_training with the same"):
        place.find_artefact("a2llm.safetensors")


def test_a_shrunk_run_does_not_touch_the_whole_ones(clone):
    folders = {Workplace(size=size).artefact_path("rvq.safetensors").parent for size in ("", "nano")}
    assert folders == {clone / "runs" / name / "artefacts" for name in ("tiny", "tiny-nano")}


def test_everything_goes_to_the_folder_that_is_named(tmp_path):
    place = Workplace(output_dir=tmp_path / "out")
    paths = [place.artefact_path("x"), place.player("x"), place.report("07_metrics", {"usage": 0.5})]
    assert all(path.is_relative_to(tmp_path / "out") for path in paths)
    assert json.loads(paths[2].read_text())["07_metrics"]["usage"]["value"] == 0.5


def test_data_and_head_are_the_given_ones_or_the_kits(clone, tmp_path):
    some = load_samples(ROOT / "data_samples", "dev").select([1])
    save_samples(some, tmp_path / "mine" / "dev-00000-of-00001.parquet")
    given = Workplace("a100", data_dir=str(tmp_path / "mine")).samples("dev")
    assert [sample.id for sample in given] == [some[0].id]
    assert Workplace("a100").data_folder == clone / "runs" / "a100" / "artefacts" / "world"
    assert Workplace("tiny").data_folder == clone / "data_samples"
    assert Workplace().head() is load_head()


def test_the_models_are_the_shipped_ones_at_tiny():
    place = Workplace()
    backbone, speech, rvq = place.backbone(), place.speech(), place.rvq()
    assert backbone.speech == speech.identity and rvq.config.group == place.config.rvq.group
    assert place.device == torch.device("cpu") and place.config == load_config("tiny")


def test_at_full_size_the_language_model_is_the_published_one():
    assert Workplace("laptop").pretrains and Workplace("a100", "nano").pretrains
    with pytest.raises(ValueError, match="model_dir: is empty, and at a100 the language model is the published one"):
        Workplace("a100").backbone()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(model_dir="nowhere"), "model_dir .*nowhere: no such folder; expected the files of stepfun-ai/Step-Aud"),
        (dict(flame_path="nowhere.pkl"), "flame_path .*nowhere.pkl: no such file; expected generic_model.pkl"),
        (dict(data_dir="nowhere"), "data_dir .*nowhere: no such folder; expected the samples' Parquet files"),
        (dict(output_dir=__file__), "output_dir .*test_workplace.py: is a file"),
        (dict(num_gpus=-1), "num_gpus -1: expected 0"),
        (dict(profile="huge"), "profile 'huge': expected one of tiny"),
        (dict(size="big"), "size 'big': expected None or 'nano'"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(given, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        Workplace(**given)
    assert "\n" not in str(caught.value)
