"""The windows of branches: what they take, whether they will be kept, and memory with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid.opening import Opened
from mrkd_ray.plan import costs
from mrkd_ray.plan.measurements import Kind, Measured, kind_of

if TYPE_CHECKING:
    from mrkd_ray.training.branch_task import BranchTask


@dataclass(frozen=True)
class Windows:
    """Of each branch of a kind: the bytes of its windows, and whether they are kept."""

    needed: tuple[int, ...]
    kept: tuple[bool, ...]
    device: str

    @property
    def source(self) -> Literal["resident", "streamed"]:
        """Resident where all branches keep theirs."""
        return "resident" if all(self.kept) else "streamed"

    def memory(self, measured: Measured, local: bool) -> int:
        """Return the bytes of the largest branch; of all of them, where one process has them.

        Static frames, one channel of three, are mapped into a process on the CPU besides.
        """
        mapped = self.device == "cpu"
        grown = [
            needed * (3 * kept + mapped) // 3 - probed * (3 * all(self.kept) + mapped) // 3
            for needed, kept, probed in zip(
                self.needed, self.kept, measured.window_bytes, strict=True
            )
        ]
        if local:
            return measured.peak_bytes[0] + sum(grown)
        return max(peak + more for peak, more in zip(measured.peak_bytes, grown, strict=True))


def windows_of(
    config: GridConfig, opened: Opened, todo: Sequence[Cell], frames: Mapping[str, int]
) -> dict[Kind, Windows]:
    """Decide as the branches will, for the largest of the splits."""
    prepared = opened.checked.prepared
    found: dict[Kind, Windows] = {}
    for kind, cell in {kind_of(cell): cell for cell in todo}.items():
        share = opened.shares(len(cell.branches))
        tasks = [  # [splits][branches]
            branch_tasks(replace(cell, fold=split.fold), prepared, share or None)
            for split in prepared.splits
        ]
        needed = [
            max(costs.window_bytes([frames[c] for c in t.clip_ids], t.store.bins) for t in branch)
            for branch in zip(*tasks, strict=True)
        ]
        room = max(needed)
        if config.windows == "auto":
            where = {"gpus": share} if share else {}
            (room,) = opened.workers.map(_budget, tasks[0][:1], **where)
        kept = tuple(config.windows != "streamed" and each <= room for each in needed)
        found[kind] = Windows(tuple(needed), kept, cell.device)
    return found


def _budget(task: BranchTask) -> int:
    from mrkd_ray.training import device_memory  # PyTorch, in a worker

    return device_memory.budget(task)
