"""All that a grid needs is checked before it runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from rich.console import Console

from mrkd_ray.cells import teachers as frozen_teachers
from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common import environment
from mrkd_ray.common.files import check_folders, check_name
from mrkd_ray.common.progress import Display, say
from mrkd_ray.config.method import default_cycles
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.datasets.events import SHORTEST
from mrkd_ray.datasets.splits import Split, Splitter
from mrkd_ray.features.window_extents import window_ticks
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.grid.expand import (
    Gpus,
    check_multi_label,
    check_names,
    expand,
    idle_options,
    specs_of,
)
from mrkd_ray.grid.network_checks import Checked, Initial, check_networks
from mrkd_ray.grid.preparation import check_data, open_data, read_by_all, warn_of_names
from mrkd_ray.grid.workers import Workers, workers_of
from mrkd_ray.inference.model_folder import read_digests
from mrkd_ray.inference.starting_point import StartingPoint, starting_points

Finished = Callable[[list[Cell], Prepared], bool]
"""Says whether all of these cells are finished."""


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
        startup: seconds until all was checked and the workers were there.
        networks: what is known of each, by name.
    """

    config: GridConfig
    cells: list[Cell]
    prepared: Prepared
    workers: Workers
    display: Display
    startup: float
    untaught: Sequence[Cell] = ()
    networks: Mapping[str, Initial] = field(default_factory=dict)

    def expanded(self, config: GridConfig, splits: Sequence[Split]) -> list[Cell]:
        """Return the cells of another grid of these cohorts, on some of the splits."""
        prepared = replace(self.prepared, splits=tuple(splits))
        return expand(config, prepared, self.networks, self.workers.gpus)

    @property
    def by_key(self) -> dict[str, Cell]:
        """The cells by key: variants that are the same at T = 1 share theirs."""
        return {cell.key: cell for cell in self.cells}


def may_be_finished(config: GridConfig, resume: bool) -> Finished | None:
    """Return what says whether all cells of a run are finished; None where some cannot be.

    Args:
        resume: whether it goes on in the newest folder of its name.
    """

    def finished(cells: Sequence[Cell], prepared: Prepared) -> bool:
        folder = grid_folder.choose(config.output, config.name, cells, resume)
        found = grid_folder.finished(cells, folder, config.name)
        return all(cell.key in found for cell in cells)

    maybe = resume and not grid_folder.begun(config.output, config.name)
    return finished if maybe else None


@contextmanager
def open_grid(
    config: GridConfig,
    console: Console,
    finished: Finished | None = None,
    *,
    resume: bool = False,
) -> Iterator[OpenGrid]:
    """Check all that a grid needs, while the workers that it will run on start.

    Args:
        config: what is asked.
        console: where progress is shown.
        finished: says whether all of these cells are finished. Where it is given, a cluster is not
            started before it was asked, and not at all where they are.
        resume: where it is not said how many cycles, as many as the folder was made with that the
            run goes on in.

    Raises:
        UserError: bad input, before any long work.
    """
    check_names(config)
    check_folders(config.cache, config.output)
    teachers = frozen_teachers.find(config.teachers)
    windows = {asked.window for asked in config.by_variant().values()}
    dataset = open_data(config, config.unlabelled, console, window=_longest(windows))
    specs = specs_of(config)
    largest = max(len(cohort) for cohort in config.cohorts)
    began = time.perf_counter()
    with (
        workers_of(
            config,
            functools.partial(say, console),
            min_cpus=largest * config.cpus_per_branch * config.ranks,
            gpus_per_branch=config.gpus_per_branch,
            trials=True,
            files=read_by_all(dataset, config.cache),
        ) as workers,
        Display(console) as display,
    ):
        if finished is None:
            workers.begin()
        starting = "Starting PyTorch" if workers.local else "Starting PyTorch and Ray"
        lengths = {window_ticks(window) for window in windows - {"whole"}}
        if lengths:
            with display.waiting(starting):
                checked = check_networks(specs, config.weights, lengths, local=workers.local)
        prepared = check_data(
            dataset,
            sorted({s.representation for s in specs} | {t.representation for t in teachers}),
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
        if teachers:
            virtual = any(own.soft_labels == "virtual" for own in config.by_variant().values())
            frozen_teachers.check(teachers, prepared, windows, virtual=virtual)
            prepared = replace(prepared, teachers=teachers)
        if "whole" in windows:  # which depends on the clips
            lengths = {prepared.whole_window}
            with display.waiting(starting):
                checked = check_networks(specs, config.weights, lengths, local=workers.local)
        for initial in checked.networks.values() if config.weights else ():
            say(console, initial.line)
        for point in starting_points(config.init, specs, multi_label=dataset.multi_label).values():
            say(console, point.line(dataset.classes))
            for line in _heard_before(point, prepared):
                say(console, f"note: {line}")
        warn_of_names(prepared, config.group_by, console)
        with display.waiting("Starting Ray"):  # whose GPUs are known when it is there
            config, cells, note = _cells(config, prepared, checked, workers, finished, resume)
        if note:
            say(console, f"note: {note}; --cycles changes it")
        for line in idle_options(config, prepared, checked.networks):
            say(console, f"note: {line}")
        check_name(config.output, max((f".{cell.key}.tmp" for cell in cells), key=len))
        startup = time.perf_counter() - began
        if dataset.multi_label:
            check_multi_label({cell.training for cell in cells})
        run = _to_run(config, cells)
        untaught = [cell for cell in cells if cell not in run]
        networks = checked.networks
        yield OpenGrid(config, run, prepared, workers, display, startup, untaught, networks)


def _heard_before(point: StartingPoint, prepared: Prepared) -> Iterator[str]:
    """Yield a line for each fold with test clips that a model to go on from was trained on."""
    known = set(read_digests(point.folder))
    for split in prepared.splits:
        if heard := sum(prepared.digests[clip_id] in known for clip_id in split.test):
            yield (
                f"{point.folder} was trained on {heard} of the {len(split.test)} test clips of "
                f"fold {split.fold}: scores there will be too high"
            )


def _longest(windows: Iterable[float | str]) -> float:
    """Return the longest window, in seconds; of whole clips the default one."""
    return max((each for each in windows if isinstance(each, float)), default=SHORTEST)


def _to_run(config: GridConfig, cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if not config.alone or cell.condition == "independent"]


def _cells(
    config: GridConfig,
    prepared: Prepared,
    checked: Checked,
    workers: Workers,
    finished: Finished | None,
    resume: bool,
) -> tuple[GridConfig, list[Cell], str]:
    """Return the grid with its cycles, its cells, and a note where the cycles were not told.

    The cluster has room for the cells that are to run, unless all are finished.
    """
    if finished and workers.here:
        given, found = config.gpus_per_branch, float(checked.device == "cuda")
        share = found if given is None else given

        def gpus(branches: int) -> float:
            return share

        asked, note = _with_cycles(config, prepared, checked.networks, gpus, resume)
        cells = expand(asked, prepared, checked.networks, gpus)
        if finished(_to_run(config, cells), prepared):
            return asked, cells, note
    asked, note = _with_cycles(config, prepared, checked.networks, workers.gpus, resume)
    cells = expand(asked, prepared, checked.networks, workers.gpus)
    for cell in () if workers.local else _to_run(config, cells):
        share = workers.gpus(len(cell.branches))
        workers.cluster.check_fits(cell.key, len(cell.branches), cell.branch_cpus, share)
    return asked, cells, note


def _with_cycles(
    config: GridConfig,
    prepared: Prepared,
    networks: Mapping[str, Initial],
    gpus: Gpus,
    resume: bool,
) -> tuple[GridConfig, str]:
    """Return the grid with a number of cycles and, where it had none, which and why."""
    if config.cycles is not None:
        return config, ""
    for folder in grid_folder.newest_first(config.output, config.name) if resume else ():
        if cycles := grid_folder.cycles_of(folder):
            asked = config.with_cycles(cycles)
            if grid_folder.holds(folder, expand(asked, prepared, networks, gpus)):
                return asked, f"{cycles} cycles, as in {folder}"
    some = any(gpus(len(cohort)) > 0 for cohort in config.cohorts)
    if config.runner == "local":
        some = environment.local_device() != "cpu"
    asked = config.with_cycles(default_cycles(some))
    if all(variant.cycles is not None for variant in config.by_variant().values()):
        return asked, ""
    return asked, f"{asked.cycles} cycles: the default {'with' if some else 'without'} a GPU"
