"""All that a grid needs is checked before it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common import environment
from mrkd_ray.common.files import check_folders, check_name
from mrkd_ray.common.progress import Display
from mrkd_ray.config.method import default_cycles
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.datasets.splits import Splitter
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.grid.expand import check_multi_label, check_names, expand, idle_options, specs_of
from mrkd_ray.grid.network_checks import Initial, check_networks
from mrkd_ray.grid.preparation import check_data, open_data, warn_of_names
from mrkd_ray.grid.workers import Workers, workers_of


@dataclass(frozen=True)
class OpenGrid:
    """A grid that is ready to run, but for features that are not computed yet.

    Attributes:
        config: as asked, with the default number of cycles where none was.
        cells: to run, or finished already.
        untaught: with `alone`, the cells of cohorts, which are not run: they name their baselines.
        prepared: the data set, its splits and features.
        workers: what runs them.
        display: progress for people.
        startup: seconds until the workers were there and the networks checked.
    """

    config: GridConfig
    cells: list[Cell]
    prepared: Prepared
    workers: Workers
    display: Display
    startup: float
    untaught: Sequence[Cell] = ()

    @property
    def by_key(self) -> dict[str, Cell]:
        """The cells by key: variants that are the same at T = 1 share theirs."""
        return {cell.key: cell for cell in self.cells}


@contextmanager
def open_grid(config: GridConfig, console: Console, *, resume: bool = False) -> Iterator[OpenGrid]:
    """Check all that a grid needs, on the workers that it will run on.

    Args:
        resume: where it is not said how many cycles, as many as the folder was made with that the
            run goes on in.

    Raises:
        UserError: bad input, before any long work.
    """
    check_names(config)
    check_folders(config.cache, config.output)
    dataset = open_data(
        config.data, config.cache, config.unlabelled, console, group_by=config.group_by
    )
    specs = specs_of(config)
    largest = max(len(cohort) for cohort in config.cohorts)
    began = time.perf_counter()
    with (
        workers_of(
            config.runner,
            config.address,
            min_cpus=largest * config.cpus_per_branch,
            gpus_per_branch=config.gpus_per_branch,
        ) as workers,
        Display(console) as display,
    ):
        if workers.cluster is not None and workers.cluster.dashboard:
            console.print(f"Ray dashboard: {workers.cluster.dashboard}", markup=False)
        networks = check_networks(specs, config.weights, workers.map)
        for initial in networks.values() if config.weights else ():
            console.print(initial.line, markup=False, soft_wrap=True)
        startup = time.perf_counter() - began
        prepared = check_data(
            dataset,
            sorted({spec.representation for spec in specs}),
            Splitter(
                folds=config.folds,
                seed=config.split_seed,
                held_out=config.held_out,
                verified_only=config.verified_only,
            ),
            cache=config.cache,
            skip_bad=config.skip_bad,
            map_=workers.map,
            display=display,
            console=console,
        )
        warn_of_names(prepared, config.group_by, console)
        if config.cycles is None:
            config = _with_cycles(config, prepared, networks, workers, resume, console)
        for line in idle_options(config, prepared, networks):
            console.print(f"note: {line}", markup=False)
        cells = expand(config, prepared, networks, workers.gpus)
        check_name(config.output, max((f".{cell.key}.tmp" for cell in cells), key=len))
        if dataset.multi_label:
            check_multi_label({cell.training for cell in cells})
        if workers.cluster is not None:
            for cell in cells:
                share = workers.gpus(len(cell.branches))
                workers.cluster.check_fits(cell.key, len(cell.branches), cell.cpus, share)
        untaught = [c for c in cells if config.alone and c.condition == "distilled"]
        run = [cell for cell in cells if cell not in untaught]
        yield OpenGrid(config, run, prepared, workers, display, startup, untaught)


def _with_cycles(
    config: GridConfig,
    prepared: Prepared,
    networks: Mapping[str, Initial],
    workers: Workers,
    resume: bool,
    console: Console,
) -> GridConfig:
    """Return the grid with a number of cycles, and print which and why."""
    for folder in grid_folder.newest_first(config.output, config.name) if resume else ():
        if cycles := grid_folder.cycles_of(folder):
            asked = config.with_cycles(cycles)
            if grid_folder.holds(folder, expand(asked, prepared, networks, workers.gpus)):
                line = f"note: {cycles} cycles, as in {folder}; --cycles changes it"
                console.print(line, markup=False, soft_wrap=True)
                return asked
    gpus = any(workers.gpus(len(cohort)) > 0 for cohort in config.cohorts)
    if workers.local:
        gpus = environment.local_device() != "cpu"
    cycles = default_cycles(gpus)
    if any(asked.cycles is None for asked in config.by_variant().values()):
        given = "with" if gpus else "without"
        line = f"note: {cycles} cycles: the default {given} a GPU; --cycles changes it"
        console.print(line, markup=False)
    return config.with_cycles(cycles)
