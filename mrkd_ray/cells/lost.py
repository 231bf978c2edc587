"""Branches that a cell has lost and goes on without: `--quorum`.

While the cell runs they stand beside its checkpoints, so that a run that is resumed goes on without
them too; afterwards in its `result.json`. From the last checkpoint on, all is as in a cohort that
never had them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.cell import Cell
from mrkd_ray.common.files import write_json
from mrkd_ray.common.reading import Damaged, read_json
from mrkd_ray.training.branch_task import BranchTask

FILE, ATTEMPTS = "lost.json", "attempts.json"
_FIELDS: dict[str, type] = {"cycle": int, "error": str}

Lost = dict[str, dict[str, Any]]
"""By branch: `cycle`, the first that it takes no part in, and `error`.

A cell that lost none is the one that it is without a quorum: its key is the same.
"""


def read(folder: Path) -> Lost:
    """Return what a cell that is not finished has lost. Raises Damaged."""
    path = folder / "checkpoint" / FILE
    found = read_json(path) if path.exists() else {}
    if not all(map(_is_whole, found.values())):
        raise Damaged(path, "not a list of lost branches")
    return found


def _is_whole(each: Any) -> bool:
    return isinstance(each, dict) and {name: type(x) for name, x in each.items()} == _FIELDS


def left(tasks: Sequence[BranchTask], folder: Path) -> list[BranchTask]:
    """Return the tasks of the branches that the cell in `folder` has not lost."""
    gone = read(folder)
    return [task for task in tasks if task.name not in gone]


def enough(cell: Cell, lost: Collection[str]) -> bool:
    """Say whether the cell may be without these branches."""
    return not lost or len(cell.names) - len(lost) >= (cell.quorum or len(cell.names))


def lose(cell: Cell, folder: Path, names: Collection[str], error: str) -> bool:
    """Have the cell go on without some branches from its last checkpoint, where it may."""
    before = read(folder)
    if not names or not enough(cell, {*before, *names}):
        return False
    cycle = cell_files.cycles_done(folder)
    new = {name: {"cycle": cycle, "error": error} for name in names}
    (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
    write_json(folder / "checkpoint" / FILE, before | new)
    return True


def attempt(folder: Path, run: str) -> int:
    """Return how often a run has begun this cell or gone on with it, this time included."""
    path = folder / "checkpoint" / ATTEMPTS
    try:
        before = read_json(path, "run", "attempts")
    except Damaged:
        before = {}
    known = before.get("run") == run and type(before["attempts"]) is int
    number = before["attempts"] + 1 if known else 1
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"run": run, "attempts": number})
    return number


def sentence(names: Collection[str], error: str) -> str:
    """Say what was lost, and why."""
    return f"goes on without {' and '.join(names)} (--quorum): {error}"
