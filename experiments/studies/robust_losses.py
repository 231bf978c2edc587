"""Wrong labels: two published losses on a frozen embedding, beside the cross-entropy.

    python experiments/studies/robust_losses.py --data ../shared/data/esc50

GCE (Zhang and Sabuncu 2018, q = 0.7) and ELR (Liu et al. 2020, λ = 3, β = 0.7) train one linear
layer on clips' embeddings, with the wrong labels, batches, epochs and schedule of `mrkd grid`. For
each weight decay: the accuracy in % of fold 1, by which to choose one, and of the other folds.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.features.store import Bank
from mrkd_ray.grid.opening import open_grid
from mrkd_ray.method.algorithm import learning_rate
from mrkd_ray.method.losses import hard_label_loss
from mrkd_ray.training.branch_task import BranchTask

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of logits [B, M], labels [B] and remembered predictions [B, M], which it may change."""


def cross_entropy(logits: Tensor, labels: Tensor, remembered: Tensor) -> Tensor:
    """The usual loss."""
    return F.cross_entropy(logits, labels)


def gce(logits: Tensor, labels: Tensor, remembered: Tensor) -> Tensor:
    """`--gce 0.7`."""
    return hard_label_loss(logits, F.one_hot(labels, logits.shape[1]), 0.7)


def elr(
    logits: Tensor, labels: Tensor, remembered: Tensor, weight: float = 3.0, momentum: float = 0.7
) -> Tensor:
    """Early-learning regularisation: stay near what was predicted in earlier epochs."""
    belief = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
    remembered.lerp_(belief.detach() / belief.detach().sum(1, keepdim=True), 1 - momentum)
    like = (remembered * belief).sum(1).clamp_max(1 - 1e-4)
    return F.cross_entropy(logits, labels) + weight * (1 - like).log().mean()


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "GCE": gce, "ELR": elr}


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--representation", default="mn04")
    parser.add_argument("--label-noise", default=0.3, type=float)
    parser.add_argument("--weight-decays", default="0.01,0.03,0.1")
    parser.add_argument("--lr", default=0.01, type=float)
    parser.add_argument("--seeds", default="0..2")
    parser.add_argument("--cache", default="cache", type=Path)
    asked = parser.parse_args()
    decays = [float(value) for value in asked.weight_decays.split(",")]
    config = {
        "cohorts": [f"{asked.representation}:linear"],
        "data": asked.data,
        "cache": asked.cache,
        "seeds": asked.seeds,
        "folds": "all",
        "label_noise": asked.label_noise,
        "lr": asked.lr,
        "alone": True,
        "cycles": 40,
        "runner": "local",
    }
    torch.set_num_threads(1)
    try:
        found = accuracies(parse(GridConfig, config, "robust_losses"), decays)
    except UserError as error:
        raise SystemExit(str(error)) from None
    table = Table("loss", "weight decay", "fold 1, %", "other folds, %", "all, %")
    for (loss, decay), by_run in found.items():
        first = [value for (fold, _), value in by_run.items() if fold == 1]
        rest = [value for (fold, _), value in by_run.items() if fold != 1]
        parts = (first, rest, first + rest)
        table.add_row(loss, f"{decay:g}", *(f"{100 * np.mean(part):.1f}" for part in parts))
    Console().print(table)


def accuracies(
    config: GridConfig, decays: list[float]
) -> dict[tuple[str, float], dict[tuple[int, int], float]]:
    """Return the accuracy of each fold and seed, by loss and weight decay."""
    with open_grid(config, Console(stderr=True)) as opened:
        tasks = [branch_tasks(cell, opened.prepared)[0] for cell in opened.cells]
    tasks = [task for task in tasks if task.provenance["condition"] == "independent"]
    found: dict[tuple[str, float], dict[tuple[int, int], float]] = {}
    for name, loss in LOSSES.items():
        for decay in decays:
            runs = {(task.fold, task.seed): accuracy(task, loss, decay) for task in tasks}
            found[name, decay] = runs
    return found


def accuracy(task: BranchTask, loss: Loss, decay: float) -> float:
    """Train on a task's wrong labels; return the accuracy on its test clips."""
    train, test = (means(task.store.bank(part.clip_ids)) for part in (task.train, task.test))
    mean, deviation = train.mean(0), train.std(0).clamp_min(1e-3)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    labels = torch.from_numpy(task.train.labels)
    torch.manual_seed(task.seed)
    layer = torch.nn.Linear(train.shape[1], len(task.classes))
    options = task.training
    sgd = torch.optim.SGD(layer.parameters(), momentum=options.momentum, weight_decay=decay)
    remembered = torch.zeros(len(train), len(task.classes))
    for epoch in range(options.cycles):
        sgd.param_groups[0]["lr"] = learning_rate(options.lr or 0.01, epoch, options.cycles)
        for rows in torch.randperm(len(train)).tensor_split(-(-len(train) // options.batch_size)):
            kept = remembered[rows]
            value = loss(layer(train[rows]), labels[rows], kept)
            remembered[rows] = kept
            sgd.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            sgd.step()
    predicted = layer(test).argmax(1).numpy()
    return float((predicted == task.test.labels).mean())


def means(bank: Bank) -> Tensor:
    """Return the mean embedding [n, D] of each clip."""
    places = zip(bank.offsets.tolist(), bank.lengths.tolist(), strict=True)
    return torch.from_numpy(np.stack([bank.frames[i : i + n].mean(axis=0) for i, n in places]))


if __name__ == "__main__":
    main()
