"""What each variant of the method gains: a forest plot of paired differences."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Drawing

from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import Figure, Panel, runs_in_words
from mrkd_ray.report.grid_results import GridResults
from mrkd_ray.results.printed_table import interval, kinds_of
from mrkd_ray.scores.comparison import BEST


def figure(results: GridResults, id: str) -> tuple[Figure, ...]:
    """Return a figure for each cohort, a panel for each model; none without several variants."""
    table = results.table[results.table["paired_runs"] > 0]
    if table["variant"].nunique() < 2:
        return ()
    metric = results.metrics[0]
    found = []
    for i, (cohort, rows) in enumerate(table.groupby("cohort", sort=False), 1):
        name = str(cohort).replace("+", " + ")
        gain, less_ensemble = f"{metric.name}_difference", f"{metric.name}_ensemble_difference"
        shown = [(str(model), own, gain) for model, own in rows.groupby("model", sort=False)]
        if not (best := rows[rows["model"] == BEST]).empty:
            shown.append((f"{BEST} less the ensemble alone", best, less_ensemble))
        panels = [Panel(draw(*each), f"{each[0]} by variant: {name}") for each in shown]
        caption = (
            f"{name}: {metric.title} of distilled models less that of the same models trained "
            "alone with the variant's own options and epochs, mean over "
            f"{runs_in_words(rows['paired_runs'])} with its 95 % interval, a "
            f"{kinds_of(rows)}; one that holds 0 "
            "(hollow) shows no difference. Best branch: the best distilled one less the best that "
            "was trained alone, both chosen by these very scores, and so both a little too high; "
            "last, the best distilled branch less the ensemble of the branches that were trained "
            "alone."
        )
        found.append(style.figure(f"{id}-{i}", "Gain by variant", caption, panels, paired=True))
    return tuple(found[: style.MOST])


def draw(title: str, rows: pd.DataFrame, column: str) -> Drawing:
    """Draw a line for each variant, and temperature where one has several; the first on top."""
    drawing, axes = style.new(0.75 + 0.21 * len(rows), title=title, xlabel="gain, points")
    axes.axvline(0, color=style.INK, lw=0.6, alpha=0.6)
    swept = rows["variant"].duplicated().any()
    labels = []
    for y, row in enumerate(rows.to_dict("records")):
        gain = interval(row, column)
        filled = "none" if gain.mark == "ns" else style.DISTILLED
        axes.plot([gain.low, gain.high], [y, y], color=style.DISTILLED, lw=1.2)
        axes.plot(gain.mean, y, "o", ms=4.5, mec=style.DISTILLED, mfc=filled)
        labels.append(row["variant"] + (f", T = {row['temperature']:g}" if swept else ""))
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    return drawing
