"""Training as a command: it survives a kill, trains in processes of its own, and says what is wrong in one line."""

import pytest
from safetensors.torch import load_file

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


def test_a_finished_run_is_not_overwritten(tmp_path, capsys):
    Workplace("tiny", output_dir=tmp_path).artefact_path("a2llm.safetensors").touch()
    assert main(["train", "a2llm", f"--output-dir={tmp_path}"]) == 2
    assert "is there already; move it away" in capsys.readouterr().err
