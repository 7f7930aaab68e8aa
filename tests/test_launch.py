"""Training as a command: it survives a kill, trains in processes of its own, and says what is wrong in one line."""

import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from a2lite import launch as launching
from a2lite.__main__ import main
from a2lite.launch import launch
from a2lite.workplace import Workplace
from drill import drill


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path):
    drill(tmp_path, kills=1)


def test_a_notebook_trains_in_processes_of_their_own(tmp_path, capfd):
    place = Workplace("tiny", num_gpus=2, output_dir=tmp_path)
    trace = launch(place, "rvq")
    assert len(trace.values["loss"]) == place.config.rvq.lite_steps
    assert "rvq  20/20" in capfd.readouterr().out
    assert set(load_file(place.artefact_path("rvq.safetensors")))


def test_what_fails_in_a_child_is_told_in_one_line(tmp_path):
    place = Workplace("a100", size="nano", num_gpus=2, data_dir=tmp_path, output_dir=tmp_path)
    with pytest.raises(ChildProcessError, match="training rvq in 2 processes: a2lite: .*no samples of split 'train'"):
        launch(place, "rvq")


@pytest.mark.parametrize("what", ["rvq", "a2llm"])
def test_a_finished_run_is_not_overwritten(tmp_path, capsys, what):
    Workplace("tiny", output_dir=tmp_path).artefact_path(f"{what}.safetensors").touch()
    assert main(["train", what, f"--output-dir={tmp_path}"]) == 2
    assert "is there already; move it away" in capsys.readouterr().err


def test_an_interrupted_child_leaves_nothing_running(tmp_path, monkeypatch):
    children, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: children.append(popen(*args, **more)) or children[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def interrupted(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "print", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        launch(Workplace("tiny", num_gpus=1, output_dir=tmp_path), "rvq")
    with pytest.raises(ProcessLookupError):  # neither the child nor one of its own
        os.killpg(children[0].pid, 0)


def test_more_processes_than_gpus_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ValueError, match="num_gpus 8: expected 1 to 4"):
        launch(Workplace("a100", num_gpus=8, output_dir=tmp_path), "rvq")


@pytest.mark.parametrize("what, option", [("rvq", "--fsdp"), ("rvq", "--part=2"), ("a2llm", "--part=0")])
def test_options_that_mean_nothing_are_refused(what, option, capsys):
    assert main(["train", what, option]) == 2
    assert capsys.readouterr().err.startswith("a2lite: --")
