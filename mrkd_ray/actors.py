"""Branches and the aggregator as Ray actors, and `RayCohort`, which drives them by refs.

A cycle is submitted as a whole; the driver blocks once, in `end_cycle`. Branch methods return
their arrays: a returned object outlives its actor, one put by it would not. Actors are never
restarted by Ray, since a restart would silently begin from fresh weights: the cell goes on from
its last checkpoint instead (`trial`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mrkd_ray import checkpoint
from mrkd_ray.averaging import AVERAGES, Array
from mrkd_ray.errors import UserError
from mrkd_ray.mapping import X, Y
from mrkd_ray.task import BranchTask

SHARD_BYTES = 64 * 2**20
"""Soft labels travel in shards of at most this size, by ranges of clips."""


class BranchActor:
    """One branch, holding its GPU (or its share of one) as long as it lives."""

    def __init__(self, task: BranchTask) -> None:
        from mrkd_ray.branch import Branch  # PyTorch and CUDA live in branch actors only

        self._spec = task.spec
        self._branch = Branch(task)

    def __repr__(self) -> str:
        return f"Branch({self._spec.representation}, {self._spec.network})"

    def resume(self, folder: Path) -> int:
        """Load the branch's checkpoint from `folder`; return the next cycle."""
        return self._branch.resume(folder)

    def train(self, epochs: int) -> None:
        """Eq. 1."""
        self._branch.train(epochs)

    def soft_labels(self, temperature: float, shards: int) -> list[Array] | Array:
        """Return the soft labels [N, M] in `shards` parts, each an object of its own."""
        parts = np.array_split(self._branch.soft_labels(temperature), shards)
        return parts if shards > 1 else parts[0]

    def held_out_accuracy(self) -> float:
        """Return the accuracy on the held-out clips."""
        return self._branch.held_out_accuracy()

    def distil(self, temperature: float, epochs: int, *teacher: Array) -> None:
        """`teacher` comes in shards, as top-level arguments, which Ray reads without a copy."""
        self._branch.distil(np.concatenate(teacher), temperature, epochs)

    def end_cycle(self, folder: Path) -> dict[str, Any]:
        """Evaluate, write the branch's checkpoint into `folder`, return the cycle's figures."""
        return self._branch.end_cycle(folder)

    def test_probabilities(self) -> Array:
        """Return clip-level probabilities [n_test, M]."""
        return self._branch.probabilities("test")

    def export(self, folder: Path) -> None:
        """Write what is needed to classify with this branch alone."""
        self._branch.export(folder)


class AggregatorActor:
    """The information aggregation unit: averages a shard as soon as its Γ parts are there."""

    def __repr__(self) -> str:
        return "Aggregator"

    def average(self, rule: str, branches: int, *parts: Any) -> list[Array] | Array:
        """Apply Eq. 3 to one shard.

        Args:
            rule: name of the average.
            branches: Γ.
            parts: Γ arrays [n, M], then Γ weights where the rule is weighted.
        """
        weights = parts[branches:] or [1.0] * branches
        teachers = AVERAGES[rule].combine(parts[:branches], weights)
        return teachers if len(teachers) > 1 else teachers[0]


class RayCohort:
    """Γ branch actors and an aggregator; goes on from the latest checkpoint under `folder`.

    Args:
        tasks: one for each branch, with distinct names; their training clips are the same.
        folder: the cell's folder, on storage that every node sees.
        group: placement group with one bundle for each branch, in order; without one the actors
            are placed wherever there is room.
        cpus: CPUs of a branch actor.
        gpus: GPUs of a branch actor; fractions share a card.

    Every call can raise ray.exceptions.RayActorError, when an actor has died.
    """

    def __init__(
        self,
        tasks: Sequence[BranchTask],
        folder: Path,
        *,
        group: PlacementGroup | None = None,
        cpus: float = 1,
        gpus: float = 0,
    ) -> None:
        self._task = tasks[0]
        self._checkpoints = folder.absolute() / "checkpoint"
        self._rule = AVERAGES[self._task.training.average]
        rows = len(self._task.train.clip_ids)
        self._shards = max(1, -(-rows * len(self._task.classes) * 4 // SHARD_BYTES))
        self._teachers: list[list[Any]] = []
        self._names = [task.name for task in tasks]
        self._aggregator = _actor(AggregatorActor, group, None).remote()
        self._branches = [
            _actor(BranchActor, group, i, num_cpus=cpus, num_gpus=gpus).remote(task)
            for i, task in enumerate(tasks)
        ]
        self._submitted: list[Any] = []
        self.cycle = 0
        found = checkpoint.latest(self._checkpoints)
        if found:
            self.cycle = max(self._all("resume", found))

    def train(self, epochs: int) -> None:
        """Eq. 1 in every branch, submitted."""
        self._submit([branch.train.remote(epochs) for branch in self._branches])

    def soft_labels(self, temperature: float) -> list[list[Any]]:
        """Eq. 2: for each branch, one ref a shard."""
        refs = [
            branch.soft_labels.options(num_returns=self._shards).remote(temperature, self._shards)
            for branch in self._branches
        ]
        return refs if self._shards > 1 else [[ref] for ref in refs]

    def average(self, soft_labels: list[list[Any]]) -> list[list[Any]]:
        """Eq. 3: for each distinct teacher, one ref a shard."""
        weights = [
            branch.held_out_accuracy.remote() for branch in self._branches if self._rule.weighted
        ]
        count = 1 if self._rule.shared else len(self._branches)
        shards = [
            self._aggregator.average.options(num_returns=count).remote(
                self._task.training.average, len(self._branches), *parts, *weights
            )
            for parts in zip(*soft_labels, strict=True)
        ]
        by_shard = shards if count > 1 else [[ref] for ref in shards]
        self._teachers = [list(refs) for refs in zip(*by_shard, strict=True)]
        return self._teachers

    def distil(self, teacher: list[list[Any]], temperature: float, epochs: int) -> None:
        """Eqs. 4 and 5 in every branch, submitted with the teacher's refs."""
        self._submit(
            [
                branch.distil.remote(temperature, epochs, *teacher[0 if self._rule.shared else i])
                for i, branch in enumerate(self._branches)
            ]
        )

    def end_cycle(self) -> list[dict[str, Any]]:
        """Wait for the cycle, evaluate and checkpoint; one row of figures a branch."""
        folder = checkpoint.begin(self._checkpoints, self.cycle + 1)
        self._submit([branch.end_cycle.remote(folder) for branch in self._branches])
        done = ray.get(self._submitted)  # the one barrier of a cycle; also raises any failure
        self._submitted = []
        if self._teachers:
            teachers = [np.concatenate(ray.get(refs)) for refs in self._teachers]
            checkpoint.save_teacher(folder, self._task.train.clip_ids, teachers)
        rows: list[dict[str, Any]] = done[-len(self._branches) :]
        self.cycle += 1
        checkpoint.commit(self._checkpoints, self.cycle, rows)
        return rows

    def test_probabilities(self) -> list[Array]:
        """Clip-level probabilities [n_test, M] of every branch."""
        return self._all("test_probabilities")

    def export(self, folder: Path) -> None:
        """Write every branch into a folder of its own under `folder`."""
        folder = folder.absolute()
        ray.get(
            [
                branch.export.remote(folder / name)
                for branch, name in zip(self._branches, self._names, strict=True)
            ]
        )

    def close(self) -> None:
        """End the actors and give their resources back."""
        for actor in (*self._branches, self._aggregator):
            ray.kill(actor)

    def _submit(self, refs: list[Any]) -> None:
        self._submitted += refs

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        return ray.get([getattr(branch, method).remote(*arguments) for branch in self._branches])


def _actor(cls: type, group: PlacementGroup | None, bundle: int | None, **resources: float) -> Any:
    """Return the actor class to call `.remote` on, placed in a bundle (None: anywhere in it)."""
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, **resources}
    if group is not None and bundle is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=bundle
        )
    return ray.remote(cls).options(**options)


def ray_map(function: Callable[[X], Y], items: Sequence[X]) -> Iterator[Y]:
    """Apply a function to every item in Ray tasks; yield the results as they come, in any order.

    Raises:
        UserError: as raised by the function, without Ray's traceback around it.
    """
    task = ray.remote(function)
    waiting = deque(items)
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    limit = 2 * max(1, int(resources.get("CPU", 1)))
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                running.append(task.remote(waiting.popleft()))
            (ready,), running = ray.wait(running, num_returns=1)
            yield ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    finally:
        for ref in running:
            ray.cancel(ref, force=True)
