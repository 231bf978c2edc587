"""What the actors of a cohort do: a branch, and the aggregator. Ray makes actors of these classes.

Branch methods return their arrays: a returned object outlives its actor, one put by it would not.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from mrkd_ray.common import manifest
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.timeline import Recorder, Span
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.distributed.home import Home
from mrkd_ray.method.averaging import AVERAGES
from mrkd_ray.training.branch_task import BranchTask

if TYPE_CHECKING:
    from mrkd_ray.training.branch import Branch
    from mrkd_ray.training.data_parallel import Ranks

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Which of the processes of a data-parallel branch a process is.

    Attributes:
        rank: from 0.
        size: how many there are, all on one node.
        token: of the cohort and the branch, by which they find each other.
    """

    rank: int = 0
    size: int = 1
    token: str = ""

    def ranks(self, device: str) -> Ranks:
        """Meet the others, on "cpu" or "cuda"; waits for them."""
        from mrkd_ray.training.data_parallel import ALONE, Ranks

        if self.size == 1:
            return ALONE
        context = ray.get_runtime_context()
        session = Path(context.get_temp_dir()) / context.get_session_name()  # goes with the cluster
        return Ranks.join(self.rank, self.size, session / f"ranks-{self.token}", device)


class BranchActor:
    """The branches of one kind, one after the other, on a GPU (or a share) of the actor's own.

    Where a branch has several processes each is such an actor, and all are called alike.

    Args:
        spec: of the branches.
        home: the node where the run's folders are; None where this node sees them.
        place: of this process among those of its branch.
    """

    _branch: Branch  # from `start` on
    _ranks: Ranks  # likewise

    def __init__(
        self, spec: BranchSpec, home: Home | None = None, place: Place | None = None
    ) -> None:
        self._spec, self._home, self._place = spec, home, place or Place()
        self._recorder = Recorder()
        self._teacher = np.empty((0, 0), np.float32)

    def __repr__(self) -> str:
        rank = f", rank {self._place.rank}" if self._place.rank else ""
        return f"Branch({self._spec.representation}, {self._spec.network}{rank})"

    def start(self, task: BranchTask, found: Path | None) -> None:
        """Begin a new branch, from its checkpoint in `found` if any; the one before is freed."""
        from mrkd_ray.training.branch import (  # PyTorch lives in branch actors only
            Branch,
            free_memory,
        )

        with self._recorder.span("start"):
            vars(self).pop("_branch", None)
            free_memory()
            if self._home:
                for store in task.stores:
                    self._home.bring(store, task.clip_ids)
                for teacher, _ in task.teachers:
                    self._home.bring_folder(teacher.folder)
            if "_ranks" not in vars(self):
                self._ranks = self._place.ranks(task.device)
            self._branch = Branch(task, self._ranks)
            if found:
                with self._reading(found) as folder:
                    self._branch.resume(folder)

    def train(self, epochs: int) -> None:
        """Eq. 1."""
        self._branch.train(epochs)

    def soft_labels(self, temperature: float, shards: int) -> list[Float32] | Float32:
        """Return the soft labels [N, M] in `shards` parts, each an object of its own.

        Of a branch's processes the first returns them, the others parts of no rows.
        """
        rows = self._branch.soft_labels(temperature)
        parts = np.array_split(rows if self._place.rank == 0 else rows[:0], shards)
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
        with self._writing(folder) as here:
            return self._branch.end_cycle(here)

    def restore(self, folder: Path) -> None:
        """Take the weights of the branch's checkpoint in `folder`."""
        with self._reading(folder) as here:
            self._branch.restore(here)

    def test_probabilities(self) -> Float32:
        """Return clip-level probabilities [n_test, M]."""
        return self._branch.probabilities("test")

    def export(self, folder: Path) -> None:
        """Write what is needed to classify with this branch alone."""
        with self._writing(folder) as here:
            self._branch.export(here)

    def _reading(self, folder: Path) -> AbstractContextManager[Path]:
        if self._home is None:
            return nullcontext(folder)
        file = f"{self._branch.task.name}.safetensors"
        return self._home.reading(folder, file, manifest.NAME)

    def _writing(self, folder: Path) -> AbstractContextManager[Path]:
        return self._home.writing(folder) if self._home else nullcontext(folder)

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
