"""How often the branches of a cohort predict the same class, cycle by cycle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from mrkd_ray.common.arrays import Float64
from mrkd_ray.report.curves import agreements
from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import Figure, Panel, runs_in_words
from mrkd_ray.report.grid_results import GridCohort, GridResults
from mrkd_ray.scores.comparison import Condition


def figure(results: GridResults, id: str) -> Figure | None:
    """A panel for each cohort of several branches."""
    panels = []
    runs = []
    for cohort in results.cohorts[: style.MOST]:
        if len(cohort.branches) < 2:
            continue
        both = agreements(results, cohort)
        runs.append(len(both["distilled"]))
        panels.append(Panel(draw(cohort, both), f"agreement of branches: {cohort.title}"))
    if not panels:
        return None
    caption = (
        "Part of the test clips for which the branches of a cohort predict the same class (of more "
        "than two, the mean over pairs of them), after every cycle: distilled together, and the "
        f"same branches trained alone (where they were), put together by fold and seed. Means over "
        f"{runs_in_words(runs)}; bands are one standard deviation. Branches that agree "
        "more leave an ensemble less to gain."
    )
    return style.figure(id, "Agreement between branches", caption, panels)


def draw(cohort: GridCohort, both: Mapping[Condition, Float64]) -> Drawing:
    """Draw [runs, cycles] of each condition."""
    title = (cohort.variant and f"{cohort.variant}: ") + cohort.name.replace("+", "\n+ ")
    drawing, axes = style.new(2.5, title=title, xlabel="cycle", ylabel="agreement, %")
    ends = []
    for condition, runs in both.items():
        colour = style.COLOURS[condition]
        x = np.arange(1, runs.shape[1] + 1, dtype=np.float64)
        style.line(axes, x, 100 * runs, colour)
        ends.append((100 * float(runs.mean(axis=0)[-1]), condition, colour))
    axes.set_xlim(0, runs.shape[1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.label_ends(axes, ends)
    return drawing
