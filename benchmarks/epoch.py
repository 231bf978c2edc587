"""A branch's epoch beside the same network and optimiser on one batch that is there already."""

from __future__ import annotations

import time

import torch

from benchmarks import data
from benchmarks.common import RUNS, Result, Row, alternate, one_thread
from benchmarks.steps import constant_step
from mrkd_ray.training.branch import Branch

NAME = "epoch"
TARGET = 0.97
PAIRS = ("logmel64:resnet_small", "logmel64:vgg_small", "cqt:resnet_small", "cqt:vgg_small")


def run(quick: bool = False) -> Result:
    """Measure every pair of `PAIRS`, or one in a smoke run."""
    one_thread()
    torch.set_num_threads(1)
    rows = [_row(name, quick) for name in (PAIRS[:1] if quick else PAIRS)]
    return Result(
        name=NAME,
        title="A branch's epoch, CPU",
        how="Ours: `Branch.train` on ESC-10's fold 1. It draws and gathers windows of 320 clips "
        "in batches of 64, and does deltas, normalisation, mixup and L_ce. Beside it: the "
        "same network, loss and SGD on one constant batch of the same shape, channels_last. "
        "One thread each, in one process.",
        rows=rows,
    )


def _row(name: str, quick: bool) -> Row:
    (task,) = data.tasks("esc10", [name], quick, batch_size=8 if quick else 64)
    branch = Branch(task)
    epochs = 1 if quick else 4
    clips = len(task.train.clip_ids)
    steps = -(-clips // task.training.batch_size)
    size = clips // steps
    shape = (size, 3, task.store.bins, 150)
    step = constant_step(task.spec.network, len(task.classes), shape)

    def ours() -> float:
        began = time.perf_counter()
        branch.train(epochs)
        return epochs * clips / (time.perf_counter() - began)

    def peer() -> float:
        began = time.perf_counter()
        for _ in range(epochs * steps):
            step()
        return epochs * steps * size / (time.perf_counter() - began)

    alternate(1, {"ours": ours, "peer": peer})
    values = alternate(2 if quick else 2 * RUNS + 1, {"ours": ours, "peer": peer})
    return Row(
        what=name,
        unit="windows/s",
        ours=values["ours"],
        peer=values["peer"],
        peer_is="one constant batch",
        target=TARGET,
        limits="Gathering the windows and mixup are two passes over a batch of "
        f"{size * 3 * task.store.bins * 150 * 4 / 1e6:.1f} MB; small networks have short steps.",
    )
