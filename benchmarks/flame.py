"""FLAME on chosen vertices, as a training loss needs it, against smplx's whole mesh: time and memory.

    python benchmarks/flame.py --json      # one run, both contenders in turns; ratios are what counts

64 clips of 100 frames, forward and backward to the 58 numbers, on one thread; about two minutes and 6 GB. smplx has as
few identity components as its default (10). ``seconds`` are medians on the clock, which other work on the machine
lengthens; ``cpu_seconds`` are the process's own. Each contender works in a process of its own, so that its peak of
memory is its own: ``peak_mb`` is what it takes above what it holds before the first round, ``process_mb`` the whole
(Linux only). The floor is the one product that no implementation can leave out, coefficients times the basis of the
chosen vertices, with the same loss, forward and backward.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from a2lite.config import MotionConfig
from a2lite.flame import Flame, load_head, rotation_matrix

IDENTITY = 10  # smplx's own default; no contender is asked for another face
CONTENDERS = ("chosen vertices", "whole mesh", "smplx", "floor")


def losses(name: str) -> Callable[[Tensor], Tensor]:
    """Motion (B, T, 58) -> a scalar on the vertices that the loss of Eq. 9 looks at."""
    head = load_head()
    flame, chosen = Flame(head), torch.cat([head.regions["lips"], head.regions["face"]])
    if name == "chosen vertices":
        return lambda motion: flame(motion, chosen, zero_pose=True).square().mean()
    if name == "whole mesh":
        return lambda motion: flame(motion, zero_pose=True)[..., chosen, :].square().mean()
    if name == "floor":
        basis = head.shapedirs[chosen, :, 300:350].reshape(-1, 50).T.contiguous()
        return lambda motion: (motion[..., MotionConfig.expression] @ basis).square().mean()
    layer = smplx_layer()
    identity = torch.eye(3)

    def through_smplx(motion: Tensor) -> Tensor:
        flat = motion.reshape(-1, 58)
        still = identity.expand(len(flat), 1, 3, 3)
        jaw = rotation_matrix(flat[:, MotionConfig.jaw])[:, None]
        mesh = layer(
            betas=torch.zeros(len(flat), IDENTITY), expression=flat[:, MotionConfig.expression], jaw_pose=jaw,
            global_orient=still, neck_pose=still, leye_pose=still, reye_pose=still,
        ).vertices  # fmt: skip
        return mesh[:, chosen].square().mean()

    return through_smplx


def smplx_layer():
    import smplx

    with tempfile.TemporaryDirectory() as folder:
        load_head().save_npz(Path(folder) / "FLAME_NEUTRAL.npz")
        landmark = dict(lmk_face_idx=np.zeros(1, int), lmk_b_coords=np.eye(3)[:1])
        (Path(folder) / "flame_static_embedding.pkl").write_bytes(pickle.dumps(landmark))
        return smplx.FLAMELayer(folder, ext="npz", num_betas=IDENTITY, num_expression_coeffs=50)


def work(name: str, rounds: int) -> None:
    """In a process of its own: a line on stdin starts each round; its seconds go to stdout, at the end the peaks."""
    torch.set_num_threads(1)
    loss = losses(name)
    motion = 0.1 * torch.randn(64, 100, 58, generator=torch.Generator().manual_seed(0))
    loss(motion[:1, :2].clone().requires_grad_()).backward()
    before = restart_peak()
    print("ready", flush=True)
    for _ in range(rounds):
        sys.stdin.readline()
        leaf = motion.clone().requires_grad_()
        start = time.perf_counter(), time.process_time()
        loss(leaf).backward()
        print(time.perf_counter() - start[0], time.process_time() - start[1], flush=True)
    peak = resident("VmHWM")
    print(peak - before, peak, flush=True)


def restart_peak() -> float:
    """Forget the peak that loading has left, which may hide a smaller one; MB held now."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(name: str) -> float:
    """VmRSS (now) or VmHWM (at most) of this process in MB; nan where there is no /proc."""
    if sys.platform != "linux":
        return float("nan")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":")]
    return int(line.split()[1]) / 1024


def heard(name: str, worker: subprocess.Popen) -> str:
    """The next line of a worker."""
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"{name}: its process ended early with code {worker.wait()}; what it said stands above")
    return line.strip()


def measure(rounds: int) -> dict:
    """Contenders take turns, so that what else the machine does falls on all of them."""
    workers = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--work", name, "--rounds", str(rounds)], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in CONTENDERS
    }  # fmt: skip
    rows: dict[str, list[list[float]]] = {name: [] for name in CONTENDERS}
    for name, worker in workers.items():
        while heard(name, worker) != "ready":  # smplx may print
            pass
    for _ in range(rounds):
        for name, worker in workers.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            rows[name].append([float(number) for number in heard(name, worker).split()])
    out = {}
    for name, worker in workers.items():
        worker.stdin.close()
        peak, whole = (round(float(number)) if number != "nan" else None for number in heard(name, worker).split())
        wall, cpu = np.median(rows[name], 0).round(4).tolist()
        clock = [round(row[0], 2) for row in rows[name]]
        out[name] = dict(seconds=wall, cpu_seconds=cpu, rounds=clock, peak_mb=peak, process_mb=whole)
        worker.wait()
    ours, peer, floor = out["chosen vertices"], out["smplx"], out["floor"]
    out["times faster than smplx"] = round(peer["seconds"] / ours["seconds"], 2)
    out["times less processor time"] = round(peer["cpu_seconds"] / ours["cpu_seconds"], 2)
    if peer["peak_mb"]:
        out["share of smplx's memory"] = round(ours["peak_mb"] / peer["peak_mb"], 3)
    out["times the floor"] = round(ours["seconds"] / floor["seconds"], 2)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else on stdout")
    parser.add_argument("--work", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work, args.rounds)
    found = measure(args.rounds)
    print(json.dumps(found, indent=None if args.json else 1))


if __name__ == "__main__":
    main()
