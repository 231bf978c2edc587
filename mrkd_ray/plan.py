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
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.filesize import decimal

from mrkd_ray import cells, checkpoint, costs, grid, probe
from mrkd_ray.cells import Cell
from mrkd_ray.config import GridConfig
from mrkd_ray.costs import Cost
from mrkd_ray.datasets.splits import Split
from mrkd_ray.extraction import CHUNK, Job, extract, missing
from mrkd_ray.features import FeatureStore
from mrkd_ray.grid import Opened
from mrkd_ray.probe import Kind, Measured, Probe, Sizes, kind_of

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
    windows: str  # resident, or streamed
    checkpoints: int  # bytes on disk of one cell while it runs
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
    with grid.opened(config, console) as opened:
        folder = grid.results_folder(config, opened.cells, resume, console) if resume else None
        left = {cell.key: _cycles_left(cell, folder) for cell in opened.cells}
        todo = [cell for cell in opened.cells if left[cell.key]]
        scans, dataset = opened.checked.scans, opened.checked.prepared.dataset
        frames = {clip.clip_id: costs.frames_of(scans[clip.clip_id]) for clip in dataset.clips}
        stores = opened.checked.prepared.stores
        digests = next(iter(stores.values())).digests
        jobs = missing(dataset, stores, digests)
        features, training, kinds, of_cells = 0.0, 0.0, [], []
        if todo:
            at_once = [_at_once(cell, opened) for cell in todo]
            windows = _windows(config, opened, todo, frames)
            features, probed = _probe(config, opened, todo, at_once, jobs, windows, frames)
            sizes = {s.fold: Sizes.of(s, frames) for s in opened.checked.prepared.splits}
            local = opened.workers.cluster is None
            of_cells = [
                costs.cost(cell, left[cell.key], sizes[cell.fold], probed, local, config.profile)
                for cell in todo
            ]
            training = costs.duration(of_cells, at_once) + probed.end
            kinds = _kinds(opened, todo, at_once, of_cells, probed, windows)
    distilled = [cell for cell in opened.cells if cell.condition == "distilled"]
    lengths = {digests[clip_id]: count for clip_id, count in frames.items()}  # same bytes once
    lacking = [(frames[job.clip_id], stores[n].bins) for job in jobs for n in job.representations]
    cluster = opened.workers.cluster
    features_missing = sum(count * bins * 4 for count, bins in lacking)
    results = sum(cost.disk for cost in of_cells)
    checkpoints = max((kind.at_once * kind.checkpoints for kind in kinds), default=0)
    return Plan(
        grid=config.name,
        data=dataset.name,
        clips=len(dataset.clips),
        classes=len(dataset.classes),
        folds=len(opened.checked.prepared.splits),
        distilled=len(distilled),
        independent=len(opened.cells) - len(distilled),
        left=len(todo),
        compared=sum(len(cell.branches) for cell in distilled) if config.independent else 0,
        nodes=len(cluster.nodes) if cluster else 0,
        cpus=cluster.cpus if cluster else config.cpus_per_branch,
        gpus=cluster.gpus if cluster else 0,
        kinds=kinds,
        features=sum(sum(lengths.values()) * store.bins * 4 for store in stores.values()),
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
        warnings=_short_of_disk(config, features_missing, results + checkpoints),
    )


def _probe(
    config: GridConfig,
    opened: Opened,
    todo: Sequence[Cell],
    at_once: Sequence[int],
    jobs: Sequence[Job],
    windows: Mapping[Kind, Windows],
    frames: Mapping[str, int],
) -> tuple[float, Probe]:
    """Return the seconds that the features will take, and what shortened cells took."""
    prepared = opened.checked.prepared
    few = probe.sample(prepared.splits[0], frames, config.batch_size)
    with _temporary(config.cache) as folder:
        stores, seconds = _sample_features(opened, jobs, few, folder)
        small = replace(prepared, splits=(few,), stores=stores)
        kept = [
            replace(cell, windows="resident" if all(windows[kind_of(cell)].kept) else "streamed")
            for cell in todo
        ]
        return seconds, probe.measure(config, opened, kept, small, at_once, frames, folder)


def _kinds(
    opened: Opened,
    todo: Sequence[Cell],
    at_once: Sequence[int],
    of_cells: Sequence[Cost],
    probed: Probe,
    windows: Mapping[Kind, Windows],
) -> list[KindPlan]:
    found: dict[Kind, list[int]] = {}
    for i, cell in enumerate(todo):
        found.setdefault(kind_of(cell), []).append(i)
    local = opened.workers.cluster is None
    return [
        KindPlan(
            condition=kind[0],
            cohort=todo[members[0]].cohort,
            cells=len(members),
            at_once=min(at_once[members[0]], len(members)),
            gpus=opened.shares(len(kind[1])),
            memory=windows[kind].memory(probed.kinds[kind], local),
            windows="resident" if all(windows[kind].kept) else "streamed",
            checkpoints=of_cells[members[0]].checkpoints,
            seconds=float(np.mean([of_cells[i].turn.warm + of_cells[i].seconds for i in members])),
        )
        for kind, members in found.items()
    ]


@dataclass(frozen=True)
class Windows:
    """Of each branch of a kind: the bytes of its windows, and whether they are kept."""

    needed: tuple[int, ...]
    kept: tuple[bool, ...]

    def memory(self, measured: Measured, local: bool) -> int:
        """Return the bytes of the largest branch; of all of them, where one process has them."""
        grown = [
            kept * needed - probed
            for needed, kept, probed in zip(
                self.needed, self.kept, measured.window_bytes, strict=True
            )
        ]
        if local:
            return measured.peak_bytes[0] + sum(grown)
        return max(peak + more for peak, more in zip(measured.peak_bytes, grown, strict=True))


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
        kept = tuple(config.windows != "streamed" and each <= room for each in needed)
        found[kind] = Windows(tuple(needed), kept)
    return found


def _budget(task: BranchTask) -> int:
    from mrkd_ray import memory  # PyTorch, in a worker

    return memory.budget(task)


def _there(folder: Path) -> Path:
    """Return where a folder is or will be: the nearest that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _free(folder: Path) -> int:
    return shutil.disk_usage(_there(folder)).free


def _short_of_disk(config: GridConfig, features: int, results: int) -> list[str]:
    """Say where less is free than a run needs; the two folders may share a disk."""
    needs: dict[int, list[tuple[Path, int]]] = {}
    for folder, size in ((config.cache, features), (config.output, results)):
        needs.setdefault(_there(folder).stat().st_dev, []).append((folder, size))
    return [
        f"{' and '.join(str(folder) for folder, _ in own)} will need "
        f"{decimal(sum(size for _, size in own))}, and {decimal(_free(own[0][0]))} are free there"
        for own in needs.values()
        if sum(size for _, size in own) > _free(own[0][0])
    ]


def show(plan: Plan, console: Console) -> None:
    """Print a plan for people, within 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    facts = Table(title=f"{plan.grid} on {plan.data}", show_header=False, box=None)
    facts.title_justify, facts.title_style = "left", "bold"
    facts.add_column(min_width=16)
    facts.add_column()
    for name, value in _facts(plan):
        facts.add_row(name, value)
    console.print(facts)
    if not plan.kinds:
        return
    shown = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("cells of a kind", min_width=30)
    for heading in ("cells", "at once", "GPUs", "a branch", "a cell"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for kind in plan.kinds:
        shown.add_row(
            f"{kind.condition} {kind.cohort.replace('+', ' + ')}",
            str(kind.cells),
            str(kind.at_once),
            f"{kind.gpus * (kind.cohort.count('+') + 1):g}",
            decimal(kind.memory),
            _time(kind.seconds),
        )
    console.print()
    console.print(shown)
    streamed = any(kind.windows == "streamed" for kind in plan.kinds)
    caption = "GPUs: of a cell. A branch: memory of its process, or on its card"
    caption += "; windows are streamed where it lacks. " if streamed else ". "
    console.print(caption + "A cell: its time once processes are there.", style="dim")
    for warning in plan.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "data", f"{plan.clips} clips, {plan.classes} classes, {plan.folds} fold(s)"
    finished = plan.distilled + plan.independent - plan.left
    cells_ = f"{plan.distilled} distilled, {plan.independent} independent"
    yield "cells", cells_ + (f"; {finished} of them are finished" if finished else "")
    if plan.compared:
        yield "baselines", f"{plan.compared} comparisons share {plan.independent} trainings"
    where = f"{plan.cpus:g} CPUs and {plan.gpus:g} GPUs on {plan.nodes} node(s)"
    yield "workers", where if plan.nodes else "this process"
    lacking = f"{decimal(plan.features_missing)} to compute; {decimal(plan.cache_free)} free"
    yield "features", f"{decimal(plan.features)}, of them {lacking}"
    labels = f"{decimal(plan.soft_labels)} soft labels; {decimal(plan.output_free)} free"
    yield "results", f"{decimal(plan.results)}, of them {labels}"
    yield "checkpoints", f"{decimal(plan.checkpoints)} more while cells run"
    parts = {
        "start": plan.startup_seconds,
        "features": plan.features_seconds,
        "training": plan.training_seconds,
    }
    spent = ", ".join(f"{name} {_time(seconds)}" for name, seconds in parts.items())
    yield "will take about", f"{_time(plan.seconds)}: {spent}"
    yield "this plan took", _time(plan.plan_seconds)


def _time(seconds: float) -> str:
    """Two units at most: 42 s, 3 min 5 s, 2 h 10 min, 4 d 3 h."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
