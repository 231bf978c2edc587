"""Where a branch's time goes: seconds in each phase."""

from __future__ import annotations

from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch

from mrkd_ray.report.curves import PHASES, phase_seconds
from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import Figure, Panel
from mrkd_ray.report.grid_results import GridCohort, GridResults

Bar = tuple[str, dict[str, float], float]  # name, seconds of each phase, of the cell

COLOURS = dict(zip(PHASES, style.PALETTE, strict=False))


def figure(results: GridResults, id: str) -> Figure | None:
    """A panel for each cohort, a bar for each of its branches under each condition."""
    panels = []
    for cohort in (results.cohorts or results.alone)[: style.MOST]:
        found = bars(results, cohort)
        panels.append(Panel(draw(cohort, found), f"time per phase: {cohort.title}"))
    if not panels:
        return None
    caption = (
        "Seconds of each phase over all cycles, mean over runs. The mark behind a bar is how long "
        "its cell took: what is between them is waiting for the other branches and the exchange "
        "of soft labels, or, on a shared machine, for other cells. A branch trained alone spends "
        "all its epochs in train."
    )
    return style.figure(id, "Time per phase", caption, panels)


def bars(results: GridResults, cohort: GridCohort) -> list[Bar]:
    """Return the time of each branch, trained alone (where it was) and distilled."""
    found = []
    for name in cohort.branches:
        for condition, runs in (
            ("independent", results.independent(cohort, name)),
            ("distilled", results.distilled(cohort, name)),
        ):
            if runs:
                times = phase_seconds(results, list(runs.values()))
                found.append((f"{name}\n{condition}", *times))
    return found


def draw(cohort: GridCohort, found: list[Bar]) -> Drawing:
    """Draw stacked bars, and under them what their colours stand for."""
    names = {phase for _, phases, _ in found for phase in phases}
    drawing, axes = style.new(1.0 + 0.42 * len(found))
    axes.set_title(cohort.title.replace(" + ", "\n+ "))
    for y, (_, phases, wall) in enumerate(reversed(found)):
        left = 0.0
        for phase, seconds in phases.items():
            axes.barh(y, seconds, left=left, height=0.6, color=COLOURS[phase])
            left += seconds
        axes.plot(wall, y, "|", ms=13, mew=1.5, color=style.INK)
    axes.set_yticks(range(len(found)), [name for name, _, _ in reversed(found)])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("seconds")
    axes.set_xlim(left=0)
    shown = [phase for phase in PHASES if phase in names]
    patches = [Patch(color=COLOURS[phase]) for phase in shown]
    drawing.legend(
        patches,
        [phase.replace("_", " ") for phase in shown],
        loc="outside lower center",
        ncols=3,
        handlelength=1,
        columnspacing=1.2,
    )
    return drawing
