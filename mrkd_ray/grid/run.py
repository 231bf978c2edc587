"""A grid from start to table: prepare, run the cells, gather results."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from traceback import format_exc
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells import lost
from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.intact import result_of
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import PROFILE, Row, run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common import failures
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.progress import say
from mrkd_ray.common.reading import Damaged
from mrkd_ray.common.timeline import read_trace, summary
from mrkd_ray.config.parsing import PYTHON, parse
from mrkd_ray.config.schema import GridConfig, TrainConfig
from mrkd_ray.distributed import sessions
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.grid.default_branches import with_branches
from mrkd_ray.grid.mirror import Mirror, Running
from mrkd_ray.grid.opening import OpenGrid, may_be_finished, open_grid
from mrkd_ray.grid.preparation import compute
from mrkd_ray.grid.shown import Shown
from mrkd_ray.results.gather import Results, gather
from mrkd_ray.training.branch_task import BranchFailed

if TYPE_CHECKING:
    from mrkd_ray.distributed.trackers import Trackers

NOTHING_TO_RESUME = "Nothing to resume: no folder holds a cell of this grid."


def train(config: TrainConfig | None = None, *, resume: bool = False, **fields: Any) -> Results:
    """Train one cohort: the fields of `TrainConfig`, as an object or by keyword.

    Example:
        `train(data="my_clips", branches=["logmel64:resnet_small", "cqt:vgg_small"])`

    Raises:
        UserError: bad input, before any training.
        CellsFailed: some cells did not finish; the finished ones are kept.
        Stopped: Ctrl-C while cells ran; says how far they are.
        TypeError: both an object and keywords.
    """
    if config is not None and fields:
        raise TypeError(f"train() takes a configuration or fields, not both: {', '.join(fields)}")
    console = Console(stderr=True)
    asked = with_branches(
        config or parse(TrainConfig, fields, PYTHON),
        lambda line: say(console, f"note: {line}"),
    )
    return run(asked.as_grid(), resume=resume, console=console)


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, with how far a run had come."""


class CellsFailed(RuntimeError):
    """Some cells did not finish; `--resume` takes them up again.

    Attributes:
        results: of those that did, where they were gathered.
        of_the_machine: whether each failed for want of room, rights or the like.
    """

    def __init__(
        self, message: str, results: Results | None = None, *, of_the_machine: bool = False
    ) -> None:
        super().__init__(message)
        self.results = results
        self.of_the_machine = of_the_machine


def run(
    config: GridConfig,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> Results:
    """Run a grid and return its results; see `train` for what is raised.

    Cells that another grid under the same output folder has finished are taken over.

    Args:
        config: what is asked.
        resume: go on in the newest folder of this name that holds a cell of this grid: finished
            cells are kept as they are, unfinished ones go on from their last cycle. Otherwise a
            taken name gets a number.
        console: where progress is shown; default: standard error.
    """
    began = time.perf_counter()
    console = console or Console(stderr=True)
    taught = config.teachers or config.alone
    if not taught and any(len(cohort) == 1 for cohort in config.cohorts):
        say(console, "note: a cohort of one branch has only itself as its teacher")

    def tell(line: str) -> None:
        say(console, line)

    trackers = trackers_of(config, tell)
    mirror = Mirror(config.mirror, config.output) if config.mirror else None
    if mirror:
        mirror.fetch(config.name, names_only=not resume)

    copies = Running(mirror, tell) if mirror else None
    with open_grid(config, console, may_be_finished(config, resume), resume=resume) as opened:
        grid = list(opened.by_key.values())
        folder = grid_folder.choose(config.output, config.name, grid, resume)
        if resume:
            tell(f"Resuming {folder}" if folder.exists() else NOTHING_TO_RESUME)
        with grid_folder.locked(folder):
            if renamed := grid_folder.rename_former(grid, folder):
                tell(f"note: {renamed} cells of an earlier version have new names")
            for line in grid_folder.set_aside(grid, folder):
                tell(f"warning: {line}")
            finished = grid_folder.finished(grid, folder, config.name, tell)
            grid_folder.write_request(folder, opened.config, opened.prepared.skipped, grid)
            for source, count in grid_folder.take_over(finished, folder).items():
                made_at = grid_folder.commit_of(source)
                tell(
                    f"{count} of {len(grid)} cells are finished in {source}: taken over{made_at}; "
                    "another --output trains them anew"
                )
            if copies:
                copies.send(folder)
            if len(finished) < len(grid):
                compute(opened.prepared, opened.workers.map, opened.display)
            try:
                failed = run_cells(
                    opened, folder, profile=config.profile, copies=copies, trackers=trackers
                )
            except KeyboardInterrupt:
                if copies:
                    copies.stop()
                raise Stopped(_how_far(grid, folder)) from None
            failed += grid_folder.damaged(grid, folder)
            elapsed = time.perf_counter() - began
            failed = [(key, last_line(error)) for key, error in failed]
            wanted = [*opened.cells, *opened.untaught]
            gathered = gather(folder, config.name, wanted, elapsed, failed)
            if trackers:
                trackers.send_tables(folder)
            if mirror:
                mirror.send(folder)
                tell(f"Results are in {mirror.uri} too")
            if config.profile:
                _show_profiles(folder, grid, console)
    if failed:
        raise CellsFailed(
            f"{len(failed)} of {len(grid)} cells did not finish; --resume takes them up again.\n"
            f"{listed(failed)}\nWhat is finished is in {folder}.",
            gathered,
            of_the_machine=all(failures.is_of_the_machine(error) for _, error in failed),
        )
    return gathered


def trackers_of(config: GridConfig, tell: Callable[[str], None]) -> Trackers | None:
    """Return what `--mlflow` and `--wandb` ask for. Raises UserError: it is not there."""
    if config.mlflow is None and config.wandb is None:
        return None
    if config.runner == "local":
        raise UserError(
            "runner: local: --mlflow and --wandb are fed by Ray Tune, which it goes without; "
            "--tensorboard needs no Ray"
        )
    from mrkd_ray.distributed.trackers import Trackers

    return Trackers(config, tell)


def listed(failed: Sequence[tuple[str, str]]) -> str:
    """Return a line for each cell that failed, with the last line of its error."""
    return "\n".join(f"  {key}: {last_line(error)}" for key, error in failed)


def last_line(error: str) -> str:
    """Return the last line of an error, which says what happened."""
    return (error.strip().splitlines() or ["no reason is known"])[-1]


def _how_far(grid: Sequence[Cell], folder: Path) -> str:
    """Say what is on the disk: the checkpoint of a cell is that of its last finished cycle."""
    left = [cell for cell in grid if result_of(folder / "cells" / cell.key) is None]
    if len(grid) > 1 or not left:
        finished = f"{len(grid) - len(left)} of {len(grid)} cells finished"
        return f"Stopped with {finished}; of the others every finished cycle is kept."
    done = cell_files.cycles_done(folder / "cells" / left[0].key)
    total = left[0].training.cycles
    if done == 0:
        return "Stopped before the first cycle was done."
    return f"Stopped after cycle {done} of {total}; nothing up to there is lost."


def _show_profiles(folder: Path, grid: Sequence[Cell], console: Console) -> None:
    """Print where the branches' time went: of each cell that has a timeline."""
    for cell in grid:
        path = folder / "cells" / cell.key / PROFILE
        if path.exists():
            try:
                rows = read_trace(path)
            except Damaged as error:
                say(console, f"warning: {error}")
                continue
            shares = summary({name: rows.get(name, []) for name in cell.names})
            listed = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
            console.print(f"{cell.title}: {listed}; {path}", markup=False, soft_wrap=True)


def run_cells(
    opened: OpenGrid,
    folder: Path,
    *,
    profile: bool = False,
    copies: Running | None = None,
    trackers: Trackers | None = None,
) -> list[tuple[str, str]]:
    """Run what is not finished; return the key and the error of each cell that failed.

    Args:
        folder: the grid's.
        profile: write each cell's timeline.
        copies: sends cells and their checkpoints to an object store.
        trackers: are sent the cells' figures too.
    """
    by_key = opened.by_key
    todo = [cell for key, cell in by_key.items() if result_of(folder / "cells" / key) is None]
    begun = {cell.key: cell_files.cycles_done(folder / "cells" / cell.key) for cell in todo}
    cycles = sum(cell.training.cycles for cell in todo)
    opened.display.grid(len(todo), cycles, sum(begun.values()))

    shown = Shown(opened, folder, by_key.__getitem__, begun)

    def cycled(key: str, rows: list[Row]) -> None:
        shown.cycle(key, rows)
        if copies:
            copies.cycle(folder / "cells" / key)

    def ended(key: str) -> None:
        shown.end(key)
        if copies:
            copies.end(folder / "cells" / key)

    if not todo:
        sessions.remove_tunes()  # of a run that was killed when its last cell was done
        return []
    if opened.workers.local:
        return _run_locally(todo, opened.prepared, folder, profile, cycled, ended, shown.lost)
    from mrkd_ray.distributed import tune_trials

    failed = tune_trials.run_cells(
        todo,
        opened.prepared,
        folder,
        gpus={cell.key: opened.workers.gpus(len(cell.branches)) for cell in todo},
        profile=profile,
        alone=opened.workers.cluster.alone,
        on_cycle=cycled,
        on_end=ended,
        trackers=trackers.callbacks(folder) if trackers else (),
        on_lost=shown.lost,
        on_retry=shown.retry,
        on_wait=lambda cells: opened.display.tell(
            f"note: cells that wait: {cells}, for {_needs(opened, todo)}. No node has that free; "
            "Ray's autoscaler, where there is one, has been asked for it"
        ),
    )
    return list(failed.items())


def _needs(opened: OpenGrid, cells: Sequence[Cell]) -> str:
    """Say what the smallest of these cells needs."""
    cell = min(cells, key=lambda cell: len(cell.branches) * cell.branch_cpus)
    count, gpus = len(cell.branches), opened.workers.gpus(len(cell.branches))
    each = f"{cell.branch_cpus} CPU(s)" + (f" and {gpus:g} GPU(s)" if gpus else "")
    return f"{count} x {each}" if count > 1 else each


def _run_locally(
    todo: Sequence[Cell],
    prepared: Prepared,
    folder: Path,
    profile: bool,
    on_cycle: Callable[[str, list[Row]], None],
    on_end: Callable[[str], None],
    on_lost: Callable[[str, str], None],
) -> list[tuple[str, str]]:
    from mrkd_ray.training.local_cohort import LocalCohort

    def run_one(cell: Cell, cell_folder: Path) -> None:
        tasks = lost.left(branch_tasks(cell, prepared), cell_folder)
        cohort = LocalCohort(tasks, cell_folder)
        for rows in run_cell(cell, tasks, cohort, cell_folder, profile=profile):
            on_cycle(cell.key, rows)

    failed = []
    for cell in todo:
        cell_folder = folder / "cells" / cell.key
        while True:
            try:
                run_one(cell, cell_folder)
            except BranchFailed as error:
                if lost.lose(cell, cell_folder, [error.branch], str(error)):
                    on_lost(cell.key, lost.sentence([error.branch], str(error)))
                    continue
                failed.append((cell.key, str(error)))
            except Exception as error:  # as with Ray: the other cells go on
                failed.append((cell.key, failures.sentence(error) or format_exc()))
            break
        on_end(cell.key)
    return failed
