"""When a cell stops before its last cycle, and which cycle of each branch is kept.

Both follow from the rows of `history.csv`, so a run that is resumed decides as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mrkd_ray.training import checkpoints

Row = dict[str, Any]

LOSS = "held_out_loss"


def best_cycles(history: Iterable[Row]) -> dict[str, int]:
    """Return the cycle in which each branch, by name, had its lowest held-out loss; ties: first."""
    best: dict[str, tuple[float, int]] = {}
    for row in history:
        found = float(row[LOSS]), int(row["cycle"])
        best[row["branch"]] = min(found, best.get(row["branch"], found))
    return {name: cycle for name, (_, cycle) in best.items()}


def is_over(history: Sequence[Row], patience: int | None) -> bool:
    """Say whether no branch got better in the last `patience` cycles; None: never over."""
    if patience is None or not history:
        return False
    return int(history[-1]["cycle"]) - max(best_cycles(history).values()) >= patience


def keep_best(history: Sequence[Row], root: Path) -> None:
    """Keep the branches whose best cycle is the last one, from its checkpoint under `root`.

    Until they are kept, the next checkpoint is not committed: a crash in between loses nothing.
    """
    committed = checkpoints.latest(root)
    if committed is None:
        return
    for name, cycle in best_cycles(history).items():
        if cycle + 1 == checkpoints.cycle_of(committed):
            checkpoints.keep(committed, name)
