"""What a grid will take, before anything is spent: cells, machine, memory, disk and time.

Counts and sizes follow from the configuration and the data set; what a cell takes is measured on
shortened ones (`probe`) and scaled (`costs`).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.console import Console

from mrkd_ray import cells, checkpoint, costs, grid, probe
from mrkd_ray.cells import Cell
from mrkd_ray.config import GridConfig
from mrkd_ray.datasets.splits import Split
from mrkd_ray.extraction import CHUNK, Job, extract, missing
from mrkd_ray.features import FeatureStore
from mrkd_ray.grid import Opened
from mrkd_ray.probe import Kind, Measured, Sizes, kind_of

if TYPE_CHECKING:
    from mrkd_ray.task import BranchTask

WAVES = 3  # of chunks of clips on every CPU, to measure what features take


@dataclass(frozen=True, kw_only=True)
class KindPlan:
    """The cells of one cohort in one condition that are left to run."""

    condition: str
    cohort: str
    cells: int
    at_once: int  # side by side on the workers at hand
    gpus: float  # of each branch
    memory: int  # bytes of the largest branch: on its card, else of its process
    windows: str  # of the largest branch: resident or streamed
    seconds: float  # of one cell, in processes that are there


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a grid will take: sizes in bytes, times in seconds."""

    grid: str
    data: str
    clips: int
    classes: int
    folds: int
    distilled: int  # cells in all
    independent: int
    left: int  # cells that are not finished
    compared: int  # branches of distilled cells, each beside an independent one
    nodes: int  # 0 without a cluster
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
    with grid.opened(config, console) as opened:
        startup = time.perf_counter() - began - opened.checked.seconds
        prepared, cluster = opened.checked.prepared, opened.workers.cluster
        folder = grid.results_folder(config, opened.cells, resume, console) if resume else None
        left = {cell.key: _cycles_left(cell, folder) for cell in opened.cells}
        todo = [cell for cell in opened.cells if left[cell.key]]
        at_once = {cell.key: _at_once(cell, opened) for cell in todo}
        frames = {
            clip.clip_id: costs.frames_of(opened.checked.scans[clip.clip_id])
            for clip in prepared.dataset.clips
        }
        digests = next(iter(prepared.stores.values())).digests
        jobs = missing(prepared.dataset, prepared.stores, digests)
        windows = _windows(config, opened, todo, frames)
        few = probe.sample(prepared.splits[0], frames, config.batch_size)
        with _temporary(config.cache) as temporary:
            stores, features_seconds = _sample_features(opened, jobs, few, temporary)
            small = replace(prepared, splits=(few,), stores=stores)
            probed = [replace(cell, windows=_source(windows[kind_of(cell)])) for cell in todo]
            measured = probe.measure(config, opened, probed, small, at_once, frames, temporary)
        shares = {cell.key: opened.shares(len(cell.branches)) for cell in todo}
    sizes = {split.fold: Sizes.of(split, frames) for split in prepared.splits}
    found = {
        cell.key: costs.cost(
            cell,
            left[cell.key],
            sizes[cell.fold],
            measured,
            one_by_one=cluster is None,
            profile=config.profile,
        )
        for cell in todo
    }
    training = measured.end + costs.duration(list(found.values()), list(at_once.values()))
    by_kind: dict[Kind, list[Cell]] = {}
    for cell in todo:
        by_kind.setdefault(kind_of(cell), []).append(cell)
    kinds = []
    for kind, members in by_kind.items():
        cell = members[0]
        memory, source = _memory(measured.kinds[kind], windows[kind], cell.device, cluster is None)
        kinds.append(
            KindPlan(
                condition=cell.condition,
                cohort=cell.cohort,
                cells=len(members),
                at_once=at_once[cell.key],
                gpus=shares[cell.key],
                memory=memory,
                windows=source,
                seconds=float(
                    np.mean([found[c.key].turn.warm + found[c.key].seconds for c in members])
                ),
            )
        )
    distilled = [cell for cell in opened.cells if cell.condition == "distilled"]
    once = {digests[clip_id]: count for clip_id, count in frames.items()}  # the same bytes once
    busiest = max(
        (found[c.key].checkpoints * min(at_once[c.key], len(by_kind[kind_of(c)])) for c in todo),
    )
    return Plan(
        grid=config.name,
        data=prepared.dataset.name,
        clips=len(prepared.dataset.clips),
        classes=len(prepared.dataset.classes),
        folds=len(prepared.splits),
        distilled=len(distilled),
        independent=len(opened.cells) - len(distilled),
        left=len(todo),
        compared=sum(len(cell.branches) for cell in distilled) if config.independent else 0,
        nodes=len(cluster.nodes) if cluster else 0,
        cpus=cluster.cpus if cluster else config.cpus_per_branch,
        gpus=cluster.gpus if cluster else 0,
        kinds=kinds,
        features=sum(
            costs.feature_bytes(once.values(), store.bins) for store in prepared.stores.values()
        ),
        features_missing=sum(
            costs.feature_bytes([frames[job.clip_id]], prepared.stores[name].bins)
            for job in jobs
            for name in job.representations
        ),
        results=sum(cost.disk for cost in found.values()),
        soft_labels=sum(cost.soft_labels for cost in found.values()),
        checkpoints=busiest,
        cache_free=_free(config.cache),
        output_free=_free(config.output),
        startup_seconds=startup,
        features_seconds=features_seconds,
        training_seconds=training,
        seconds=startup + features_seconds + training,
        plan_seconds=time.perf_counter() - began,
    )


def _cycles_left(cell: Cell, folder: Path | None) -> int:
    """Return how many cycles a cell has to run, 0 where it is finished."""
    if folder is None:
        return cell.training.cycles
    own = folder / "cells" / cell.key
    if cells.finished(own) is not None:
        return 0
    found = checkpoint.latest(own / "checkpoint")
    return max(1, cell.training.cycles - (checkpoint.cycle_of(found) if found else 0))


def _at_once(cell: Cell, opened: Opened) -> int:
    if opened.workers.cluster is None:
        return 1
    branches = len(cell.branches)
    room: int = opened.workers.cluster.room(cell.cpus, opened.shares(branches))
    return room // branches


@contextmanager
def _temporary(cache: Path) -> Iterator[Path]:
    """Yield a folder that is removed afterwards: in the cache, which every node sees."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".plan-", dir=cache.absolute(), ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def _sample_features(
    opened: Opened, jobs: Sequence[Job], few: Split, folder: Path
) -> tuple[dict[str, FeatureStore], float]:
    """Compute what lacks, for a few clips, in a folder of its own.

    Returns:
        Stores that have the clips of `few`, and the seconds that all the jobs will take.
    """
    prepared, workers = opened.checked.prepared, opened.workers
    stores = dict(prepared.stores)
    if not jobs:
        return stores, 0.0
    names = sorted({name for job in jobs for name in job.representations})
    count = WAVES * CHUNK * int(workers.cluster.cpus if workers.cluster else 1)
    others = (
        jobs[i].clip_id for i in np.linspace(0, len(jobs) - 1, min(count, len(jobs)), dtype=int)
    )
    wanted = {*few.train, *few.held_out, *few.test, *others}
    dataset = prepared.dataset.without(prepared.dataset.by_id.keys() - wanted)
    show = opened.display.step(f"Probing {', '.join(names)}")
    seen: list[tuple[float, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((time.perf_counter(), done))
        show(done, total)

    stores |= extract(dataset, names, folder, stores[names[0]].digests, workers.map, progress)
    return stores, costs.extrapolate(seen, len(jobs))


Windows = tuple[tuple[int, bool], ...]
"""Of each branch of a kind: the bytes of its windows, and whether they are kept."""


def _windows(
    config: GridConfig, opened: Opened, todo: Sequence[Cell], frames: Mapping[str, int]
) -> dict[Kind, Windows]:
    """Decide as the branches will, for the largest of the splits."""
    prepared = opened.checked.prepared
    lengths = [
        [frames[clip_id] for clip_id in (*split.train, *split.held_out, *split.test)]
        for split in prepared.splits
    ]
    found: dict[Kind, Windows] = {}
    for kind, cell in {kind_of(cell): cell for cell in todo}.items():
        tasks = cells.branch_tasks(replace(cell, fold=prepared.splits[0].fold), prepared)
        needed = [max(costs.window_bytes(own, t.store.bins) for own in lengths) for t in tasks]
        room = max(needed)
        if config.windows == "auto" and cell.device == "cpu":
            (room,) = opened.workers.map(_budget, tasks[:1])
        found[kind] = tuple((n, config.windows != "streamed" and n <= room) for n in needed)
    return found


def _budget(task: BranchTask) -> int:
    from mrkd_ray import memory  # PyTorch, in a worker

    return memory.budget(task)


def _source(windows: Windows) -> Literal["resident", "streamed"]:
    return "resident" if all(kept for _, kept in windows) else "streamed"


def _memory(measured: Measured, windows: Windows, device: str, local: bool) -> tuple[int, str]:
    """Return the bytes of the largest branch, and where its windows are."""
    grown = [
        (size if kept else 0) - probed
        for (size, kept), probed in zip(windows, measured.window_bytes, strict=True)
    ]
    if local:  # all in one process
        return measured.peak_bytes[0] + sum(grown), _source(windows)
    all_ = [peak + more for peak, more in zip(measured.peak_bytes, grown, strict=True)]
    largest = int(np.argmax(all_))
    return all_[largest], "resident" if windows[largest][1] else "streamed"


def _free(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be."""
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free


def show(plan: Plan, console: Console) -> None:
    """Print."""
    console.print(plan)
