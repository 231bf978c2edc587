"""How far a run is, read from its folder: while it goes on, from anywhere that sees the folder."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.intact import result_of
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.progress import NARROW, WIDE, fitting, say
from mrkd_ray.common.reading import Damaged, read_json
from mrkd_ray.common.text import is_printable, printable, time_text
from mrkd_ray.grid.folder import CELLS, is_locked
from mrkd_ray.grid.shown import figures_text
from mrkd_ray.scores import metrics

State = Literal["finished", "running", "stopped", "waiting"]


@dataclass(frozen=True)
class CellStatus:
    """One cell.

    Attributes:
        key: its folder's name.
        title: for people.
        state: running and stopped: it was begun; the run goes on, or does not.
        cycles_done: whose checkpoint stands.
        cycles: in all, at most.
        figures: after the last of them, for people.
        seconds: that its cycles took so far.
        idle: seconds since something was written; None where nothing was.
    """

    key: str
    title: str
    state: State
    cycles_done: int
    cycles: int
    figures: str
    seconds: float
    idle: float | None


@dataclass(frozen=True)
class Status:
    """A run: its folder, whether a process writes there, and its cells in order."""

    folder: Path
    running: bool
    cells: tuple[CellStatus, ...]

    def count(self, state: State) -> int:
        """Return how many cells are in a state."""
        return sum(cell.state == state for cell in self.cells)

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the cycles that were run; None where nothing runs or was run."""
        done = sum(cell.cycles_done for cell in self.cells)
        left = sum(cell.cycles - cell.cycles_done for cell in self.cells)  # of finished ones 0
        if not (self.running and done):
            return None
        each = sum(cell.seconds for cell in self.cells) / done
        return each * left / max(1, self.count("running"))


def read(folder: Path) -> Status:
    """Return how far the run of a results folder is.

    Raises:
        UserError: no run of this version wrote there.
        Damaged: what it wrote is another.
    """
    if not (folder / CELLS).is_file():
        raise UserError(
            f"{folder}: no {CELLS} there. Give a run's results folder, for example results/train; "
            "runs of earlier versions have none, and write it when they go on (--resume)."
        )
    asked = read_json(folder / CELLS)
    for key, facts in asked.items():
        if not (_is_facts(facts) and is_printable(key) and Path(key).name == key):
            raise Damaged(folder / CELLS, f"{key[:100]!r} is no cell with a title and cycles")
    running = is_locked(folder)
    cells = (_cell(folder / "cells" / key, facts, running) for key, facts in asked.items())
    return Status(folder, running, tuple(cells))


def _is_facts(facts: object) -> bool:
    return (
        isinstance(facts, dict)
        and type(facts.get("cycles")) is int
        and isinstance(facts.get("title"), str)
    )


def _cell(folder: Path, facts: dict[str, Any], running: bool) -> CellStatus:
    cycles = int(facts["cycles"])
    files = [path for path in folder.rglob("*") if path.is_file()]
    idle = time.time() - max(path.stat().st_mtime for path in files) if files else None
    state: State = "waiting"
    done, seconds, figures = 0, 0.0, ""
    if (result := result_of(folder)) is not None:
        state, done, seconds = "finished", cycles, float(result["seconds"])
        metric = metrics.named(result["models"][0])[0]
        scores = " ".join(f"{100 * m[metric.name]:.1f}" for m in result["models"])
        figures = f"{metric.title} {scores} %"
    elif files:
        state, done = "running" if running else "stopped", cell_files.cycles_done(folder)
        try:
            rows, _ = cell_files.read_history(folder, done)
        except Damaged as error:
            rows, figures = [], str(error)
        if last := [row for row in rows if row["cycle"] == done - 1]:
            figures = figures_text(last)
        seconds = sum({row["cycle"]: float(row["seconds"]) for row in rows}.values())
    return CellStatus(folder.name, facts["title"], state, done, cycles, figures, seconds, idle)


def as_json(status: Status) -> dict[str, Any]:
    """Return it as JSON has it; seconds."""
    return {
        "folder": str(status.folder),
        "running": status.running,
        "seconds_left": status.seconds_left,
        "cells": [asdict(cell) for cell in status.cells],
    }


def show(status: Status, console: Console) -> None:
    """Print how far it is, and a row for each cell."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    states: tuple[State, ...] = ("finished", "running", "stopped", "waiting")
    counts = [f"{status.count(state)} {state}" for state in states if status.count(state)]
    left = status.seconds_left
    now = "is running" if status.running else "no run goes on there"
    more = "" if left is None else f"; about {time_text(left)} left"
    line = f"{status.folder}: {now}. Cells: {', '.join(counts)}{more}."
    say(console, printable(line))
    narrow = console.width < WIDE  # the title gets what the others leave
    shown = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), expand=narrow)
    shown.add_column("cell", ratio=1, overflow="ellipsis", no_wrap=True)
    every = ("state", "cycle", "figures", "written")
    names = ("cycle", "figures") if console.width < NARROW else every
    for name in names:
        most = console.width // 2 if name == "figures" and narrow else None
        shown.add_column(name, no_wrap=True, overflow="ellipsis", max_width=most)
    for cell in status.cells:
        ago = "" if cell.idle is None else f"{time_text(cell.idle)} ago"
        cycle = f"{cell.cycles_done}/{cell.cycles}"
        title, figures = printable(cell.title), fitting(printable(cell.figures), console.width)
        row = dict(zip(every, (cell.state, cycle, figures, ago), strict=True))
        shown.add_row(title, *(row[name] for name in names))
    console.print(shown)
