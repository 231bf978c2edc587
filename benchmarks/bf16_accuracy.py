"""Accuracy of a branch trained in bf16 against fp32, for each fold from the same seeds.

python -m benchmarks.bf16_accuracy --data ../shared/data/esc10 [--epochs 30] [--seeds 0..2]

The difference between precisions is shown beside what another seed alone does to fp32.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

from mrkd_ray import metrics
from mrkd_ray.branch import Branch
from mrkd_ray.cells import Cell, branch_names, branch_tasks
from mrkd_ray.config import GridConfig, Training, parse
from mrkd_ray.datasets import open_dataset
from mrkd_ray.environment import describe, local_device
from mrkd_ray.mapping import serial_map
from mrkd_ray.preparation import prepare
from mrkd_ray.progress import Display

RESULT = Path(__file__).parent / "results" / "bf16_accuracy.json"


def main(arguments: list[str] | None = None) -> None:
    """Train every fold in both precisions, print the accuracies and write `RESULT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/esc10")
    parser.add_argument("--cache", default="cache")
    parser.add_argument("--branch", default="logmel64:resnet_small")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--folds", default="1,2,3,4,5")
    parser.add_argument("--seeds", default="0..2")
    options = parser.parse_args(arguments)
    asked = {"data": options.data, "cache": options.cache, "pairings": [options.branch]}
    config = parse(
        GridConfig, {**asked, "folds": options.folds, "seeds": options.seeds}, "command line"
    )
    (spec,) = config.pairings[0]
    console = Console(quiet=True)
    with Display(console) as display:
        dataset = open_dataset(config.data, config.cache)
        names = [spec.representation]
        prepared = prepare(config, dataset, names, serial_map, display, console)[0]
    rows = []
    for split, seed in itertools.product(prepared.splits, config.seeds):
        row: dict[str, float] = {"fold": split.fold, "seed": seed}
        for precision in ("fp32", "bf16"):
            values = {"cycles": options.epochs, "b": 0, "d": 1, "precision": precision}
            training = parse(Training, values, "benchmark")
            cell = Cell(
                condition="independent",
                branches=(spec,),
                names=branch_names((spec,)),
                temperature=None,
                fold=split.fold,
                seed=seed,
                training=training,
                device=local_device(),
                threads=1,
                content="",
            )
            (task,) = branch_tasks(cell, prepared)
            branch = Branch(task)
            with tempfile.TemporaryDirectory() as folder:
                for _ in range(training.cycles):
                    branch.train(1)
                    branch.end_cycle(Path(folder))
            row[precision] = metrics.accuracy(branch.probabilities("test"), task.test.labels)
        rows.append(row)
        print(json.dumps(row), flush=True)
    differences = np.array([row["bf16"] - row["fp32"] for row in rows])
    by_seed = np.array([row["fp32"] for row in rows]).reshape(-1, len(config.seeds))
    figures = {
        "fp32": float(np.mean([row["fp32"] for row in rows])),
        "bf16": float(np.mean([row["bf16"] for row in rows])),
        "difference": float(differences.mean()),
        "standard_error": float(differences.std(ddof=1) / len(rows) ** 0.5)
        if len(rows) > 1
        else None,
        # Root of the mean variance within a fold, of a difference between two seeds.
        "fp32_between_seeds": float(np.sqrt(2 * by_seed.var(axis=1, ddof=1).mean()))
        if len(config.seeds) > 1
        else None,
        "precisions_apart": float(np.sqrt((differences**2).mean())),
    }
    print(json.dumps(figures))
    result = {**figures, "runs": rows, "epochs": options.epochs, "branch": str(spec)}
    RESULT.parent.mkdir(exist_ok=True)
    environment = {key: value for key, value in describe().items() if key != "command"}
    RESULT.write_text(json.dumps({**result, "environment": environment}, indent=1) + "\n")


if __name__ == "__main__":
    main()
