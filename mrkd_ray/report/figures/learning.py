"""Learning curves: losses at the ends of the phases, accuracy after every cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from mrkd_ray.common.arrays import Float64
from mrkd_ray.report.curves import Curves, cycles_of_all, learning_curves
from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import DISTILLED, INDEPENDENT, Figure, Panel, runs_in_words
from mrkd_ray.report.grid_results import GridCohort, GridResults
from mrkd_ray.scores.comparison import Condition

Line = tuple[Float64, Float64, str, str]  # cycles, runs, name, colour
MARKED = 40  # cycles: of more, the phases would be narrower than a line


def figure(results: GridResults, cohort: GridCohort, id: str) -> Figure:
    """Losses and accuracy of each branch of a cohort, distilled over independent, or of one."""
    panels = []
    runs = []
    score = results.metrics[0].title
    asked = results.asked(cohort.variant)
    b, d = asked["b"], asked["d"]
    for name in cohort.branches:
        models = results.conditions(cohort, name)
        cycles = cycles_of_all(results, (model for own in models.values() for model in own))
        both = {
            condition: learning_curves(results, models[condition], cycles)
            for condition in sorted(models)  # distilled first
        }
        panels.append(Panel(losses(name, both, b / (b + d)), f"{name}: losses by cycle"))
        panels.append(Panel(scores(name, both, b / (b + d), score), f"{name}: {score} by cycle"))
        runs.append(len(next(iter(models.values()))))
    mixed = ", on mixed-up windows" if asked["mixup"] else ""
    common = ", over the cycles that all runs had" if results.stops_early else ""
    band = "; the bands are one standard deviation" if max(runs) > 1 else ""
    what = (
        "training losses at the ends of its "
        "two phases: single branch training, and distillation (shaded, but not in cycles without "
        f"a teacher; of more than {MARKED} cycles, the two ends are two lines). L_ce and L_kl are "
        f"the terms of Eq. 5{mixed}. A branch trained alone has L_ce only, from the cycle's last "
        "epoch"
    )
    if cohort.temperature is None:
        what = f"L_ce, the training loss, of its last epoch{mixed}"
    caption = (
        f"{cohort.title}. Test {score} after every cycle, and {what}. Over "
        f"{runs_in_words(runs)}{common}{band}."
    )
    return style.figure(
        id, f"Learning curves: {cohort.title}", caption.strip(), panels, paired=True
    )


def losses(name: str, both: Mapping[Condition, Curves], first: float) -> Drawing:
    """Draw the losses; `first` is the part of a cycle that single branch training takes."""
    drawing, axes = style.new(2.3, title=name, xlabel="cycle", ylabel="training loss")
    ends = _phases(axes, both, first)
    lines = []
    if "independent" in both:
        loss = both["independent"].loss
        style.line(axes, ends, loss, INDEPENDENT)
        lines.append((ends, loss, "independent L_ce", INDEPENDENT))
    if "distilled" in both:
        lines += _distilled(axes, ends, both["distilled"], first)
    axes.set_ylim(bottom=0)
    _labels(axes, lines)
    return drawing


def _distilled(axes: Axes, ends: Float64, curves: Curves, first: float) -> list[Line]:
    """Draw the losses of a distilled branch, and return its lines."""
    assert curves.distil_ce is not None
    assert curves.distil_kl is not None
    lines: list[Line] = []
    cycles = len(ends)
    # Cycles of the warm-up have the loss on hard labels only.
    ce = np.where(np.isnan(curves.distil_ce), curves.loss, curves.distil_ce)
    if first == 0:  # one phase a cycle
        style.line(axes, ends, ce, DISTILLED)
        lines.append((ends, ce, "distilled L_ce", DISTILLED))
    elif cycles <= MARKED:
        halves = np.stack([ends - 1 + first, ends], axis=1).ravel()
        shape = (len(curves.loss), -1)
        zigzag = np.stack([curves.loss, ce], axis=2).reshape(shape)
        style.line(axes, halves, zigzag, DISTILLED)
        lines.append((halves, zigzag, "distilled L_ce", DISTILLED))
    else:
        style.line(axes, ends - 1 + first, curves.loss, DISTILLED, ":")
        lines.append((ends, curves.loss, "L_ce after training", DISTILLED))
        style.line(axes, ends, ce, DISTILLED)
        lines.append((ends, ce, "L_ce after distillation", DISTILLED))
    style.line(axes, ends, curves.distil_kl, DISTILLED, "--")
    return [*lines, (ends, curves.distil_kl, "distilled L_kl", DISTILLED)]


def scores(name: str, both: Mapping[Condition, Curves], first: float, score: str) -> Drawing:
    """Draw the test accuracy (or mAP) after every cycle, in percent."""
    drawing, axes = style.new(2.3, title=name, xlabel="cycle", ylabel=f"test {score}, %")
    ends = _phases(axes, both, first)
    lines = []
    for condition, curves in both.items():
        colour = style.COLOURS[condition]
        style.line(axes, ends, 100 * curves.accuracy, colour)
        lines.append((ends, 100 * curves.accuracy, condition, colour))
    _labels(axes, lines)
    return drawing


def _phases(axes: Axes, both: Mapping[Condition, Curves], first: float) -> Float64:
    """Shade the distillation phase of every cycle that has a teacher; return the cycles' ends."""
    cycles = next(iter(both.values())).accuracy.shape[1]
    axes.set_xlim(0, cycles)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if cycles <= MARKED and "distilled" in both:
        kl = both["distilled"].distil_kl
        assert kl is not None
        for cycle in set(np.nonzero(np.isfinite(kl))[1].tolist()):
            axes.axvspan(cycle + first, cycle + 1, color=style.GREY, alpha=0.13, lw=0)
    return np.arange(1, cycles + 1, dtype=np.float64)


def _labels(axes: Axes, lines: Sequence[Line]) -> None:
    """Write the lines' names behind their ends, apart from each other."""
    style.label_ends(
        axes, [(float(runs.mean(axis=0)[-1]), name, colour) for _, runs, name, colour in lines]
    )
