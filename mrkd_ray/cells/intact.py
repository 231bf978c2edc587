"""Whether a cell's folder is what was written there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.cell import Cell
from mrkd_ray.common import manifest
from mrkd_ray.common.reading import Damaged, read_json

RESULT = "result.json"
NEEDED = ("dataset", "epochs", "clips", "seconds", "models")
FILES = (RESULT, "history.csv", "predictions.csv", "predicted.npy")
"""What tables and reports are made from."""


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished cell, None where there is none.

    Raises:
        Damaged: it is there and not what was written.
    """
    if not (folder / RESULT).exists():
        return None
    manifest.check(folder, [RESULT])
    return read_json(folder / RESULT, *NEEDED)


def result_of(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished cell, None where there is none that can be trusted."""
    try:
        return read_result(folder)
    except Damaged:
        return None


def check_is(cell: Cell, folder: Path, result: Mapping[str, Any]) -> None:
    """Compare what a result says that it is of with a cell.

    Raises:
        Damaged: it is another's: somebody moved or renamed folders.
    """
    for name in ("condition", "cohort", "temperature", "fold", "seed"):
        asked = getattr(cell, name)
        if (found := result.get(name, asked)) != asked:  # one of an earlier version may say less
            raise Damaged(folder / RESULT, f"it is of {name} {found}, the folder of {asked}")


def check(folder: Path) -> None:
    """Compare all files of a finished cell with what was written.

    A cell of an earlier version, without a manifest, must have its tables.

    Raises:
        Damaged: names the file.
    """
    result = read_result(folder)
    manifest.check(folder)
    if result is None or manifest.read(folder) is not None:
        return
    cell_files.read_predictions(folder)
    cell_files.read_figures(folder)
