"""What people see of cells under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.run import Row
from mrkd_ray.grid.opening import OpenGrid
from mrkd_ray.grid.tensorboard import TensorBoard
from mrkd_ray.scores import metrics


class Shown:
    """Shows what a grid's cells report: in its progress display, and to TensorBoard where asked.

    Args:
        opened: whose display and options are used.
        folder: the grid's.
        cell_of: the cell of a key.
        begun: cycles that a cell had done before, by key; 0 of those that are not there.
    """

    def __init__(
        self,
        opened: OpenGrid,
        folder: Path,
        cell_of: Callable[[str], Cell],
        begun: Mapping[str, int],
    ) -> None:
        self._display, self._cell_of, self._begun = opened.display, cell_of, begun
        self._board = TensorBoard(folder) if opened.config.tensorboard else None

    def cycle(self, key: str, rows: list[Row]) -> None:
        """Show the figures of a cycle, a row a branch."""
        cell, cycle = self._cell_of(key), rows[0]["cycle"]
        before = min(self._begun.get(key, 0), cycle)
        cycles = cell.training.cycles
        self._display.cycle(key, cell.title, cycle + 1, cycles, figures_text(rows), before)
        if self._board:
            self._board.cycle(key, rows)

    def end(self, key: str) -> None:
        """Show that a cell has ended."""
        self._display.end(key)
        if self._board:
            self._board.close(key)

    def retry(self, key: str) -> None:
        """Tell that a cell begins again from its last checkpoint."""
        title = self._cell_of(key).title
        self._display.tell(
            f"note: {title}: lost a process or its node; it goes on from its last cycle"
        )

    def lost(self, key: str, line: str) -> None:
        """Tell what a cell that goes on has lost."""
        self._display.tell(f"warning: {self._cell_of(key).title}: {line}")


def figures_text(rows: Sequence[Row]) -> str:
    """Write the figures of one cycle, a row a branch, as the progress display shows them."""
    metric = metrics.named(rows[0])[0]
    scores = " ".join(f"{100 * row[metric.name]:.1f}" for row in rows)
    losses = [row.get("loss_distil_ce", row.get("loss_ce")) for row in rows]
    streamed = any(row["windows"].startswith("streamed") for row in rows)
    figures = f"{metric.title} {scores} %  loss {' '.join(f'{loss:.2f}' for loss in losses)}"
    return figures + "  windows streamed" * streamed
