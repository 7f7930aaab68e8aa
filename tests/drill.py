"""A training run that is killed again and again: ``python tests/drill.py [KILLS]`` (``make drill``).

The command trains A2-LLM's three stages at tiny; SIGKILL, which no program can answer, strikes at random steps. The
weights in the end are compared, bit by bit, with those of a run that nobody disturbed.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent
STEPS = 15  # of the three stages at tiny


def start(folder):
    command = [sys.executable, "-m", "a2lite", "train", "a2llm", "--save-seconds=0", f"--output-dir={folder}"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), A2LITE_QUIET="1")
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(child):
    said = child.communicate(timeout=600)[0]
    assert child.returncode == 0, said[-2000:]
    return said


def strike(folder, steps, chance):
    """Start the run, let it save ``steps`` more steps, and kill it somewhere in the next one."""
    child, resume, seen, saves = start(folder), folder / "artefacts" / "a2llm.safetensors.resume", None, 0
    began = resume.stat().st_mtime_ns if resume.exists() else None
    while saves < steps:
        assert child.poll() is None, f"it ended by itself: {child.communicate()[0][-2000:]}"
        now = resume.stat().st_mtime_ns if resume.exists() else None
        if now not in (None, began, seen):
            seen, saves = now, saves + 1
        time.sleep(0.002)
    time.sleep(chance.random() * 0.3)
    child.send_signal(signal.SIGKILL)
    child.communicate()


def drill(folder, kills, seed=None):
    """``kills`` times killed and gone on with; returns about when it struck. AssertionError if it matters."""
    chance = random.Random(seed)
    places = sorted(chance.sample(range(1, STEPS - 1), kills))
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    finish(start(undisturbed))
    for before, after in zip([0, *places], places):
        strike(disturbed, max(1, after - before), chance)
    assert "resumed at step" in finish(start(disturbed))
    one, other = (load_file(path / "artefacts" / "a2llm.safetensors") for path in (undisturbed, disturbed))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    return places


if __name__ == "__main__":
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as scratch:
        places = drill(Path(scratch), kills)
    print(f"killed {kills} times, about steps {places} of {STEPS}: the weights are those of an undisturbed run")
