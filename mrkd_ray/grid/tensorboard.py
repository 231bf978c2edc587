"""Figures of each cycle for TensorBoard: a folder of event files for each cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrkd_ray.cells.run import figures

FOLDER = "tensorboard"  # beside the cells, whose files do not change when they are finished


class TensorBoard:
    """Writes figures of cells below `tensorboard/` of a grid's folder: tags `branch/figure`."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter  # only where it is asked for

        self._folder, self._writer = folder / FOLDER, SummaryWriter
        self._writers: dict[str, Any] = {}

    def cycle(self, key: str, rows: Sequence[dict[str, Any]]) -> None:
        """Write one cycle's figures of a cell, a row a branch."""
        if key not in self._writers:
            self._writers[key] = self._writer(str(self._folder / key))
        for tag, value in figures(rows).items():
            self._writers[key].add_scalar(tag, value, rows[0]["cycle"] + 1)

    def close(self, key: str) -> None:
        """Close the files of a cell that has ended."""
        if writer := self._writers.pop(key, None):
            writer.close()
