"""Progress with figures: bars on a terminal, elsewhere a line at least every 30 s."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from mrkd_ray.common.text import printable_lines, time_text

EVERY = 30.0  # seconds between lines where there is no terminal
WIDE = 120  # columns of a terminal from which bars are long, and losses are shown
NARROW = 72  # columns below which scores stand alone: no bar, no time, no name


def say(console: Console, text: str) -> None:
    """Print a sentence: on a terminal broken between words, elsewhere as one line."""
    text = printable_lines(text)
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def fitting(figures: str, width: int) -> str:
    """Return of a cell's figures what a terminal of so many columns has room for.

    "accuracy 62.5 75.0 %  loss 0.84 1.07" loses the losses, then all but the scores.
    """
    if width >= WIDE:
        return figures
    scores = figures.partition("  ")[0]
    found = re.fullmatch(r"\S+ ([\d. ]+) %", scores)
    return found[1] if found and width < NARROW else scores


class Show(Protocol):
    """Shows how far a step is: so many of `total`, and figures beside it."""

    def __call__(self, done: int, total: int, figures: str = "") -> None:
        """Show it."""


class Display:
    """A bar for each long step, one for the grid, and a line for each cell that is running.

    Without a terminal (a file, CI, a cluster's log) the newest of it is printed as a line every
    `every` seconds.

    Args:
        console: where it is shown.
        every: seconds.
    """

    def __init__(self, console: Console, *, every: float = EVERY) -> None:
        self._console = console
        bar = BarColumn(bar_width=20 if console.width >= WIDE else 6)
        left = TimeRemainingColumn(
            compact=True, elapsed_when_finished=True, table_column=Column(no_wrap=True)
        )
        is_narrow = console.width < NARROW
        self._progress = Progress(  # the name gets what the figures leave
            TextColumn("{task.description}", table_column=_short(ratio=1)),
            *(() if is_narrow else (bar,)),
            _Count(table_column=Column(no_wrap=True)),
            TextColumn(
                "{task.fields[figures]}",
                style="cyan",
                table_column=_short(max_width=console.width // 2),
            ),
            *(() if is_narrow else (left,)),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )
        self._log = None if console.is_terminal else _Ticker(every, self.line)
        self._status = ""
        self._cells: dict[str, TaskID] = {}
        self._grid: TaskID | None = None
        self._total = self._begun = self._ended = self._of_cells = 0
        self._done: dict[str, int] = {}
        self._unrun: dict[str, int] = {}
        self._since = time.monotonic()

    def __enter__(self) -> Display:
        self._progress.start()
        if self._log:
            self._log.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._log:
            self._log.stop()
        self._progress.stop()

    def line(self) -> None:
        """Print the newest figures as a line, with the time of day; nothing without figures."""
        if status := self._status:
            now = datetime.now().strftime("%H:%M")
            self._console.print(f"{now} {status}", markup=False, highlight=False, soft_wrap=True)

    def tell(self, text: str) -> None:
        """Print a line above what is shown."""
        say(self._console, text)

    @contextmanager
    def waiting(self, description: str) -> Iterator[None]:
        """Show what is waited for, while nobody knows for how long."""
        task = self._progress.add_task(description, total=None, figures="")
        self._status = description
        try:
            yield
        finally:
            self._progress.remove_task(task)
            self._status = ""

    def step(self, description: str) -> Show:
        """Return a function that shows how far one step is."""
        task: TaskID | None = None

        def show(done: int, total: int, figures: str = "") -> None:
            nonlocal task
            if task is None:  # a step that turns out to have nothing to do is not shown
                task = self._progress.add_task(description, figures="")
            self._progress.update(task, completed=done, total=total, figures=figures)
            status = f"{description} {done}/{total}" + (f"  {figures}" if figures else "")
            self._status = status if done < total else ""

        return show

    def grid(self, cells: int, cycles: int, begun: int = 0) -> None:
        """Begin a grid's bar: its length is in cycles of all cells that are to run.

        One that was shown before is over: `mrkd recommend` runs shortened cells first.

        Args:
            cells: that are to run.
            cycles: of them all.
            begun: of these cycles, those that were run before and are not run again.
        """
        if self._grid is not None:
            self._progress.remove_task(self._grid)
        self._of_cells, self._total, self._begun, self._ended = cells, cycles, begun, 0
        self._done, self._unrun = {}, {}
        self._since = time.monotonic()
        self._status = f"cell 1/{cells} is starting" if cells else ""
        self._grid = self._progress.add_task(
            f"{cells} cell{'s' * (cells > 1)}",
            total=cycles,
            completed=begun,
            figures="processes are starting",
            visible=cells > 0,
        )

    def cycle(
        self, key: str, title: str, done: int, cycles: int, figures: str, begun: int = 0
    ) -> None:
        """Show a cell's figures after `done` of its cycles, of which it had `begun` before."""
        assert self._grid is not None
        if key not in self._cells:
            self._cells[key] = self._progress.add_task(
                f"  {title}", total=cycles, completed=begun, figures=""
            )
        shown = fitting(figures, self._console.width)
        self._progress.update(self._cells[key], completed=done, figures=shown)
        self._done[key], self._unrun[key] = done - begun, cycles - done
        run = sum(self._done.values())
        self._progress.update(self._grid, completed=self._begun + run, figures="")
        to_run = max(0, self._total - self._begun - run)  # a cell taken up again runs cycles twice
        left = (time.monotonic() - self._since) / max(1, run) * to_run
        self._status = (
            f"cell {min(self._ended + 1, self._of_cells)}/{self._of_cells} {title}: "
            f"cycle {done}/{cycles}  {figures}  {time_text(left)} left of all"
        )

    def end(self, key: str) -> None:
        """Take a cell's line away that is finished, and what it had left where it stopped early."""
        self._ended += 1
        self._total -= self._unrun.pop(key, 0)
        if self._grid is not None:
            self._progress.update(self._grid, total=self._total)
        if key in self._cells:
            self._progress.remove_task(self._cells.pop(key))


def _short(*, ratio: int | None = None, max_width: int | None = None) -> Column:
    """Return a column of one line, which is cut where it does not fit."""
    return Column(ratio=ratio, max_width=max_width, no_wrap=True, overflow="ellipsis")


class _Count(MofNCompleteColumn):
    """`3/7`; nothing where nobody knows of how many."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class _Ticker:
    """Calls a function every so many seconds, in a thread, until it is stopped."""

    def __init__(self, every: float, call: Callable[[], None]) -> None:
        self._every, self._call = every, call
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="progress")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            self._call()
