"""Which classes are taken for which, and what distillation does to each."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Drawing

from mrkd_ray.common.arrays import Float64
from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import Figure, Panel, intervals_in_words, runs_in_words
from mrkd_ray.report.grid_results import GridCohort, GridResults
from mrkd_ray.scores import classes as scores_classes
from mrkd_ray.scores.classes import ClassChange

MOST = 10  # classes in a readable matrix
CHANGES = 20  # bars in a readable list


def matrices(results: GridResults, cohort: GridCohort, id: str) -> Figure:
    """Confusion matrices of each of the cohort's models: independent, and beside it distilled."""
    panels = []
    runs = []
    for name in cohort.models:
        models = results.conditions(cohort, name)
        both = {
            condition: scores_classes.confusion(found, len(results.classes))
            for condition, found in models.items()
        }
        runs.append(len(next(iter(models.values()))))
        shown = most_confused(sum(both.values(), np.zeros(())))
        for condition, matrix in both.items():
            chosen = [results.classes[i] for i in shown]
            drawing = draw(f"{name}, {condition}", matrix[np.ix_(shown, shown)], chosen, condition)
            panels.append(Panel(drawing, f"confusion matrix of {name}, {condition}"))
    together = " under both conditions together" if len(both) > 1 else ""
    part = (
        f"The {MOST} of {len(results.classes)} classes that are confused most{together}; "
        "the rest of a row went to classes that are not shown. "
        if len(results.classes) > MOST
        else ""
    )
    caption = (
        f"{cohort.title}. Rows are true classes, columns what was predicted, in percent of the "
        f"row's clips, over {runs_in_words(runs)}. {part}"
    )
    paired = len(both) > 1
    return style.figure(
        id, f"Confusion matrices: {cohort.title}", caption.strip(), panels, paired=paired
    )


def most_confused(matrix: Float64) -> list[int]:
    """Return the indices of at most `MOST` classes that are mistaken most, in their order."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    return sorted(order[:MOST].tolist())


def draw(title: str, matrix: Float64, classes: list[str], condition: str = "") -> Drawing:
    """Draw a matrix of parts in [0, 1]: transparent is 0, the condition's colour is 1."""
    drawing, axes = style.new(3.3, title=title)
    colour = style.COLOURS.get(condition, style.DISTILLED)
    shades = LinearSegmentedColormap.from_list("", [f"{colour}00", f"{colour}d0"])
    axes.imshow(matrix, cmap=shades, vmin=0, vmax=1, interpolation="nearest")
    ticks = range(len(classes))
    axes.set_xticks(ticks, [_short(name) for name in classes], rotation=90)
    axes.set_yticks(ticks, [_short(name) for name in classes])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_alpha(0.4)
    for row, column in zip(*np.nonzero(matrix >= 0.005), strict=True):
        axes.text(
            column, row, f"{100 * matrix[row, column]:.0f}", ha="center", va="center", fontsize=8
        )
    return drawing


def changes(results: GridResults, cohort: GridCohort, id: str) -> Figure | None:
    """Each class's accuracy, distilled minus independent, with intervals."""
    panels, compared = [], []
    classes = 0
    for name in cohort.models:
        pairs = results.pairs(cohort, name)
        if not pairs:
            continue
        compared.append(pairs)
        found = scores_classes.per_class(pairs, results.classes)
        classes = max(classes, len(found))
        if len(found) > CHANGES:
            found = found[: CHANGES // 2] + found[-CHANGES // 2 :]
        panels.append(Panel(draw_changes(name, found), f"change of each class's accuracy, {name}"))
    if not panels:
        return None
    many = classes > CHANGES
    part = f"The {CHANGES // 2} largest gains and losses of {classes} classes. " if many else ""
    chance = f"Of {classes if many else 20} classes without any change about "
    chance += f"{round(classes / 20)} would" if many else "one would still"
    chance += " be filled by chance"
    chance += ", and be among those shown." if many else "."
    caption = (
        f"{cohort.title}. Accuracy on each class's clips, distilled minus independent, in points, "
        f"over {runs_in_words([len(pairs) for pairs in compared])}, with "
        f"{intervals_in_words(compared)}. {part}Filled: the interval excludes 0 and every fold "
        f"with clips of the class has at least {scores_classes.FEWEST}; of fewer, an interval says "
        f"nothing. {chance}"
    )
    return style.figure(id, f"Change of each class: {cohort.title}", caption, panels)


def draw_changes(name: str, found: list[ClassChange]) -> Drawing:
    """Draw one point and interval a class."""
    drawing, axes = style.new(0.8 + 0.17 * len(found), title=name)
    axes.axvline(0, color=style.INK, lw=0.6, alpha=0.6)
    for y, change in enumerate(reversed(found)):
        gain = change.difference
        colour = style.DISTILLED if gain.mean >= 0 else style.INDEPENDENT
        axes.plot([gain.low, gain.high], [y, y], color=colour, lw=1.2)
        axes.plot(
            gain.mean, y, "o", ms=4.5, mec=colour, mew=1.1, mfc=colour if change.clear else "none"
        )
    axes.set_yticks(range(len(found)), [_short(change.name) for change in reversed(found)])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("worse  ←  points  →  better")
    return drawing


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
