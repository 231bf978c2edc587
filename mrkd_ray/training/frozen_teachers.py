"""Trained branches as the teacher of a student: its soft labels are theirs and not its own.

Function matching (Beyer et al. 2022): teachers and student see the same windows, changed and mixed
alike.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.features.window_extents import window_bytes
from mrkd_ray.features.windows import Windows
from mrkd_ray.inference.model_folder import read_model
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.training import device_memory
from mrkd_ray.training.branch_task import BranchTask
from mrkd_ray.training.compute import Compute
from mrkd_ray.training.minibatches import Minibatches


class FrozenTeachers:
    """The teachers of a task, which are asked about the windows that its student will see.

    Args:
        task: of the student, with `teachers`.
        compute: the student's.

    Raises:
        UserError: a model cannot be read.
    """

    def __init__(self, task: BranchTask, compute: Compute) -> None:
        self._task, self._compute = task, compute
        self._rows = len(task.taught)
        # Those of one representation and one normalisation share their windows.
        self._networks: list[tuple[Minibatches, list[nn.Module]]] = []
        seen: dict[tuple[str, bytes, bytes], list[nn.Module]] = {}
        for teacher, store in task.teachers:
            model = read_model(teacher.folder, compute.device)
            normal = model.statistics
            key = (teacher.representation, normal.mean.tobytes(), normal.std.tobytes())
            if key not in seen:
                seen[key] = []
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
                batches = Minibatches(listening, windows, np.arange(self._rows, dtype=np.int64))
                self._networks.append((batches, seen[key]))
            seen[key].append(compute.place(model.network).eval())

    def logits(self, cycle: int, epoch: int) -> Tensor:
        """Return the mean of their logits [N, M] of the virtual samples of an epoch to come.

        Rows are in the order of the task's `taught` clips.
        """
        total = torch.zeros(self._rows, len(self._task.classes), device=self._compute.device)
        with torch.inference_mode():
            for minibatches, networks in self._networks:
                for batch in minibatches.epoch(cycle, epoch, epoch, virtual=True):
                    for network in networks:
                        found = self._compute.logits(network, batch.inputs)
                        total.index_add_(0, batch.rows, found)
        return total / len(self._task.teachers)
