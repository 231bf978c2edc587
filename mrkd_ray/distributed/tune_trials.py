"""Cells as Ray Tune trials: one placement group a cell, as many at once as the cluster holds.

A trial's processes outlive it: Tune gives them the next cell of the same shape.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ray
from filelock import FileLock
from ray import tune
from ray.tune import (
    Callback,
    CheckpointConfig,
    FailureConfig,
    PlacementGroupFactory,
    RunConfig,
    TuneConfig,
    Tuner,
)

from mrkd_ray.cells import lost
from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.intact import result_of
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import Row, past, run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common.failures import is_lasting
from mrkd_ray.distributed import failures, gcs_watch, sessions
from mrkd_ray.distributed.cluster import Cluster, Node, own_node, sizes
from mrkd_ray.distributed.home import Home
from mrkd_ray.distributed.ray_cohort import Actors, RayCohort
from mrkd_ray.distributed.telemetry import Gauges, GridGauges
from mrkd_ray.scores import metrics
from mrkd_ray.training.branch_task import BranchFailed

if TYPE_CHECKING:
    from mrkd_ray.distributed.trackers import Tracker  # which imports MLflow where it is installed

MAX_FAILURES = 2
"""How often a cell is taken up again from its last checkpoint, after a lost actor or node."""


WAIT = 10.0
"""Seconds without a cell that runs after which people are told what the grid waits for."""

PART, SCORE = "part", "score"
"""Of a trial's report: percent of its cycles that are done, and the score of its best branch."""


@dataclass(frozen=True)
class Job:
    """A cell, and GPUs of each of its branch actors: what a trial is told, as `config["job"]`."""

    cell: Cell
    gpus: float


class Trial(tune.Trainable):
    """Cells, one after the other, on one placement group; a step is a cycle.

    This process coordinates only: PyTorch and the GPUs are the branch actors'. They stay for the
    next cell where its branches are of the same kinds, and are replaced where not.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters gives the rest
        self,
        config: dict[str, Any],
        *,
        prepared: Prepared,
        folder: Path,
        profile: bool,
        run: str,
        retries: int,
        home: Home | None = None,
        replay: bool = False,
    ) -> None:
        """Keep what all cells share; the first one begins with the first step.

        With `replay` the cycles that a cell has behind it are reported again, before its others.
        """
        self._prepared, self._folder, self._replay = prepared, folder, replay
        self._profile, self._run_name, self._retries = profile, run, retries
        self._home = home
        self._actors: Actors | None = None
        self._cohort: RayCohort | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another cell, or go on with one."""
        job: Job = new_config["job"]
        self._cell, self._gpus = job.cell, job.gpus
        self._reported: dict[str, float] = {}
        if self._cell.quorum is not None:
            self._attempt = lost.attempt(self._cell_folder, self._run_name)
        self._cycles = self._run(self._cell)
        return True

    @property
    def _cell_folder(self) -> Path:
        return self._folder / "cells" / self._cell.key

    def __repr__(self) -> str:
        """Return what Ray's dashboard and the prefix of log lines call this actor."""
        return "Coordinator"

    def step(self) -> dict[str, Any]:
        """Run one cycle, or after the last what is left to do.

        What would fail again ends the cell here; what may not is raised, for Tune to try again.
        """
        try:
            rows = next(self._cycles, None)
        except Exception as error:
            found, told = failures.cause(error), failures.sentence(error)
            if gone := self._go_on_without(found, told):
                return {"lost": gone}
            if not is_lasting(found):
                raise RuntimeError(told) if told else error  # noqa: B904  # Ray shows all of it
            self.cleanup()  # a branch may be ahead
            return {"done": True, "failed": told}
        if rows is None:
            return {"done": True, **self._reported}
        main, cycles = metrics.named(rows[0])[0], self._cell.training.cycles
        self._reported = {
            PART: 100 * (rows[0]["cycle"] + 1) / cycles,
            SCORE: max(float(row[main.name]) for row in rows),
        }
        return {"rows": rows, **self._reported}

    def _go_on_without(self, error: BaseException, told: str | None) -> str | None:
        """Begin again from the last checkpoint without the branches that are lost, if it may be.

        Returns:
            What to tell people; None where the error ends this attempt at the cell.
        """
        if self._cell.quorum is None or self._cohort is None:
            return None
        if isinstance(error, BranchFailed):
            names = [error.branch]
        elif is_lasting(error) or self._attempt <= self._retries:
            return None
        else:
            names = self._cohort.dead()
        why = told or str(error)
        if not lost.lose(self._cell, self._cell_folder, names, why):
            return None
        self.cleanup()
        self._cycles = self._run(self._cell)
        return lost.sentence(names, why)

    def cleanup(self) -> None:
        """End the actors."""
        if self._actors:
            self._actors.close()
            self._actors = None

    def _run(self, cell: Cell) -> Iterator[list[Row]]:
        folder = self._cell_folder
        self._cohort = None
        if self._replay:
            yield from past(folder, cell.names)
            if result_of(folder) is not None:
                return
        tasks = lost.left(branch_tasks(cell, self._prepared, self._gpus), folder)
        specs = tuple(task.spec for task in tasks)
        if self._actors and self._actors.specs != specs:
            self.cleanup()
        if not self._actors:
            group = ray.util.get_current_placement_group()
            self._actors = Actors.start(
                specs,
                group=group,
                cpus=cell.cpus,
                gpus=self._gpus,
                ranks=cell.ranks,
                overlap=cell.overlap,
                home=self._home,
            )
        self._cohort = cohort = RayCohort(self._actors, tasks, folder)
        gauges, exchanged = Gauges(self._folder.name, cell.key), 0
        windows = cell.training.b * len(tasks[0].train.clip_ids)
        windows += cell.training.d * len(tasks[0].taught)
        for rows in run_cell(cell, tasks, cohort, folder, profile=self._profile):
            gauges.report(rows, windows)
            gauges.report_exchange(cohort.barrier, cohort.agreement, cohort.exchanged - exchanged)
            exchanged = cohort.exchanged
            yield rows


@contextmanager
def _storage() -> Iterator[str]:
    """Yield a folder for Tune; remove it afterwards, and those that killed runs have left."""
    sessions.remove_tunes()
    with (
        tempfile.TemporaryDirectory(prefix=sessions.TUNE) as storage,
        FileLock(Path(storage) / sessions.LOCK),
    ):
        gcs_watch.folders.add(storage)
        try:
            yield storage
        finally:
            gcs_watch.folders.discard(storage)
    sessions.remove_tunes()  # again: processes of a run that was just killed may have written


def _no_room() -> bool:
    """Return whether a cell has no place on any node."""
    groups = ray.util.placement_group_table()
    return any(group["state"] == "PENDING" for group in groups.values())


class Watch(Callback):
    """Hands what Tune hears from the trials to the progress display."""

    def __init__(
        self,
        on_cycle: Callable[[str, list[Row]], None],
        on_end: Callable[[str], None],
        on_retry: Callable[[str], None],
        on_lost: Callable[[str, str], None],
        on_wait: Callable[[int], None],
    ) -> None:
        """Take what is to be called: see `run_cells`."""
        self._on_cycle, self._on_end, self._on_retry = on_cycle, on_end, on_retry
        self._on_lost = on_lost
        self._on_wait, self._waits_since = on_wait, time.monotonic()
        self.failed: dict[str, str] = {}
        self.gauges: GridGauges | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that is never asked for: see `grid`

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Notice while cells wait and none runs."""
        states = [trial.status for trial in trials]
        if self.gauges:
            cells = (
                (t.status, t.last_result.get(PART, 0) / 100, t.config["job"].cell.training.cycles)
                for t in trials
            )
            self.gauges.report(cells, len(self.failed))
        if "RUNNING" in states or "PENDING" not in states:
            self._waits_since = time.monotonic()
        elif time.monotonic() - self._waits_since > WAIT:
            self._waits_since = time.monotonic()
            if _no_room():  # else its processes are starting
                self._on_wait(states.count("PENDING"))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Hand on a cycle's figures, or what went wrong."""
        if "rows" in result:
            self._on_cycle(trial.config["job"].cell.key, result["rows"])
        if "lost" in result:
            self._on_lost(trial.config["job"].cell.key, result["lost"])
        if "failed" in result:
            self.failed[trial.config["job"].cell.key] = result["failed"]

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Hand on that a cell is taken up again."""
        self._on_retry(trial.config["job"].cell.key)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Hand on that a cell has ended."""
        self._on_end(trial.config["job"].cell.key)


def placement_of(
    branches: int, cpus: float, gpus: float, nodes: Sequence[tuple[float, float]], own: Node | None
) -> PlacementGroupFactory:
    """Return where a cell's processes go.

    The first bundle is the coordinator's. It is on the driver's node, where the folders are: a
    thousandth of what Ray gives each node one of. A bundle for each branch follows: all on one
    node where a node is large enough for them, else evenly over several.

    Args:
        branches: how many.
        cpus: of a branch.
        gpus: of a branch; a fraction shares a card.
        nodes: CPUs and GPUs of each node.
        own: the driver's node, if it is on one.
    """
    one = {"CPU": float(cpus)} | ({"GPU": gpus} if gpus else {})
    fits = any(Cluster((node,)).room(cpus, gpus) >= branches for node in nodes)
    here = {own.resource: 0.001} if own else {}
    bundles = [here, *(dict(one) for _ in range(branches))]
    return PlacementGroupFactory(bundles, strategy="PACK" if fits else "SPREAD")


def run_cells(
    todo: Sequence[Cell],
    prepared: Prepared,
    folder: Path,
    *,
    gpus: Mapping[str, float],
    profile: bool,
    alone: bool = False,
    trackers: Sequence[Tracker] = (),
    on_cycle: Callable[[str, list[Row]], None],
    on_end: Callable[[str], None],
    on_retry: Callable[[str], None] = lambda key: None,
    on_lost: Callable[[str, str], None] = lambda key, line: None,
    on_wait: Callable[[int], None] = lambda cells: None,
) -> dict[str, str]:
    """Run the cells, each in a trial of its own.

    Args:
        folder: the grid's folder, on this node.
        gpus: GPUs of one branch actor, for each cell's key.
        profile: write each cell's timeline.
        alone: whether there will be no other node than this one.
        trackers: are told of the cells too.
        on_cycle: called in this process with a cell's key and its figures after every cycle.
        on_end: called with a cell's key when it is finished.
        on_retry: called with a cell's key when it lost a process or a node and begins again from
            its last checkpoint.
        on_lost: called with a cell's key, and what to tell people, when it goes on without a
            branch.
        on_wait: called with the number of cells that wait, now and then while none runs.

    Returns:
        For each cell that failed, its key and the error. Other cells are not stopped by it.
    """
    jobs = [Job(cell, gpus[cell.key]) for cell in todo]
    return fit(
        {"job": tune.grid_search(jobs)},
        TuneConfig(),
        Watch(on_cycle, on_end, on_retry, on_lost, on_wait),
        prepared=prepared,
        folder=folder,
        profile=profile,
        alone=alone,
        trackers=trackers,
    )


def fit(
    space: dict[str, Any],
    asked: TuneConfig,
    watch: Watch,
    *,
    prepared: Prepared,
    folder: Path,
    alone: bool,
    profile: bool = False,
    replay: bool = False,
    trackers: Sequence[Tracker] = (),
) -> dict[str, str]:
    """Run trials, each of the `Job` that it is told, until Tune has no more.

    Args:
        space: of the trials, as Tune takes it.
        asked: the searcher, the scheduler and what they need.
        watch: told what happens.
        folder, prepared, profile, alone, trackers: see `run_cells`.
        replay: see `Trial.setup`.

    Returns:
        As `run_cells`.
    """
    node, nodes = own_node(), sizes()
    watch.gauges = GridGauges(folder.name)

    def placement(config: Mapping[str, Any]) -> PlacementGroupFactory:
        job: Job = config["job"]
        return placement_of(len(job.cell.branches), job.cell.branch_cpus, job.gpus, nodes, node)

    trainable = tune.with_parameters(
        Trial,
        prepared=prepared,
        folder=folder.absolute(),
        profile=profile,
        run=uuid4().hex,
        retries=MAX_FAILURES,
        home=Home.start(node.id) if node and not alone else None,
        replay=replay,
    )
    trainable = tune.with_resources(trainable, placement)
    trainable.__qualname__ = "Coordinator"  # what Ray's dashboard calls it
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # history.csv says it all
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # tracebacks of what is taken up again
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C unwinds; checkpoints are ours
    with _storage() as storage:
        tuner = Tuner(
            trainable,
            param_space=space,
            tune_config=replace(
                asked, reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id
            ),
            run_config=RunConfig(
                name=folder.name,
                storage_path=storage,
                verbose=0,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # ours are the cell's
                callbacks=[watch, *trackers],
            ),
        )
        try:
            found = tuner.fit()
        finally:
            for tracker in trackers:
                tracker.close()
    results = [found[i] for i in range(len(found))]
    lost = {
        result.config["job"].cell.key: failures.sentence(result.error) or str(result.error)
        for result in results
        if result.error is not None and result.config is not None
    }
    return {**watch.failed, **lost}
