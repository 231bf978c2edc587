"""All that a grid needs is checked before it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from mrkd_ray.cells.cell import Cell
from mrkd_ray.common.files import check_folders
from mrkd_ray.common.progress import Display
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid.expand import Shares, _specs, check_multi_label, check_names, expand
from mrkd_ray.grid.network_checks import check_networks
from mrkd_ray.grid.preparation import Checked, check_data, open_data
from mrkd_ray.grid.workers import Workers, workers_of


@dataclass(frozen=True)
class Opened:
    """A grid that is ready to run, but for features that are not computed yet."""

    cells: list[Cell]
    checked: Checked
    shares: Shares
    workers: Workers
    display: Display
    startup: float  # seconds until the workers were there and the networks checked


@contextmanager
def open_grid(config: GridConfig, console: Console) -> Iterator[Opened]:
    """Check all that a grid needs, on the workers that it will run on.

    Raises:
        UserError: bad input, before any long work.
    """
    check_names(config)
    check_folders(config.cache, config.output)
    dataset = open_data(config)
    for note in dataset.notes:
        console.print(f"note: {note}", markup=False)
    specs = _specs(config)
    largest = max(len(pairing) for pairing in config.pairings)
    began = time.perf_counter()
    with workers_of(config, largest) as workers, Display(console) as display:
        if workers.cluster is not None and workers.cluster.dashboard:
            console.print(f"Ray dashboard: {workers.cluster.dashboard}", markup=False)
        networks = check_networks(specs, config.weights, workers.map)
        for initial in networks.values() if config.weights else ():
            console.print(initial.line, markup=False, soft_wrap=True)
        startup = time.perf_counter() - began
        names = sorted({spec.representation for spec in specs})
        checked = check_data(
            config,
            dataset,
            names,
            workers.map,
            display,
            console,
            config.held_out,
            config.verified_only,
        )
        shares = _shares(config, workers)
        grid = expand(config, checked.prepared, networks, shares)
        if dataset.multi_label:
            check_multi_label({cell.training for cell in grid})
        if workers.cluster is not None:
            for cell in grid:
                share = shares(len(cell.branches))
                workers.cluster.check_fits(cell.key, len(cell.branches), cell.cpus, share)
        yield Opened(grid, checked, shares, workers, display, startup)


def _shares(config: GridConfig, workers: Workers) -> Shares:
    """Return the GPUs of a branch: as configured, else what the cluster allows."""

    def share(branches: int) -> float:
        if config.gpus_per_branch is not None or workers.cluster is None:
            return config.gpus_per_branch or 0.0
        found: float = workers.cluster.gpus_per_branch(branches)
        return found

    return share
