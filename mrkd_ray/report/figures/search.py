"""A search: how far each sample came, and which one was confirmed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Drawing

from mrkd_ray.cells import files as cell_files
from mrkd_ray.common.reading import read_rows
from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import DISTILLED, GREY, INDEPENDENT, Figure, Panel
from mrkd_ray.report.grid_results import GridResults

NAME = "search.csv"  # `grid.search` writes it
FIXED = ("sample", "state", "score", "part", "cell")


def figure(results: GridResults, id: str) -> Figure | None:
    """Scores over parts of the schedule, and the final ones by each number that was varied."""
    path = results.folder / NAME
    if not path.exists():
        return None
    rows = [row for row in read_rows(path, FIXED) if row["score"]]
    finished = [row for row in rows if row["state"] == "finished"]
    if not finished:
        return None
    score = results.metrics[0]
    best = max(finished, key=lambda row: float(row["score"]))
    panels = [Panel(courses(results, rows, best), f"search: {score.title} by part of the schedule")]
    for name in (name for name in best if name not in FIXED):
        if len({row[name] for row in rows}) > 1 and all(_number(row[name]) for row in rows):
            shown = by_value(name, rows, best, score.title)
            panels.append(Panel(shown, f"search: {score.title} by {name}"))
    chosen = ", ".join(f"{name} {value}" for name, value in best.items() if name not in FIXED)
    caption = (
        f"{len(rows)} samples, {len(finished)} of them run to the end; the others were behind at "
        f"an equal part of their schedules and stopped. The score is the best branch's test "
        f"{score.title} on the fold of the search. The best, sample {best['sample']}: {chosen}. "
        "Its score here is too high, since it was chosen by it: the tables above are of the other "
        "folds."
    )
    return style.figure(id, "Search", caption, panels, paired=True)


def courses(results: GridResults, rows: list[dict[str, str]], best: dict[str, str]) -> Drawing:
    """Draw a line for each sample."""
    score = results.metrics[0]
    drawing, axes = style.new(2.6, xlabel="part of the schedule, %", ylabel=f"{score.title}, %")
    axes.set_title("samples")
    for row in sorted(rows, key=lambda row: row is best):
        folder: Path = results.folder / "cells" / row["cell"]
        history, _ = cell_files.read_figures(folder)
        scores: dict[int, float] = {}
        for each in history:
            scores[each["cycle"]] = max(scores.get(each["cycle"], 0.0), float(each[score.name]))
        ends = np.array([cycle + 1 for cycle in scores]) / len(scores) * float(row["part"])
        colour = DISTILLED if row is best else INDEPENDENT if row["state"] == "finished" else GREY
        axes.plot(
            ends, 100 * np.array([*scores.values()]), color=colour, lw=1.5 - (row is not best)
        )
    axes.set_xlim(0, 100)
    return drawing


def by_value(name: str, rows: list[dict[str, str]], best: dict[str, str], score: str) -> Drawing:
    """Draw a point for each sample: filled where it was finished."""
    drawing, axes = style.new(2.6, xlabel=name, ylabel=f"{score}, %")
    axes.set_title(name)
    for row in rows:
        colour = DISTILLED if row is best else INDEPENDENT if row["state"] == "finished" else GREY
        done = row["state"] == "finished"
        x, y = float(row[name]), float(row["score"])
        axes.plot(x, y, "o", ms=4, color=colour, mfc=colour if done else "none")
    values = [float(row[name]) for row in rows]
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_xscale("log")
    return drawing


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
