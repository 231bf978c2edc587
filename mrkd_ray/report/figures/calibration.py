"""Reliability diagrams with the expected calibration error."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure as Drawing

from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import Figure, Panel, runs_in_words
from mrkd_ray.report.grid_results import GridCohort, GridResults
from mrkd_ray.scores import calibration
from mrkd_ray.scores.calibration import BINS, Calibration
from mrkd_ray.scores.comparison import Condition


def figure(results: GridResults, cohort: GridCohort, id: str) -> Figure:
    """Accuracy by confidence of each of the cohort's models."""
    panels = []
    runs = []
    for name in cohort.models:
        models = results.conditions(cohort, name)
        both = {condition: calibration.pooled(found) for condition, found in models.items()}
        runs.append(len(next(iter(models.values()))))
        after = {condition: calibration.tempered(found) for condition, found in models.items()}
        words = f"reliability of {name}: {_words(both)}; calibrated: {_words(after)}"
        panels.append(Panel(draw(name, both, after), words))
    several = len(both) > 1
    each = "under each condition, " if several else ""
    alike = ", under both conditions alike" if several else ""
    caption = (
        f"{cohort.title}. The predictions of {runs_in_words(runs)} {each}in {BINS} "
        "bins of equal width by confidence, the highest probability: how often they are right "
        "(points; larger ones stand for more predictions). On the diagonal, confidence is what it "
        "says; below it, too high. ECE is the mean distance from the diagonal, weighted by "
        "predictions, in points "
        f"(Guo et al. 2017); few predictions make it larger{alike}. After the arrow: with the "
        "probabilities calibrated by one temperature a run, each half of the clips by that of the "
        "other half."
    )
    return style.figure(id, f"Reliability: {cohort.title}", caption, panels)


def _words(both: Mapping[Condition, Calibration]) -> str:
    return ", ".join(f"ECE {condition} {100 * c.ece:.1f}" for condition, c in both.items())


def draw(
    name: str,
    both: Mapping[Condition, Calibration] | Mapping[str, Calibration],
    after: Mapping[Condition, Calibration] | Mapping[str, Calibration],
) -> Drawing:
    """Draw accuracy over mean confidence, a line and a size of point for each condition.

    `""` is that of a model of which there is one alone. Of `after`, calibrated, the ECE is named.
    """
    drawing, axes = style.new(3.1, title=name)
    axes.plot([0, 100], [0, 100], color=style.INK, lw=0.6, alpha=0.5)
    errors = {str(condition): found.ece for condition, found in after.items()}
    for i, (condition, found) in enumerate(both.items()):
        colour = style.COLOURS.get(condition, style.DISTILLED)
        some = found.clips > 0
        x, y = 100 * found.confidence[some], 100 * found.accuracy[some]
        axes.plot(x, y, color=colour, lw=1, alpha=0.4)
        sizes = 5 + 250 * found.clips[some] / found.clips.sum()
        axes.scatter(x, y, s=np.asarray(sizes), color=colour, alpha=0.85, lw=0, clip_on=False)
        said = f"ECE {100 * found.ece:.1f} → {100 * errors[condition]:.1f}"
        named = f"{condition}: {said}".removeprefix(": ")
        axes.text(99, 12 - 9 * i, named, color=colour, ha="right")
    axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="confidence, %", ylabel="accuracy, %")
    return drawing
