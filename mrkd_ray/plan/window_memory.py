"""The windows of branches: what they take, whether they will be kept, and memory with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.features.window_extents import window_bytes
from mrkd_ray.grid.workers import Workers
from mrkd_ray.plan.measurements import Kind, ProbedKind, kind_of

if TYPE_CHECKING:
    from mrkd_ray.training.branch_task import BranchTask


@dataclass(frozen=True)
class WindowMemory:
    """Of each branch of a kind: the bytes of its windows, and whether they are kept."""

    needed: tuple[int, ...]
    kept: tuple[bool, ...]
    device: str

    @property
    def source(self) -> Literal["resident", "streamed"]:
        """Resident where all branches keep theirs."""
        return "resident" if all(self.kept) else "streamed"

    def memory(self, probed: ProbedKind, local: bool) -> int:
        """Return the bytes of the largest branch; of all of them, where one process has them.

        Static frames, one channel of three, are mapped into a process on the CPU besides.
        """
        mapped = self.device == "cpu"
        grown = [
            needed * (3 * kept + mapped) // 3 - before * (3 * all(self.kept) + mapped) // 3
            for needed, kept, before in zip(
                self.needed, self.kept, probed.window_bytes, strict=True
            )
        ]
        if local:
            return probed.peak_bytes[0] + sum(grown)
        return max(peak + more for peak, more in zip(probed.peak_bytes, grown, strict=True))


def window_memory_of(
    cells: Sequence[Cell], prepared: Prepared, workers: Workers, ticks: Mapping[str, int]
) -> dict[Kind, WindowMemory]:
    """Decide for each kind of cell as its branches will, for the largest of the splits.

    Args:
        ticks: of each clip, by clip_id.
    """
    found: dict[Kind, WindowMemory] = {}
    for kind, cell in {kind_of(cell): cell for cell in cells}.items():
        share = workers.gpus(len(cell.branches))
        tasks = [  # [splits][branches]
            branch_tasks(replace(cell, fold=split.fold), prepared, share or None)
            for split in prepared.splits
        ]
        needed = [max(_bytes(task, ticks) for task in own) for own in zip(*tasks, strict=True)]
        room = max(needed)
        if cell.window_memory == "auto":
            where = {"gpus": share} if share else {}
            (room,) = workers.map(_budget, tasks[0][:1], **where)
        kept = tuple(cell.window_memory != "streamed" and each <= room for each in needed)
        found[kind] = WindowMemory(tuple(needed), kept, cell.device)
    return found


def _bytes(task: BranchTask, ticks: Mapping[str, int]) -> int:
    timing = task.store.timing
    lengths = timing.frames_at(np.array([ticks[clip_id] for clip_id in task.clip_ids]))
    return window_bytes(lengths, task.store.bins, timing.window(task.window_ticks))


def _budget(task: BranchTask) -> int:
    from mrkd_ray.training import device_memory  # PyTorch, in a worker

    return device_memory.budget(task)
