"""Trained branches as the teacher of a student: its soft labels are theirs and not its own.

Function matching (Beyer et al. 2022): teachers and student see the same windows, changed and mixed
alike. Where teachers answer out of fold (`cross_fit`), a window is of one clip, whose teachers are
those that have not heard it: a mixed one may be of two clips that no teacher is new to.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.features.window_extents import window_bytes
from mrkd_ray.features.window_sources import Index
from mrkd_ray.features.windows import Windows
from mrkd_ray.inference.clip_logits import window_logits
from mrkd_ray.inference.model_folder import read_model
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.training import device_memory
from mrkd_ray.training.branch_task import BranchTask, FrozenTeacher
from mrkd_ray.training.compute import Compute
from mrkd_ray.training.data_parallel import ALONE, Ranks
from mrkd_ray.training.minibatches import Minibatches


class FrozenTeachers:
    """The teachers of a task, which are asked about the windows that its student will see.

    Args:
        task: of the student, with `teachers`.
        compute: the student's.
        ranks: the student's.

    Raises:
        UserError: a model cannot be read.
    """

    def __init__(self, task: BranchTask, compute: Compute, ranks: Ranks = ALONE) -> None:
        self._task, self._compute, self._ranks = task, compute, ranks
        self._rows = len(task.taught)
        # Those of one representation and one normalisation share their windows.
        self._groups: list[_Group] = []
        seen: dict[tuple[str, bytes, bytes], _Group] = {}
        for teacher, store in task.teachers:
            model = read_model(teacher.folder, compute.device)
            normal = model.statistics
            key = (teacher.representation, normal.mean.tobytes(), normal.std.tobytes())
            if key not in seen:
                timing = REPRESENTATIONS[teacher.representation].timing
                bank = store.bank(task.taught)
                needed = window_bytes(bank.lengths, store.bins, timing.window(task.window_ticks))
                windows = Windows(
                    bank,
                    normal,
                    compute.device,
                    timing,
                    ticks=task.window_ticks,
                    resident=device_memory.resident(task, needed),
                )
                # By the student's name: a gain that is drawn for it is drawn for them.
                spec = BranchSpec(representation=teacher.representation, network="")
                listening = replace(task, spec=spec, store=store, neighbourhood=())
                places = np.arange(self._rows, dtype=np.int64)
                batches = Minibatches(listening, windows, places, ranks=ranks)
                seen[key] = _Group(windows, batches, [])
                self._groups.append(seen[key])
            network = compute.place(model.network).eval()
            seen[key].networks.append((network, _asked(teacher, task)))

    def logits(self, cycle: int, epoch: int) -> Tensor:
        """Return the mean of their logits [N, M] of the samples of an epoch to come.

        Rows are in the order of the task's `taught` clips. Samples are virtual ones, or windows of
        one clip each, as the student's `soft_labels` says.
        """
        total = torch.zeros(self._rows, len(self._task.classes), device=self._compute.device)
        answers = torch.zeros(self._rows, 1, device=self._compute.device)
        for group in self._groups:
            if self._task.training.soft_labels == "window":
                self._of_windows(group, cycle, epoch, total)
            else:
                self._of_virtual_samples(group, cycle, epoch, total)
            for _, rows in group.networks:
                answers[rows] += 1
        return self._ranks.total(total) / answers

    def _of_windows(self, group: _Group, cycle: int, epoch: int, total: Tensor) -> None:
        clips = np.arange(self._rows, dtype=np.int64)
        starts = group.minibatches.starts(cycle, epoch, clips)
        for network, rows in group.networks:
            own = rows[self._ranks.share(len(rows))]
            apply = partial(self._compute.logits, network)
            if len(own) or self._ranks.first:
                total[own] += window_logits(apply, group.windows, own, starts[own])

    def _of_virtual_samples(self, group: _Group, cycle: int, epoch: int, total: Tensor) -> None:
        with torch.inference_mode():
            for batch in group.minibatches.epoch(cycle, epoch, epoch, virtual=True):
                for network, _ in group.networks:
                    found = self._compute.logits(network, batch.inputs)
                    total.index_add_(0, batch.rows, found)


class _Group(NamedTuple):
    """Teachers that hear the same windows, each with the rows that it answers for."""

    windows: Windows
    minibatches: Minibatches
    networks: list[tuple[nn.Module, Index]]


def _asked(teacher: FrozenTeacher, task: BranchTask) -> Index:
    """Return the rows that a teacher answers for: of all clips, or of those that are new to it."""
    digests = (task.store.digests[clip_id] for clip_id in task.taught)
    rows = (
        row
        for row, digest in enumerate(digests)
        if not teacher.cross_fit or digest not in teacher.trained_on
    )
    return np.fromiter(rows, dtype=np.int64)
