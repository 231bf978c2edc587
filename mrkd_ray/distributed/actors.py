"""What the actors of a cohort do: a branch, and the aggregator. Ray makes actors of these classes.

Branch methods return their arrays: a returned object outlives its actor, one put by it would not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.timeline import Recorder, Span
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.method.averaging import AVERAGES
from mrkd_ray.training.branch_task import BranchTask

if TYPE_CHECKING:
    from mrkd_ray.training.branch import Branch

Row = dict[str, Any]


class BranchActor:
    """The branches of one kind, one after the other, on a GPU (or a share) of the actor's own."""

    _branch: Branch  # from `start` on

    def __init__(self, spec: BranchSpec) -> None:
        self._spec = spec
        self._recorder = Recorder()
        self._teacher = np.empty((0, 0), np.float32)

    def __repr__(self) -> str:
        return f"Branch({self._spec.representation}, {self._spec.network})"

    def start(self, task: BranchTask, found: Path | None) -> None:
        """Begin a new branch, from its checkpoint in `found` if any; the one before is freed."""
        from mrkd_ray.training.branch import (  # PyTorch lives in branch actors only
            Branch,
            free_memory,
        )

        with self._recorder.span("start"):
            vars(self).pop("_branch", None)
            free_memory()
            self._branch = Branch(task)
            if found:
                self._branch.resume(found)

    def train(self, epochs: int) -> None:
        """Eq. 1."""
        self._branch.train(epochs)

    def soft_labels(self, temperature: float, shards: int) -> list[Float32] | Float32:
        """Return the soft labels [N, M] in `shards` parts, each an object of its own."""
        parts = np.array_split(self._branch.soft_labels(temperature), shards)
        return parts if shards > 1 else parts[0]

    def held_out_accuracy(self) -> float:
        """Return the accuracy on the held-out clips."""
        with self._recorder.span("held_out_accuracy"):
            return self._branch.held_out_accuracy()

    def distil(self, temperature: float, epochs: int, *teacher: Float32) -> None:
        """`teacher` comes in shards, as top-level arguments, which Ray reads without a copy.

        They are joined in an array that stays: memory that is in use already is fast to write to.
        """
        shape = (sum(map(len, teacher)), teacher[0].shape[1])
        if self._teacher.shape != shape:
            self._teacher = np.empty(shape, np.float32)
        np.concatenate(teacher, out=self._teacher)
        self._branch.distil(self._teacher, temperature, epochs)

    def end_cycle(self, folder: Path) -> Row:
        """Evaluate, write the branch's checkpoint into `folder`, return the cycle's figures."""
        return self._branch.end_cycle(folder)

    def restore(self, folder: Path) -> None:
        """Take the weights of the branch's checkpoint in `folder`."""
        self._branch.restore(folder)

    def test_probabilities(self) -> Float32:
        """Return clip-level probabilities [n_test, M]."""
        return self._branch.probabilities("test")

    def export(self, folder: Path) -> None:
        """Write what is needed to classify with this branch alone."""
        self._branch.export(folder)

    def spans(self) -> list[Span]:
        """Return what the branch did since it was asked last."""
        spans = self._recorder.take() + self._branch.recorder.take()
        return sorted(spans, key=lambda span: span.begin)


class AggregatorActor:
    """The information aggregation unit: averages a shard as soon as its Γ parts are there."""

    def __init__(self) -> None:
        self._recorder = Recorder()

    def __repr__(self) -> str:
        return "Aggregator"

    def average(
        self, rule: str, multi_label: bool, branches: int, *parts: Any
    ) -> list[Float32] | Float32:
        """Apply Eq. 3 to one shard.

        Args:
            rule: name of the average.
            multi_label: whether each class has a probability of its own; else they sum to 1.
            branches: Γ.
            parts: Γ arrays [n, M], then Γ weights where the rule is weighted.
        """
        weights = parts[branches:] or [1.0] * branches
        with self._recorder.span("average"):
            teachers = AVERAGES[rule].teachers(parts[:branches], weights, multi_label)
        return teachers if len(teachers) > 1 else teachers[0]

    def spans(self) -> list[Span]:
        """Return the shards that were averaged since it was asked last."""
        return self._recorder.take()
