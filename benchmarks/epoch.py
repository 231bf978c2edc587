"""A branch's epoch beside the same network and optimiser on one batch that is there already."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks import data
from benchmarks.common import RUNS, Result, Row, alternate, one_thread
from mrkd_ray import losses
from mrkd_ray.branch import Branch
from mrkd_ray.networks import build
from mrkd_ray.task import BranchTask

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
        how="`Branch.train` on ESC-10's fold 1 (320 clips in batches of 64, windows drawn and "
        "gathered, deltas, normalisation, mixup, L_ce), beside the same network, loss and SGD on "
        "one constant batch of the same shape, channels_last. One thread each, in one process.",
        rows=rows,
    )


def _row(name: str, quick: bool) -> Row:
    (task,) = data.tasks("esc10", [name], quick, batch_size=8 if quick else 64)
    branch = Branch(task)
    epochs = 1 if quick else 4
    clips = len(task.train.clip_ids)
    steps = -(-clips // task.training.batch_size)
    size = clips // steps
    step = constant_step(task, size)

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
        **values,
        peer_is="one constant batch",
        target=TARGET,
        limits="Gathering windows, deltas, normalisation and mixup take the rest; small networks "
        "leave little time to hide them in.",
    )


def constant_step(task: BranchTask, size: int, device: str = "cpu") -> Callable[[], None]:
    """Return one training step of the task's network on a batch that never changes."""
    classes = len(task.classes)
    network = build(task.spec.network, classes)[0].to(device)
    network = network.to(memory_format=torch.channels_last).train()
    inputs = torch.randn(size, 3, task.store.bins, 150, device=device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    targets = torch.softmax(torch.randn(size, classes, device=device), dim=1)
    training = task.training
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=training.lr or 0.01,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )

    def step() -> None:
        loss = losses.cross_entropy(network(inputs), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step
