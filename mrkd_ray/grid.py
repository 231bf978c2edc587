"""A grid from start to table: check the data, compute features, run the cells, gather results."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from mrkd_ray import cells, environment, results
from mrkd_ray.averaging import AVERAGES
from mrkd_ray.cells import Cell, Prepared
from mrkd_ray.config import BranchSpec, GridConfig, Run, TrainConfig, Training, to_yaml
from mrkd_ray.datasets import open_dataset
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.check import Skipped, check, scan
from mrkd_ray.datasets.splits import Split, make_splits
from mrkd_ray.errors import UserError
from mrkd_ray.extraction import extract
from mrkd_ray.files import write_json, write_text
from mrkd_ray.mapping import serial_map
from mrkd_ray.progress import Display
from mrkd_ray.representations import REPRESENTATIONS

Map = Callable[..., Iterator[Any]]


@dataclass(frozen=True)
class Workers:
    """Where work is done: a map over items, and the cluster, None in this process."""

    map: Map
    cluster: Any = None  # mrkd_ray.cluster.Cluster, which needs Ray


def train(config: TrainConfig | None = None, **fields: Any) -> results.Results:
    """Train one cohort: the fields of `TrainConfig`, as an object or by keyword.

    Example:
        `train(data="my_clips", branches=["logmel64:resnet_small", "cqt:vgg_small"])`

    Raises:
        UserError: bad input, before any training.
        CellsFailed: some cells did not finish; the finished ones are kept.
    """
    from mrkd_ray.config import parse

    config = config or parse(TrainConfig, fields, "train()")
    return run(config.as_grid())


class CellsFailed(RuntimeError):
    """Some cells did not finish; `--resume` takes them up again."""


def run(
    config: GridConfig,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> results.Results:
    """Run a grid and return its results; see `train` for what is raised.

    Args:
        resume: go on in the newest folder of this name: finished cells are kept as they are, and
            unfinished ones go on from their last cycle. Otherwise a taken name gets a number.
        console: where progress is shown; default: standard error.
    """
    began = time.perf_counter()
    console = console or Console(stderr=True)
    check_names(config)
    dataset = open_dataset(config.data, config.cache)
    for note in dataset.notes:
        console.print(f"note: {note}", markup=False)
    largest = max(len(pairing) for pairing in config.pairings)
    with _workers(config, largest) as workers, Display(console) as display:
        if workers.cluster is not None and workers.cluster.dashboard:
            console.print(f"Ray dashboard: {workers.cluster.dashboard}", markup=False)
        for line in check_networks(config, workers.map):
            console.print(line, markup=False, soft_wrap=True)
        names = sorted({spec.representation for spec in _specs(config)})
        prepared, skipped = prepare(
            config, dataset, names, workers.map, display, console, config.held_out
        )
        todo = expand(config, prepared)
        gpus = _gpus(config, todo, workers)
        folder = _folder(config, resume)
        _write_request(folder, config, skipped)
        failed = _run_cells(config, todo, prepared, folder, gpus, workers, display)
    gathered = results.gather(folder, config.name, todo, time.perf_counter() - began)
    if failed:
        listed = "\n".join(f"  {key}: {error.strip().splitlines()[-1]}" for key, error in failed)
        raise CellsFailed(
            f"{len(failed)} of {len(todo)} cells did not finish; --resume takes them up again.\n"
            f"{listed}\nWhat is finished is in {folder}."
        )
    return gathered


def prepare_only(config: Run, names: Sequence[str], console: Console) -> Prepared:
    """Check a data set and compute representations, for runs to come."""
    for name in names:
        REPRESENTATIONS[name]
    dataset = open_dataset(config.data, config.cache)
    with _workers(config, 1) as workers, Display(console) as display:
        return prepare(config, dataset, names, workers.map, display, console)[0]


def check_names(config: GridConfig) -> None:
    """Refuse unknown representations and averages, and options that do not go together."""
    for spec in _specs(config):
        REPRESENTATIONS[spec.representation]
    if AVERAGES[config.average].weighted and config.held_out == 0:
        raise UserError(
            f"average {config.average!r} weighs branches by their accuracy on held-out clips: "
            "set held_out, for example --held-out 0.1"
        )


def check_networks(config: GridConfig, map_: Map) -> list[str]:
    """Refuse networks that cannot be built, and weights that are not there or do not fit.

    Returns:
        For each network that starts from loaded weights, one line of what was loaded.
    """
    wanted = {
        (spec.network, config.weights, REPRESENTATIONS[spec.representation].bins)
        for spec in _specs(config)
    }
    lines = set()
    for error, line in map_(_try_network, sorted(wanted, key=str)):
        if error:
            raise UserError(error)
        lines.add(line)
    return sorted(lines - {""})


def _try_network(wanted: tuple[str, str | None, int]) -> tuple[str, str]:
    """Return what is wrong with a network and its weights, and what was loaded."""
    from mrkd_ray.networks import build, default_weights

    name, weights, bins = wanted
    try:
        report = build(name, 2, weights or default_weights(name), bins=bins)[1]
    except UserError as error:
        return str(error), ""
    return "", f"{name}, {report.summary()}" if report.source != "none" else ""


def prepare(
    config: Run,
    dataset: Dataset,
    representations: Sequence[str],
    map_: Map,
    display: Display,
    console: Console,
    held_out: float = 0.0,
) -> tuple[Prepared, list[Skipped]]:
    """Check a data set and compute its features; return both with the clips left out.

    Raises:
        UserError: lists everything that is wrong with the data set.
    """
    folds = config.folds if config.folds == "all" else list(config.folds)
    scans = scan(dataset, config.cache, map_, display.step("Checking clips"))

    def splits_of(candidate: Dataset) -> list[Split]:
        return make_splits(candidate, folds, config.split_seed, held_out)

    dataset, problems, skipped = check(dataset, scans, splits_of, config.skip_bad)
    for problem in problems:
        if problem.severity == "warning":
            console.print(f"warning: {problem}", markup=False)
    if skipped:
        console.print(f"left out {len(skipped)} clips (--skip-bad)", markup=False)
    digests = {clip.clip_id: scans[clip.clip_id].digest for clip in dataset.clips}
    show = display.step(f"Computing {', '.join(representations)}")
    stores = extract(dataset, representations, config.cache.absolute(), digests, map_, show)
    content = _hash(dataset.fingerprint, digests, config.split_seed)
    splits = tuple(splits_of(dataset))
    prepared = Prepared(
        dataset=dataset,
        splits=splits,
        stores=stores,
        content=content,
        split_seed=config.split_seed,
    )
    return prepared, skipped


def expand(config: GridConfig, prepared: Prepared) -> list[Cell]:
    """Return the grid's cells: baselines first, each once, then the cohorts."""
    independent: dict[str, Cell] = {}
    distilled: dict[str, Cell] = {}
    training = Training(**{name: getattr(config, name) for name in Training.model_fields})
    for split in prepared.splits:
        for seed in config.seeds:
            for pairing in config.pairings:
                for temperature in config.temperatures:
                    cell = Cell(
                        condition="distilled",
                        branches=pairing,
                        temperature=temperature,
                        fold=split.fold,
                        seed=seed,
                        training=training,
                        content=_content(prepared, pairing),
                    )
                    distilled[cell.key] = cell
                for spec in pairing if config.independent else ():
                    alone = cells.independent_cell(spec, cell, _content(prepared, (spec,)))
                    independent[alone.key] = alone
    return [*independent.values(), *distilled.values()]


def _content(prepared: Prepared, branches: Sequence[BranchSpec]) -> str:
    used = {spec.representation for spec in branches}
    return _hash(prepared.content, {name: prepared.stores[name].version for name in used})


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _specs(config: GridConfig) -> list[BranchSpec]:
    return [spec for pairing in config.pairings for spec in pairing]


@contextmanager
def _workers(config: Run, largest: int) -> Iterator[Workers]:
    if config.runner == "local":
        yield Workers(serial_map)
        return
    from mrkd_ray.actors import ray_map
    from mrkd_ray.cluster import connect

    with connect(config.address, min_cpus=largest * config.cpus_per_branch) as cluster:
        yield Workers(ray_map, cluster)


def _gpus(config: GridConfig, todo: Sequence[Cell], workers: Workers) -> dict[str, float]:
    """Return the GPUs of a branch in each cell, after a check that every cell can be placed."""
    gpus: dict[str, float] = {}
    for cell in todo:
        branches, share = len(cell.branches), config.gpus_per_branch
        if workers.cluster is None:
            gpus[cell.key] = 0.0
            continue
        gpus[cell.key] = workers.cluster.gpus_per_branch(branches) if share is None else share
        workers.cluster.check_fits(cell.key, branches, config.cpus_per_branch, gpus[cell.key])
    return gpus


def _folder(config: GridConfig, resume: bool) -> Path:
    """Return the folder to write to: the newest of this name, or a new one."""
    root = config.output.absolute()
    pattern = re.compile(re.escape(config.name) + r"(?:-(\d+))?")
    taken = {
        int(match[1] or 1)
        for path in (root.iterdir() if root.exists() else ())
        if (match := pattern.fullmatch(path.name))
    }
    number = max(taken, default=0) + (0 if resume and taken else 1)
    return root / (config.name if number == 1 else f"{config.name}-{number}")


def _write_request(folder: Path, config: GridConfig, skipped: list[Skipped]) -> None:
    write_text(folder / "grid.yaml", to_yaml(config))
    write_json(folder / "environment.json", environment.describe())
    if skipped:
        write_json(folder / "skipped.json", [clip._asdict() for clip in skipped])


def _run_cells(
    config: GridConfig,
    grid: Sequence[Cell],
    prepared: Prepared,
    folder: Path,
    gpus: Mapping[str, float],
    workers: Workers,
    display: Display,
) -> list[tuple[str, str]]:
    """Run what is not finished; return the key and the error of each cell that failed."""
    by_key = {
        cell.key: cell for cell in grid if cells.finished(folder / "cells" / cell.key) is None
    }
    display.grid(len(by_key), len(by_key) * config.cycles)

    def on_cycle(key: str, rows: list[cells.Row]) -> None:
        display.cycle(key, by_key[key].title, config.cycles, rows)

    if not by_key:
        return []
    if workers.cluster is not None:
        from mrkd_ray.trial import run_cells

        failed = run_cells(
            list(by_key.values()),
            prepared,
            folder,
            cpus=config.cpus_per_branch,
            gpus=gpus,
            on_cycle=on_cycle,
            on_end=display.end,
        )
        return list(failed.items())
    from mrkd_ray.cohort import LocalCohort

    for key, cell in by_key.items():
        cell_folder = folder / "cells" / key
        device = environment.local_device()
        tasks = cells.branch_tasks(cell, prepared, device=device, threads=config.cpus_per_branch)
        cohort = LocalCohort(tasks, cell_folder)
        cells.run(cell, tasks, cohort, cell_folder, partial(on_cycle, key))
        display.end(key)
    return []
