"""What a grid will take, before anything is spent: cells, machine, memory, disk and time.

Counts and sizes follow from the configuration and the data set; what a cell takes is measured on
shortened ones (`probe`) and scaled (`costs`).
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.filesize import decimal

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.cell import Cell
from mrkd_ray.common.files import nearest_folder
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.features.extraction import missing
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.grid.opening import may_be_finished, open_grid
from mrkd_ray.grid.workers import Workers
from mrkd_ray.plan import costs, probe
from mrkd_ray.plan.costs import Cost
from mrkd_ray.plan.measurements import Kind, Probe, Sizes, kind_of, window_of
from mrkd_ray.plan.window_memory import WindowMemory, window_memory_of


@dataclass(frozen=True, kw_only=True)
class KindPlan:
    """The cells of one cohort in one condition, at one cost, that are left to run."""

    condition: str
    cohort: str
    variants: list[str]
    cells: int
    at_once: int  # side by side on the workers at hand
    gpus: float  # of each branch
    memory: int  # bytes of the largest branch: on its card, else of its process
    window_memory: str  # resident, or streamed
    checkpoints: int  # bytes on disk of one cell while it runs
    seconds: float  # of one cell, in processes that are there


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a grid will take: sizes in bytes, times in seconds."""

    grid: str
    data: str
    clips: int  # labelled
    unlabelled: int
    classes: int
    folds: int
    distilled: int  # cells in all
    independent: int
    left: int  # cells that are not finished
    compared: int  # branches of distilled cells, each beside an independent one
    nodes: int  # 0 without a cluster, and where nothing is left to run
    cpus: float
    gpus: float
    kinds: list[KindPlan]
    features: int  # of all representations
    features_missing: int  # of them, those that are not in the cache
    results: int  # of the cells that are left
    soft_labels: int  # of them
    checkpoints: int  # that come and go meanwhile
    cache_free: int  # on the disk of the cache
    output_free: int  # on the disk of the results
    startup_seconds: float
    features_seconds: float
    training_seconds: float
    seconds: float  # of the whole run
    plan_seconds: float  # that making the plan took
    warnings: list[str]


def make(config: GridConfig, *, resume: bool = False, console: Console | None = None) -> Plan:
    """Check a grid as `grid.run` does, measure its kinds of cells, and return its plan.

    Only what the check remembers of the data set's files stays on the disk.

    Args:
        resume: what is finished in the folder that the run would go on in costs nothing more.

    Raises:
        UserError: bad input, or a cell of the probe failed.
    """
    began = time.perf_counter()
    console = console or Console(stderr=True)
    with open_grid(config, console, may_be_finished(config, resume), resume=resume) as opened:
        prepared, workers = opened.prepared, opened.workers
        folder = grid_folder.choose(config.output, config.name, opened.cells, resume)
        finished = grid_folder.finished(opened.cells, folder, config.name)
        cells = list(opened.by_key.values())
        todo = [cell for cell in cells if cell.key not in finished]
        dataset, stores, digests = prepared.dataset, prepared.stores, prepared.digests
        unlabelled = [clip.clip_id for clip in dataset.unlabelled]
        ticks = prepared.ticks
        jobs = missing(dataset, digests, stores)
        features, training, kinds, of_cells = 0.0, 0.0, [], []
        if todo:
            done = [cell_files.cycles_done(folder / "cells" / cell.key) for cell in todo]
            left = [max(1, c.training.cycles - n) for c, n in zip(todo, done, strict=True)]
            at_once = [workers.cells_at_once(len(cell.branches), cell.branch_cpus) for cell in todo]
            windows = window_memory_of(todo, prepared, workers, ticks)
            probed = probe.run(replace(opened, cells=todo), at_once, jobs, windows, ticks)
            features = probed.features
            sizes = {
                (split.fold, window): Sizes.of(split, unlabelled, ticks, window)
                for split in prepared.splits
                for window in probed.sizes
            }
            of_cells = [
                costs.cost(
                    cell,
                    cycles,
                    sizes[cell.fold, window_of(cell)],
                    probed,
                    workers.local,
                    config.profile,
                )
                for cell, cycles in zip(todo, left, strict=True)
            ]
            training = costs.duration(of_cells, at_once) + probed.end
            kinds = _kinds(workers, todo, at_once, of_cells, probed, windows)
    distilled = [cell for cell in cells if cell.condition == "distilled"]
    lengths = {digests[clip_id]: count for clip_id, count in ticks.items()}  # same bytes once
    lacking = [(ticks[job.clip_id], stores[n]) for job in jobs for n in job.representations]
    cluster = workers.cluster if todo else None  # it is not started for nothing
    features_missing = sum(_bytes(store, count) for count, store in lacking)
    results = sum(cost.disk for cost in of_cells)
    checkpoints = max((kind.at_once * kind.checkpoints for kind in kinds), default=0)
    return Plan(
        grid=config.name,
        data=dataset.name,
        clips=len(dataset.clips),
        unlabelled=len(unlabelled),
        classes=len(dataset.classes),
        folds=len(prepared.splits),
        distilled=len(distilled),
        independent=len(cells) - len(distilled),
        left=len(todo),
        compared=sum(len(cell.branches) for cell in distilled) if config.independent else 0,
        nodes=len(cluster.nodes) if cluster else 0,
        cpus=cluster.cpus if cluster else config.cpus_per_branch,
        gpus=cluster.gpus if cluster else 0,
        kinds=kinds,
        features=sum(_bytes(store, n) for store in stores.values() for n in lengths.values()),
        features_missing=features_missing,
        results=results,
        soft_labels=sum(cost.soft_labels for cost in of_cells),
        checkpoints=checkpoints,
        cache_free=_free(config.cache),
        output_free=_free(config.output),
        startup_seconds=opened.startup,
        features_seconds=features,
        training_seconds=training,
        seconds=opened.startup + features + training,
        plan_seconds=time.perf_counter() - began,
        warnings=_short_of_disk(
            (config.cache, features_missing), (config.output, results + checkpoints)
        ),
    )


def _kinds(
    workers: Workers,
    todo: Sequence[Cell],
    at_once: Sequence[int],
    of_cells: Sequence[Cost],
    probed: Probe,
    windows: Mapping[Kind, WindowMemory],
) -> list[KindPlan]:
    found: dict[Kind, list[int]] = {}
    for i, cell in enumerate(todo):
        found.setdefault(kind_of(cell), []).append(i)
    like = Counter(len(cell.branches) for cell in todo)
    return [
        KindPlan(
            condition=kind[0],
            cohort=todo[members[0]].cohort,
            variants=sorted({todo[i].variant for i in members} - {""}),
            cells=len(members),
            at_once=min(at_once[members[0]], like[len(kind[1])]),
            gpus=workers.gpus(len(kind[1])),
            memory=windows[kind].memory(probed.kinds[kind], workers.local),
            window_memory=windows[kind].source,
            checkpoints=max(of_cells[i].checkpoints for i in members),
            seconds=float(np.mean([of_cells[i].turn.warm + of_cells[i].seconds for i in members])),
        )
        for kind, members in found.items()
    ]


def _bytes(store: FeatureStore, ticks: int) -> int:
    """Return what the features of a clip of so many ticks take on disk."""
    return int(store.timing.frames_at(ticks)) * store.bins * 4


def _free(folder: Path) -> int:
    return shutil.disk_usage(nearest_folder(folder)).free


def _short_of_disk(*sizes: tuple[Path, int]) -> list[str]:
    """Say where less is free than a run needs; the two folders may share a disk."""
    needs: dict[int, list[tuple[Path, int]]] = {}
    for folder, size in sizes:
        needs.setdefault(nearest_folder(folder).stat().st_dev, []).append((folder, size))
    return [
        f"{' and '.join(str(folder) for folder, _ in own)} will need "
        f"{decimal(sum(size for _, size in own))}, and {decimal(_free(own[0][0]))} are free there"
        for own in needs.values()
        if sum(size for _, size in own) > _free(own[0][0])
    ]
