"""When a cell stops before its last cycle, and which cycle of each branch is kept.

Both follow from the rows of `history.csv`, so a run that is resumed decides as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mrkd_ray.config.method import Training
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


def is_over(history: Sequence[Row], training: Training) -> bool:
    """Say whether no branch got better in the last `early_stop` cycles, those of the warm-up apart.

    A cohort would otherwise stop before it had a teacher. Of a baseline `warm_up` is the default.
    """
    if training.early_stop is None or not history:
        return False
    begin = max(training.warm_up_cycles - 1, *best_cycles(history).values())
    return int(history[-1]["cycle"]) - begin >= training.early_stop


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
