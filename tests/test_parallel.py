"""Two processes train as one: the same loss curve and weights, by DDP and by FSDP, whatever the lengths."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import small_training
from a2lite import parallel
from a2lite.training import divided

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes made of each kind of run; "resumed" is FSDP's, begun by one process alone."""
    folder = tmp_path_factory.mktemp("two")
    small_training.stopped_at(4, folder / "resumed.run")
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(HERE.parent))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    kinds = ["rvq", "ddp", "parts", "fsdp", "fsdp parts", "resumed"]
    done = subprocess.run([*command, str(HERE / "small_training.py"), str(folder), *kinds],
                          env=env, capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def one():
    return {kind: small_training.run(kind) for kind in ("rvq", "ddp", "parts", "whole")}


def both(one, two, kind, alone):
    state, trace = one[alone]
    curve = torch.load(two / f"{kind}.trace", weights_only=True)
    return state, load_file(two / f"{kind}.safetensors"), trace.values, curve["values"]


@pytest.mark.parametrize("kind, alone", [("ddp", "ddp"), ("fsdp", "ddp"), ("parts", "parts"), ("fsdp parts", "parts"),
                                         ("resumed", "ddp")])  # fmt: skip
def test_two_processes_give_the_loss_curve_and_the_weights_of_one(one, two, kind, alone):
    state, theirs, curve, their_curve = both(one, two, kind, alone)
    assert len(curve["loss"]) == 9 and set(curve) == set(their_curve)
    for name in curve:
        assert their_curve[name] == pytest.approx(curve[name], rel=1e-4), name
    assert set(theirs) == set(state)
    for name, value in state.items():
        torch.testing.assert_close(theirs[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_two_processes_learn_the_codebooks_of_one(one, two):
    state, theirs, curve, their_curve = both(one, two, "rvq", "rvq")
    for name in curve:
        assert their_curve[name] == pytest.approx(curve[name], rel=1e-3), name
    mine, other = state["quantizer.codebooks"], theirs["quantizer.codebooks"]
    assert (mine - other).norm() < 0.01 * mine.norm()  # rounding may send a latent to another code


def test_a_batch_in_parts_trains_as_the_whole(one):
    (parts, curve), (whole, whole_curve) = one["parts"], one["whole"]
    assert curve.values["loss"] == pytest.approx(whole_curve.values["loss"], rel=1e-4)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_a_share_is_divided_into_parts_alike_in_size():
    assert divided(range(7), 3) == [range(0, 7, 3), range(1, 7, 3), range(2, 7, 3)]
    assert divided(range(3), 3) == divided(range(3), None) == [range(3)]


def test_one_process_alone_has_the_whole_batch():
    assert parallel.place() == (0, 1) and parallel.share([1, 2]) == [1, 2]
    x = torch.randn(3, 2)
    assert parallel.gather(x) is x and parallel.mean_over(x) is x


def test_processes_wait_for_the_latest_and_refuse_a_run_that_only_one_sees(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(HERE.parent))
    done = subprocess.run([*command, str(HERE / "small_cluster.py"), str(tmp_path)],
                          env=env, capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        came, saved, said = (tmp_path / f"{rank}.said").read_text().split(" ", 2)
        assert (came, saved) == ("2", str(rank == 0))
        assert "run.resume: is not what other processes see; put it where all machines read and write" in said
