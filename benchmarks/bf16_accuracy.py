"""Accuracy of a branch trained in bf16 beside fp32, from the same folds and seeds."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.common import Result, Row, one_thread
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.scores import metrics
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.branch_task import BranchTask

NAME = "bf16_accuracy"
BRANCH = "logmel64:resnet_small"
EPOCHS, FOLDS, SEEDS = 25, (1, 2, 3, 4, 5), (0, 1)


def run(quick: bool = False) -> Result:
    """Train every fold and seed in both precisions, on the CPU."""
    one_thread()
    epochs, folds, seeds = (1, (1,), (0, 1)) if quick else (EPOCHS, FOLDS, SEEDS)
    pairs = list(itertools.product(folds, seeds))
    prepared = data.prepared("esc10", [BRANCH.partition(":")[0]], quick)
    options = {"cycles": epochs, "b": 0}
    cells = [
        data.cell(BRANCH, temperature=None, fold=fold, seed=seed, precision=precision, **options)
        for (fold, seed), precision in itertools.product(pairs, ("fp32", "bf16"))
    ]
    jobs = [branch_tasks(cell, prepared)[0] for cell in cells]
    accuracies = 100 * np.array(list(data.pool_map(_accuracy, jobs))).reshape(-1, 2)
    fp32, bf16 = accuracies.T
    difference = bf16 - fp32
    error = difference.std(ddof=1) / len(pairs) ** 0.5
    between = np.sqrt(fp32.reshape(len(folds), -1).var(axis=1, ddof=1).mean())
    return Result(
        name=NAME,
        title="Accuracy in bf16",
        how=f"{BRANCH} alone on ESC-10: {epochs} epochs on the CPU, {len(folds)} folds x "
        f"{len(seeds)} seeds, each in fp32 and in bf16. A value is the accuracy of one fold "
        "and seed. A pair of runs shares both.",
        rows=[
            Row(what="accuracy", unit="%", ours=bf16.tolist(), peer=fp32.tolist(), peer_is="fp32")
        ],
        notes=[
            f"Mean accuracy {bf16.mean():.2f} % in bf16 and {fp32.mean():.2f} % in fp32: a "
            f"difference of {difference.mean():+.2f} points with a standard error of {error:.2f} "
            f"over {len(pairs)} pairs of runs. Within a fold, the accuracy of fp32 has a standard "
            f"deviation of {between:.2f} points between seeds."
        ],
        details={"runs (fold, seed)": pairs},
    )


def _accuracy(task: BranchTask) -> float:
    branch = Branch(task)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(task.training.cycles):
            branch.train(task.training.b + task.training.d)
            branch.end_cycle(Path(folder))
    return metrics.accuracy(branch.probabilities("test"), task.test.labels)
