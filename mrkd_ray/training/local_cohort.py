"""`LocalCohort`: the branches in this process, one after the other. The reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.timeline import Span
from mrkd_ray.method.averaging import AVERAGES
from mrkd_ray.training import checkpoints
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.branch_task import BranchTask


class LocalCohort:
    """Γ branches in this process; goes on from the latest checkpoint under `folder`.

    Args:
        tasks: one for each branch, with distinct names; their training clips are the same.
        folder: the cell's folder.
    """

    def __init__(self, tasks: Sequence[BranchTask], folder: Path) -> None:
        self._task = tasks[0]
        self._checkpoints = folder / "checkpoint"
        self._rule = AVERAGES[self._task.training.average]
        self._teachers: list[Float32] = []
        self.branches = [Branch(task) for task in tasks]
        checkpoints.discard_damaged(self._checkpoints)
        found = checkpoints.latest(self._checkpoints)
        self.cycle = max(branch.resume(found) for branch in self.branches) if found else 0

    def train(self, epochs: int) -> None:
        """Eq. 1 in every branch."""
        for branch in self.branches:
            branch.train(epochs)

    def soft_labels(self, temperature: float) -> list[Float32]:
        """Eq. 2: one array [N, M] a branch."""
        return [branch.soft_labels(temperature) for branch in self.branches]

    def average(self, soft_labels: list[Float32]) -> list[Float32]:
        """Eq. 3: one array [N, M] for all branches, or one for each."""
        weights = [
            branch.held_out_accuracy() if self._rule.weighted else 1.0 for branch in self.branches
        ]
        self._teachers = self._rule.teachers(soft_labels, weights, self._task.multi_label)
        return self._teachers

    def distil(self, teacher: list[Float32], temperature: float, epochs: int) -> None:
        """Eqs. 4 and 5 in every branch."""
        for i, branch in enumerate(self.branches):
            branch.distil(teacher[0 if self._rule.shared else i], temperature, epochs)

    def end_cycle(self) -> list[dict[str, Any]]:
        """Evaluate and checkpoint; one row of figures a branch."""
        folder = checkpoints.begin(self._checkpoints, self.cycle + 1)
        rows = [branch.end_cycle(folder) for branch in self.branches]
        self.cycle += 1
        if self._teachers and self.cycle == self._task.training.cycles:  # the last is a result
            shape = (len(self._teachers), *self._teachers[0].shape)
            checkpoints.save_teacher(folder, self._task.taught, self._teachers, shape)
        checkpoints.commit(folder, rows)
        return rows

    def figures(self, cycles: Iterator[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
        """The figures of each cycle: what `end_cycle` returned."""
        return cycles

    def spans(self) -> dict[str, list[Span]]:
        """What every branch did since it was asked last."""
        return {branch.task.name: branch.recorder.take() for branch in self.branches}

    def test_probabilities(self) -> list[Float32]:
        """Clip-level probabilities [n_test, M] of every branch."""
        return [branch.probabilities("test") for branch in self.branches]

    def restore(self, folder: Path) -> None:
        """Take every branch's weights from its checkpoint in `folder`."""
        for branch in self.branches:
            branch.restore(folder)

    def export(self, folder: Path) -> None:
        """Write every branch into a folder of its own under `folder`."""
        for branch in self.branches:
            branch.export(folder / branch.task.name)
