"""A cohort's cycle through Ray beside a textbook deep-mutual-learning loop in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import data
from benchmarks.cluster import Runner, cluster
from benchmarks.common import RUNS, Result, Row, alternate
from mrkd_ray.networks.catalogue import build
from mrkd_ray.training.branch_task import BranchTask

NAME = "mutual"
TARGET = 1.8
BRANCHES = ("logmel64:resnet_small", "cqt:vgg_small")


def run(quick: bool = False) -> Result:
    """Measure cycles of both kinds of soft labels beside the loop's, in turn."""
    size, cycles = (8, 2) if quick else (64, 3)
    kinds = {
        kind: data.tasks("esc10", BRANCHES, quick, batch_size=size, soft_labels=kind, cycles=cycles)
        for kind in ("clip", "window")
    }
    textbook = _textbook(kinds["clip"], size)
    with cluster(cpus=4):  # the ones that wait take no time
        runners = {kind: Runner(tasks) for kind, tasks in kinds.items()}
        sides: dict[str, Callable[[], float]] = {
            "clip": lambda: runners["clip"].run()[0] / cycles,
            "window": lambda: runners["window"].run()[0] / cycles,
            "textbook": lambda: sum(textbook() for _ in range(cycles)) / cycles,
        }
        alternate(1, sides)
        values = alternate(1 if quick else RUNS, sides)
    windows = 2 * 2 * len(kinds["clip"][0].train.clip_ids)  # branches, epochs
    rates = {name: [windows / seconds for seconds in times] for name, times in values.items()}
    return Result(
        name=NAME,
        title="A cycle beside textbook deep mutual learning",
        how=f"Training windows a second over whole cycles, {cycles} a run, of "
        f"{' and '.join(BRANCHES)} on ESC-10's fold 1, batch {size}, two cores. A cycle "
        "trains every branch for two epochs and scores the test clips. Ours also makes soft "
        "labels, averages them, and writes a checkpoint. Ours: `RayCohort`, a thread a "
        f"branch. Beside it: one process with PyTorch's default of {torch.get_num_threads()} "
        "threads and inputs in memory. For each batch it does two forward passes, L_ce and "
        "KL to the other's prediction, and a step of SGD for each network (Zhang et al., "
        "2018). KD_Lib has the same loop, and is not used: its last release asks for torch "
        "1.8.1 and pip 21.1.",
        rows=[
            Row(
                what=f"cycle with `soft_labels: {kind}`",
                unit="windows/s",
                ours=rates[kind],
                peer=rates["textbook"],
                peer_is="textbook loop",
                target=TARGET,
                limits=limits,
            )
            for kind, limits in (
                (
                    "clip",
                    "Soft labels of all windows of every training clip are made besides, which "
                    "the textbook loop has no counterpart of.",
                ),
                (
                    "window",
                    "Soft labels are a forward pass of their own, which the textbook loop has for "
                    "nothing from its steps; and two busy cores slow each other: see the control "
                    "of a cohort's cycle.",
                ),
            )
        ],
    )


def _textbook(tasks: Sequence[BranchTask], size: int) -> Callable[[], float]:
    """Return the same for deep mutual learning as its paper describes it, in plain PyTorch."""
    networks = [build(task.spec.network, len(task.classes))[0] for task in tasks]
    optimisers = [
        torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        for net in networks
    ]
    inputs = [_windows(data.clips(task, task.train)) for task in tasks]
    scored = [_windows(data.clips(task, task.test), (0, 1 / 3, 2 / 3, 1)) for task in tasks]
    labels = torch.from_numpy(tasks[0].train.labels)

    def epoch() -> None:
        for net in networks:
            net.train()
        for rows in torch.randperm(len(labels)).split(size):  # type: ignore[no-untyped-call]
            outputs = [net(x[rows]) for net, x in zip(networks, inputs, strict=True)]
            for i, optimiser in enumerate(optimisers):
                other = F.softmax(outputs[1 - i].detach(), dim=1)
                kl = F.kl_div(F.log_softmax(outputs[i], dim=1), other, reduction="batchmean")
                loss = F.cross_entropy(outputs[i], labels[rows]) + kl
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()

    def cycle() -> float:
        began = time.perf_counter()
        for _ in range(2):
            epoch()
        with torch.no_grad():
            for net, x in zip(networks, scored, strict=True):
                net.eval()
                torch.cat([net(part) for part in torch.split(x, size)])
        return time.perf_counter() - began

    return cycle


def _windows(clips: Sequence[Any], starts: Sequence[float] = (0.5,)) -> Tensor:
    """Windows of 150 frames at these parts of each clip, as a tensor [n, 3, bins, 150]."""
    found = []
    for clip in clips:
        padded = np.pad(clip, ((0, 0), (0, 0), (0, max(0, 150 - clip.shape[2]))))
        for start in starts:
            first = int(start * (padded.shape[2] - 150))
            found.append(padded[:, :, first : first + 150])
    return torch.from_numpy(np.stack(found))
