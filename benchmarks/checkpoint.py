"""What a checkpoint costs: written after every cycle, hashed, and read again after a crash."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.common import RUNS, Result, Row
from mrkd_ray.networks.catalogue import build
from mrkd_ray.training import checkpoints

NAME = "checkpoint"
CLASSES, BINS, CLIPS = 50, 64, 400
NETWORKS = ("vgg_small", "resnet_small", "resnet50")


def run(quick: bool = False) -> Result:
    """Measure each phase for cohorts of two branches of a network."""
    rows = []
    for name in NETWORKS[:1] if quick else NETWORKS:
        found = [_measure(name) for _ in range(1 if quick else RUNS)]
        size = found[0][1]
        for phase in found[0][0]:
            what = f"two {name}, {size / 1e6:.1f} MB: {phase}"
            rows.append(Row(what=what, unit="s", ours=[times[phase] for times, _ in found]))
    return Result(
        name=NAME,
        title="Checkpoints",
        how="Seconds of one CPU (`process_time`: neither other work on the machine counts nor the "
        "disk) for a checkpoint of two branches with weights and momentum: what comes after "
        "every cycle, and what a run that is resumed does before its next one. The sums are sha256 "
        "of all its files.",
        rows=rows,
    )


def _measure(network: str) -> tuple[dict[str, float], int]:
    """Return CPU seconds by phase, and the bytes of the checkpoint."""
    module, _ = build(network, CLASSES, bins=BINS)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    names = ("a", "b")
    rows = [{"cycle": 0, "branch": name, "predicted": [0] * CLIPS} for name in names]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "checkpoint"
        begun = checkpoints.begin(root, 1)

        def save() -> None:
            for name in names:
                checkpoints.save_branch(begun, name, {"network": module}, optimiser, 1, "fp32")

        def load() -> None:
            for name in names:
                place = torch.device("cpu")
                checkpoints.load_branch(
                    committed, name, {"network": module}, optimiser, "fp32", place
                )

        committed = root / "cycle-000001"
        times = {"written": _seconds(save)}
        times["sums, and committed"] = _seconds(lambda: checkpoints.commit(begun, rows))
        size = sum(path.stat().st_size for path in committed.iterdir())
        times["sums compared at --resume"] = _seconds(lambda: checkpoints.discard_damaged(root))
        times["read at --resume"] = _seconds(load)
    return times, size


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
