"""Progress with figures on a terminal; silent elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Display:
    """A bar for each long step, one for the grid, and a line for each cell that is running."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", style="cyan"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._cells: dict[str, TaskID] = {}
        self._grid: TaskID | None = None
        self._done: dict[str, int] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def step(self, description: str) -> Callable[[int, int], None]:
        """Return a function of (done, total) that shows how far one step is."""
        task: TaskID | None = None

        def show(done: int, total: int) -> None:
            nonlocal task
            if task is None:  # a step that turns out to have nothing to do is not shown
                task = self._progress.add_task(description, figures="")
            self._progress.update(task, completed=done, total=total)

        return show

    def grid(self, cells: int, cycles: int) -> None:
        """Begin the grid's bar: its length is in cycles of all cells that are to run."""
        self._grid = self._progress.add_task(f"Grid, {cells} cells", total=cycles, figures="")

    def cycle(self, key: str, title: str, done: int, cycles: int, figures: str) -> None:
        """Show a cell's figures after `done` of its cycles."""
        assert self._grid is not None
        if key not in self._cells:
            self._cells[key] = self._progress.add_task(f"  {title}", total=cycles, figures="")
        self._progress.update(self._cells[key], completed=done, figures=figures)
        self._done[key] = done  # a resumed cell does not begin at 0
        self._progress.update(self._grid, completed=sum(self._done.values()))

    def end(self, key: str) -> None:
        """Take a finished cell's line away."""
        if key in self._cells:
            self._progress.remove_task(self._cells.pop(key))
