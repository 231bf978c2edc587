"""Branches and aggregators (`actors`) as Ray actors, and `RayCohort`, which drives them by refs.

Cycles are submitted as a whole and one ahead: while the driver waits for a cycle's figures and
commits its checkpoint, the branches are at work on the next. Actors are never restarted by Ray,
since a restart would silently begin from fresh weights: the cell goes on from its last checkpoint
instead (`tune_trials`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mrkd_ray.cells.cell import branch_names
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.timeline import Recorder, Span
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.distributed.actors import AggregatorActor, BranchActor, Place, Row
from mrkd_ray.distributed.home import Home
from mrkd_ray.method.averaging import AVERAGES
from mrkd_ray.training import checkpoints
from mrkd_ray.training.branch_task import BranchTask

SHARD_BYTES = 64 * 2**20
"""Soft labels travel in shards of at most this size, by ranges of clips."""

ANSWER = 10.0  # seconds in which a process says that it is there; it may be at work


@dataclass(frozen=True)
class Actors:
    """The processes of a cohort, an actor for each branch and the aggregators; cells share them.

    They are handles: a benchmark may give others with the same methods.

    Attributes:
        specs: of the branches.
        branches: in order; of a branch in several processes the first.
        aggregators: one on each node that has branches. Each averages a range of the clips.
        mates: the other processes of branches, each with its branch's place in `branches`.
    """

    specs: tuple[BranchSpec, ...]
    branches: tuple[Any, ...]
    aggregators: tuple[Any, ...]
    mates: tuple[tuple[int, Any], ...] = ()

    @classmethod
    def start(
        cls,
        specs: Sequence[BranchSpec],
        *,
        group: PlacementGroup | None = None,
        cpus: float = 1,
        gpus: float = 0,
        ranks: int = 1,
        overlap: bool = False,
        home: Home | None = None,
    ) -> Actors:
        """Ask for the actors, which Ray's dashboard shows by the names of their branches.

        Args:
            specs: of the branches.
            group: placement group whose last bundles are the branches', in order; without one
                the actors are placed wherever there is room.
            cpus: CPUs of a branch actor.
            gpus: GPUs of a branch; fractions share a card.
            ranks: actors of a branch, which divide its GPUs and each minibatch.
            overlap: the branches have more threads than CPUs: one that waits leaves its core.
            home: where the folders of tasks and checkpoints are; None where every node sees them.
        """
        asked: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus / ranks}
        if overlap:
            asked["runtime_env"] = {"env_vars": {"OMP_WAIT_POLICY": "passive"}}
        cohort = uuid4().hex[:8]  # no cell's name: actors outlive cells; and names are unique
        first = len(group.bundle_specs) - len(specs) if group else 0
        branches, mates = [], []
        for i, (name, spec) in enumerate(zip(branch_names(specs), specs, strict=True)):
            for rank in range(ranks):
                own = name if rank == 0 else f"{name} rank {rank}"
                asked["name"] = f"{own}, cohort {cohort}"
                place = Place(rank, ranks, f"{cohort}-{i}")
                actor = _actor(BranchActor, group, first + i, **asked).remote(spec, home, place)
                branches += [actor] if rank == 0 else []
                mates += [(i, actor)] if rank else []
        ranges = tuple(aggregators(group, first, cohort))
        return cls(tuple(specs), tuple(branches), ranges, tuple(mates))

    def close(self) -> None:
        """End the actors and give their resources back."""
        for actor in (*self.branches, *self.aggregators, *(mate for _, mate in self.mates)):
            ray.kill(actor)


@dataclass(frozen=True)
class Submitted:
    """A cycle under way: refs to wait for, of which the last are the branches' figures."""

    folder: Path  # of its checkpoint, which is not committed yet
    refs: list[Any]
    teachers: list[list[Any]]  # refs of shards; of the last cycle only, where they are a result


class RayCohort:
    """Γ branches in actors, and aggregators; goes on from the latest checkpoint under `folder`.

    Args:
        actors: one for each task and the aggregators; a cell before may have used them.
        tasks: one for each branch, with distinct names; their training clips are the same.
        folder: the cell's folder, on this node, and on the branches' where they have no `Home`.

    Attributes:
        barrier: seconds that the last cycle's branches were waited for.
        exchanged: bytes of soft labels and teachers so far.
        agreement: part of the test clips of which two branches predict the same, after the last
            cycle, in the mean of all pairs; None of one branch.

    Every call that waits can raise ray.exceptions.RayActorError, when an actor has died.
    """

    def __init__(self, actors: Actors, tasks: Sequence[BranchTask], folder: Path) -> None:
        self._task = tasks[0]
        self._names = [task.name for task in tasks]
        self._branches, self._aggregators = actors.branches, actors.aggregators
        self._mates = actors.mates
        self._checkpoints = folder.absolute() / "checkpoint"
        self._rule = AVERAGES[self._task.training.average]
        self._rows = len(self._task.taught)
        ranges = len(self._aggregators)  # with as many shards in each
        size = self._rows * len(self._task.classes) * 4
        self._shards = ranges * max(1, -(-size // (ranges * SHARD_BYTES)))
        self._recorder = Recorder()
        checkpoints.discard_damaged(self._checkpoints)
        found = checkpoints.latest(self._checkpoints)
        self.cycle = checkpoints.cycle_of(found) if found else 0
        self._teachers: list[list[Any]] = []
        self.barrier, self.exchanged = 0.0, 0
        self.agreement: float | None = None
        # Refs of the cycle to come, for whoever wants to wait for them.
        self.submitted: list[Any] = []
        self.submitted += self._each(lambda i, branch: branch.start.remote(tasks[i], found))

    def train(self, epochs: int) -> None:
        """Eq. 1 in every branch, submitted."""
        self.submitted += self._each(lambda _, branch: branch.train.remote(epochs))

    def soft_labels(self, temperature: float) -> list[list[Any]]:
        """Eq. 2: for each branch, one ref a shard."""
        shards = self._shards
        refs = self._each(
            lambda _, branch: branch.soft_labels.options(num_returns=shards).remote(
                temperature, shards
            )
        )
        return refs if shards > 1 else [[ref] for ref in refs]

    def average(self, soft_labels: list[list[Any]]) -> list[list[Any]]:
        """Eq. 3: for each distinct teacher, one ref a shard; an aggregator has a range of them."""
        weights = []
        if self._rule.weighted:
            weights = self._each(lambda _, branch: branch.held_out_accuracy.remote())
        count = 1 if self._rule.shared else len(self._branches)
        in_range = self._shards // len(self._aggregators)
        shards = [
            self._aggregators[i // in_range]
            .average.options(num_returns=count)
            .remote(
                self._task.training.average,
                self._task.multi_label,
                len(self._branches),
                *parts,
                *weights,
            )
            for i, parts in enumerate(zip(*soft_labels, strict=True))
        ]
        teachers = len(soft_labels) + count
        self.exchanged += teachers * self._rows * len(self._task.classes) * 4
        by_shard = shards if count > 1 else [[ref] for ref in shards]
        return [list(refs) for refs in zip(*by_shard, strict=True)]

    def distil(self, teacher: list[list[Any]], temperature: float, epochs: int) -> None:
        """Eqs. 4 and 5 in every branch, submitted with the teacher's refs."""
        own = teacher * len(self._branches) if self._rule.shared else teacher
        self.submitted += self._each(
            lambda i, branch: branch.distil.remote(temperature, epochs, *own[i])
        )
        if self.cycle + 1 == self._task.training.cycles:
            self._teachers = teacher

    def end_cycle(self) -> Submitted:
        """Evaluate and checkpoint, submitted; returns what `figures` waits for."""
        self.cycle += 1
        folder = checkpoints.begin(self._checkpoints, self.cycle)
        self.submitted += self._each(lambda _, branch: branch.end_cycle.remote(folder))
        done = Submitted(folder, self.submitted, self._teachers)
        self.submitted, self._teachers = [], []
        return done

    def figures(self, cycles: Iterator[Submitted]) -> Iterator[list[Row]]:
        """One row a branch for each cycle, when its checkpoint stands; submits one cycle ahead."""
        before = None
        for cycle in cycles:
            if before:
                yield self._finish(before)
            before = cycle
        if before:
            yield self._finish(before)

    def _finish(self, cycle: Submitted) -> list[Row]:
        began = time.perf_counter()
        with self._recorder.span("wait"):
            done = ray.get(cycle.refs)  # the one barrier of a cycle; raises any failure
        self.barrier = time.perf_counter() - began
        with self._recorder.span("commit"):
            if cycle.teachers:
                shards = (ray.get(ref) for refs in cycle.teachers for ref in refs)
                shape = (len(cycle.teachers), self._rows, len(self._task.classes))
                checkpoints.save_teacher(cycle.folder, self._task.taught, shards, shape)
            rows: list[Row] = done[-len(self._branches) :]
            checkpoints.commit(cycle.folder, rows)
        pairs = combinations([np.asarray(row.get("predicted", ())) for row in rows], 2)
        equal = [float((one == other).mean()) for one, other in pairs if one.size]
        self.agreement = sum(equal) / len(equal) if equal else None
        return rows

    def dead(self) -> list[str]:
        """The names of the branches whose process is gone."""
        named = [*enumerate(self._branches), *self._mates]
        asked = {actor.__ray_ready__.remote(): self._names[i] for i, actor in named}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER)
        found = []
        for ref in answered:
            try:
                ray.get(ref)
            except ray.exceptions.RayActorError:
                found.append(asked[ref])
        return [*dict.fromkeys(found)]

    def spans(self) -> dict[str, list[Span]]:
        """What every branch, the aggregators and this process did since it was asked last."""
        found = ray.get([actor.spans.remote() for actor in (*self._branches, *self._aggregators)])
        names = (*self._names, *_numbered("aggregator", len(self._aggregators)))
        rows = zip(names, found, strict=True)
        return {**dict(rows), "coordinator": self._recorder.take()}

    def test_probabilities(self) -> list[Float32]:
        """Clip-level probabilities [n_test, M] of every branch."""
        return self._answers(lambda _, branch: branch.test_probabilities.remote())

    def restore(self, folder: Path) -> None:
        """Take every branch's weights from its checkpoint in `folder`, after what is submitted."""
        folder = folder.absolute()
        self._answers(lambda _, branch: branch.restore.remote(folder))

    def export(self, folder: Path) -> None:
        """Write every branch into a folder of its own under `folder`."""
        folder = folder.absolute()
        self._answers(lambda i, branch: branch.export.remote(folder / self._names[i]))

    def _each(self, call: Callable[[int, Any], Any]) -> list[Any]:
        """Submit a call in all processes of every branch, told its place and a handle.

        Returns:
            What it returns of each branch's first process. The refs of the others are `submitted`:
            so whoever waits for a cycle hears of a process that died.
        """
        for i, mate in self._mates:
            refs = call(i, mate)
            self.submitted += refs if isinstance(refs, list) else [refs]
        return [call(i, branch) for i, branch in enumerate(self._branches)]

    def _answers(self, call: Callable[[int, Any], Any]) -> list[Any]:
        """Wait for a call in all processes of every branch, and return the branches' answers."""
        self.submitted = []
        refs = self._each(call)
        answers: list[Any] = ray.get([*self.submitted, *refs])
        self.submitted = []
        return answers[-len(refs) :]


def aggregators(group: PlacementGroup | None, first: int, cohort: str) -> Iterator[Any]:
    """Start an aggregator on each node that has a cohort's branches.

    So no node's link carries the soft labels of all of them.

    Args:
        group: whose bundles from `first` on are the branches'; without one, an aggregator starts
            wherever there is room.
        first: see `group`.
        cohort: goes into the names that Ray's dashboard shows.
    """
    bundles: list[int] | list[None] = [None]
    if group:
        table = ray.util.placement_group_table(group)
        nodes = table["bundles_to_node_id"]
        bundles = sorted({nodes[i]: i for i in reversed(range(first, group.bundle_count))}.values())
    # Two threads: one shard is averaged while another is copied into the object store.
    threads = {"max_concurrency": 2}
    names = _numbered("aggregator", len(bundles))
    for name, bundle in zip(names, bundles, strict=True):
        named = f"{name}, cohort {cohort}"
        yield _actor(AggregatorActor, group, bundle, name=named, **threads).remote()


def _numbered(name: str, count: int) -> list[str]:
    """Return distinct names, numbered from the second on, as equal branches are."""
    return [name, *(f"{name}-{i}" for i in range(2, count + 1))]


def _actor(cls: type, group: PlacementGroup | None, bundle: int | None, **asked: Any) -> Any:
    """Return the actor class to call `.remote` on, placed in a bundle (None: anywhere in it)."""
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, **asked}
    if group is not None and bundle is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=bundle
        )
    return ray.remote(cls).options(**options)
