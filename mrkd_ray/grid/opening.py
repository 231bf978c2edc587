"""All that a grid needs is checked before it runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common.files import check_folders
from mrkd_ray.common.progress import Display
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.datasets.splits import Splitter
from mrkd_ray.grid.expand import check_multi_label, check_names, expand, idle_options, specs_of
from mrkd_ray.grid.network_checks import Checked, check_networks
from mrkd_ray.grid.preparation import check_data, open_data
from mrkd_ray.grid.workers import Workers, workers_of

Finished = Callable[[list[Cell]], bool]
"""Says whether all of these cells are finished."""


@dataclass(frozen=True)
class OpenGrid:
    """A grid that is ready to run, but for features that are not computed yet.

    Attributes:
        cells: to run, or finished already.
        prepared: the data set, its splits and features.
        workers: what runs them.
        display: progress for people.
        startup: seconds until all was checked and the workers were there.
    """

    cells: list[Cell]
    prepared: Prepared
    workers: Workers
    display: Display
    startup: float

    @property
    def by_key(self) -> dict[str, Cell]:
        """The cells by key: variants that are the same at T = 1 share theirs."""
        return {cell.key: cell for cell in self.cells}


@contextmanager
def open_grid(
    config: GridConfig,
    console: Console,
    finished: Finished | None = None,
) -> Iterator[OpenGrid]:
    """Check all that a grid needs, while the workers that it will run on start.

    Args:
        config: what is asked.
        console: where progress is shown.
        finished: says whether all of these cells are finished. Where it is given, a cluster is not
            started before it was asked, and not at all where they are.

    Raises:
        UserError: bad input, before any long work.
    """
    check_names(config)
    check_folders(config.cache, config.output)
    dataset = open_data(config.data, config.cache, config.unlabelled, console)
    specs = specs_of(config)
    largest = max(len(cohort) for cohort in config.cohorts)
    began = time.perf_counter()
    with (
        workers_of(
            config,
            functools.partial(console.print, markup=False, soft_wrap=True),
            min_cpus=largest * config.cpus_per_branch,
            gpus_per_branch=config.gpus_per_branch,
            trials=True,
        ) as workers,
        Display(console) as display,
    ):
        if finished is None:
            workers.begin()
        checked = check_networks(specs, config.weights, local=workers.local)
        for initial in checked.networks.values() if config.weights else ():
            console.print(initial.line, markup=False, soft_wrap=True)
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
            map_=workers.map_from_here,
            display=display,
            console=console,
        )
        for line in idle_options(config, prepared, checked.networks):
            console.print(f"note: {line}", markup=False)
        cells = _cells(config, prepared, checked, workers, finished)
        startup = time.perf_counter() - began
        if dataset.multi_label:
            check_multi_label({cell.training for cell in cells})
        yield OpenGrid(cells, prepared, workers, display, startup)


def _cells(
    config: GridConfig,
    prepared: Prepared,
    checked: Checked,
    workers: Workers,
    finished: Finished | None,
) -> list[Cell]:
    """Return the grid's cells, for which the cluster has room unless all are finished."""
    if finished and workers.here:
        given, found = config.gpus_per_branch, float(checked.device == "cuda")
        share = found if given is None else given
        cells = expand(config, prepared, checked.networks, lambda branches: share)
        if finished(cells):
            return cells
    cells = expand(config, prepared, checked.networks, workers.gpus)
    for cell in () if workers.local else cells:
        share = workers.gpus(len(cell.branches))
        workers.cluster.check_fits(cell.key, len(cell.branches), cell.cpus, share)
    return cells
