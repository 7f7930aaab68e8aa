"""What goes wrong between processes: ``torchrun ... small_cluster.py FOLDER``; each says what it met."""

import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn

from a2lite.fit import fit
from a2lite.parallel import place, together

PATIENCE = 3  # seconds, after which a call gives a latecomer up


def train(path: Path, steps: int, stop: int = 0) -> None:
    torch.manual_seed(0)

    def evaluate(model: nn.Module) -> dict[str, float]:
        if stop:
            raise KeyboardInterrupt
        return {}

    loss = lambda model, x: {"loss": model(x).square().mean()}  # noqa: E731
    fit(nn.Linear(2, 1), loss, lambda step: torch.ones(4, 2), steps=steps, lr=1e-2, path=path,
        evaluate=evaluate, evaluate_every=stop)  # fmt: skip


if __name__ == "__main__":
    PartialState(cpu=True, timeout=timedelta(seconds=PATIENCE))
    folder, rank = Path(sys.argv[1]), place()[0]
    with together():
        time.sleep(2 * PATIENCE * rank)
        (folder / f"{rank}.came").touch()
    came = len(list(folder.glob("*.came")))
    try:
        train(folder / str(rank) / "run", 6, stop=2)
    except KeyboardInterrupt:
        pass
    own = folder / str(rank) / "run.resume"  # the first process has written one, and nobody else sees it
    try:
        train(folder / str(rank) / "run", 6)
        said = "trained"
    except ValueError as error:
        said = str(error)
    (folder / f"{rank}.said").write_text(f"{came} {own.exists()} {said}")
    torch.distributed.destroy_process_group()
