"""A grid's folder as a run leaves it, with made-up predictions: nothing is trained."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.cell import Cell, branch_names, independent_cell, with_baselines
from mrkd_ray.common import environment
from mrkd_ray.common.files import write_json, write_text
from mrkd_ray.config.parsing import parse, to_yaml
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.results.gather import gather
from mrkd_ray.training.branch_task import Part

TABLE6 = (
    "logmel64:resnet_small+mfcc:vgg_small",
    "mfcc:resnet_small+logmel64:vgg_small",
    "logmel64:resnet_small+cqt:vgg_small",
)

NETWORKS = ("resnet_small", "vgg_small")


def fake_grid(
    folder: Path,
    *,
    pairings: tuple[str, ...] = TABLE6,
    temperatures: tuple[float, ...] = (1, 2, 4),
    folds: tuple[int, ...] = (1, 2),
    seeds: tuple[int, ...] = (0,),
    classes: int | tuple[str, ...] = 5,
    clips: int = 30,
    dataset: str = "fake",
    gain: float = 0.1,
    **fields: object,
) -> Path:
    """Write the folder and return it; `gain` is what distillation adds to the hit rate of 0.6."""
    asked = {"data": "nowhere", "cohorts": pairings, "temperatures": temperatures, "cycles": 3}
    asked["paper"] = True
    asked |= {"name": folder.name, "folds": folds, "seeds": seeds, **fields}
    config = parse(GridConfig, asked, "fake")
    names = classes if isinstance(classes, tuple) else tuple(f"class {i}" for i in range(classes))
    rng = np.random.default_rng(0)
    done: dict[str, Cell] = {}
    for pairing, fold, seed in product(config.cohorts, folds, seeds):
        for variant, asked_here in config.by_variant().items():
            for temperature in asked_here.temperatures:
                cell = Cell(
                    condition="distilled",
                    branches=pairing,
                    names=branch_names(pairing),
                    temperature=temperature,
                    fold=fold,
                    seed=seed,
                    training=asked_here.training,
                    device="cpu",
                    content="fake",
                    variant=variant,
                )
                alone = [
                    independent_cell(name, cell, device="cpu", content="fake")
                    for name in cell.names
                ]
                alone *= config.independent
                cell = with_baselines(cell, alone)
                done |= {c.key: c for c in (*alone, cell)}
    labels = np.arange(clips) % len(names)
    for cell in done.values():
        if config.alone and cell.condition == "distilled":
            continue
        rate = 0.6 + gain * (cell.condition == "distilled")
        part = Part(clip_ids=tuple(f"{cell.fold}-{i}" for i in range(clips)), labels=labels)
        _write(folder / "cells" / cell.key, cell, part, names, dataset, rate, rng)
    gather(folder, config.name, list(done.values()))
    write_json(folder / "environment.json", environment.describe())
    write_text(folder / "grid.yaml", to_yaml(config))
    return folder


def fake_embed(*probabilities: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """As many points as t-SNE's, sooner."""
    return [np.random.default_rng(0).normal(size=(len(p), 2)) for p in probabilities]


def _write(
    folder: Path,
    cell: Cell,
    part: Part,
    classes: tuple[str, ...],
    dataset: str,
    rate: float,
    rng: np.random.Generator,
) -> None:
    cycles = cell.training.cycles
    if cell.training.early_stop and cell.condition == "independent":
        cycles -= 1 + NETWORKS.index(cell.branches[0].network)  # each stops somewhere else
    scores = {name: _probabilities(part.labels, len(classes), rate, rng) for name in cell.names}
    predicted = [[p.argmax(axis=1).tolist() for p in scores.values()] for _ in range(cycles)]
    if len(cell.names) > 1:
        scores["ensemble"] = np.mean(list(scores.values()), axis=0)
    cell_files.write_predictions(folder, part, classes, scores)
    distilled = {"seconds_soft_labels": 0.5, "loss_distil_ce": 0.8, "loss_distil_kl": 0.2}
    distilled |= {"seconds_distil": 1.0}
    rows = [
        {"cycle": cycle, "branch": name, "windows": "resident, 1.0 MiB", "peak_bytes": 10**6}
        | {"lr": 0.05, "loss_ce": 2.0 / (cycle + 1), "seconds_train": 1.0}
        | (distilled | {"teacher_entropy": 3.0 - cycle} if cell.temperature else {})
        | {"accuracy": rate, "map3": rate, "seconds_evaluate": 0.1}
        | {"seconds_checkpoint": 0.1, "seconds": 3.0}
        for cycle in range(cycles)
        for name in cell.names
    ]
    cell_files.write_history(folder, rows, predicted)
    models = [
        {"model": name, "accuracy": float(hits), "map3": float(hits)}
        for name, p in scores.items()
        for hits in [(p.argmax(axis=1) == part.labels).mean()]
    ]
    result = {"dataset": dataset, "epochs": 2 * cycles, "clips": len(part.labels)}
    write_json(folder / "result.json", {**result, "seconds": 60.0, "models": models})


def _probabilities(
    labels: NDArray[np.int64], classes: int, rate: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return [n, classes] whose highest is the label's with probability `rate`."""
    p = rng.dirichlet(np.ones(classes), len(labels)).astype(np.float32)
    top = np.where(rng.random(len(labels)) < rate, labels, rng.integers(0, classes, len(labels)))
    rows = np.arange(len(labels))
    best = p.argmax(axis=1)
    p[rows, best], p[rows, top] = p[rows, top], p[rows, best]
    return p
