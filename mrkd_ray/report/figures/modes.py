"""Figure 3 of the paper: one branch alone and with each kind of partner."""

from __future__ import annotations

from matplotlib.figure import Figure as Drawing

from mrkd_ray.config.cpu_scale import STANDS_FOR
from mrkd_ray.report.figures import style
from mrkd_ray.report.figures.style import Figure, Panel, intervals_in_words, runs_in_words
from mrkd_ray.report.grid_results import GridCohort, GridResults
from mrkd_ray.scores import comparison, metrics
from mrkd_ray.scores.comparison import Pair
from mrkd_ray.scores.intervals import Interval

KINDS = ("DN", "DR", "D-RN")
PAPER = metrics.SINGLE_LABEL[:2]
SCORES = {metric.title: comparison.terms(metric) for metric in PAPER}
COLUMNS = {metric.title: metric.name for metric in PAPER}  # in the paper's reports
Spec = tuple[str, str]  # representation, network


def kind(branch: Spec, partner: Spec) -> str | None:
    """Return what the partner differs in: DN network, DR representation, D-RN both."""
    differs = (branch[0] != partner[0], branch[1] != partner[1])
    return {(False, True): "DN", (True, False): "DR", (True, True): "D-RN"}.get(differs)


def find(results: GridResults) -> tuple[Spec, dict[str, tuple[GridCohort, str]]]:
    """Return the branch with most kinds of partners, and of each kind its cohort and its name.

    Of several branches, cohorts of one kind, or variants, the first in the grid's order.
    """
    found: dict[Spec, dict[str, tuple[GridCohort, str]]] = {}
    for cohort in results.cohorts:
        if cohort.variant != results.cohorts[0].variant:
            continue
        specs = cohort.specs
        if not len(specs) == len(cohort.branches) == 2:  # one may have been lost
            continue
        for own, partner, name in zip(specs, specs[::-1], cohort.branches, strict=True):
            which = kind(own, partner)
            if which and results.pairs(cohort, name):
                found.setdefault(own, {}).setdefault(which, (cohort, name))
    if not found:
        return ("", ""), {}
    branch = max(found, key=lambda branch: len(found[branch]))  # the first of the largest
    return branch, {which: found[branch][which] for which in KINDS if which in found[branch]}


def figure(results: GridResults, id: str) -> Figure | None:
    """Bars of accuracy and mAP@3, and the paired differences; None with fewer than two kinds."""
    branch, cohorts = find(results)
    if len(cohorts) < 2:
        return None
    pairs = {which: results.pairs(cohort, name) for which, (cohort, name) in cohorts.items()}
    alone = max(pairs.values(), key=len)
    paper = reported(branch, cohorts, results.config["reported"])
    panels = []
    for score, function in SCORES.items():
        bars = {"baseline": comparison.mean([pair.independent for pair in alone], function)} | {
            which: comparison.mean([pair.distilled for pair in found], function)
            for which, found in pairs.items()
        }
        marks = {which: values[score] for which, values in paper.items()}
        panels.append(Panel(draw(score, bars, marks), f"{score} by mode of distillation"))
    panels.append(Panel(draw_gains(pairs, paper), "gain over the baseline by mode"))
    partners = "; ".join(f"{which} {cohort.title}" for which, (cohort, _) in cohorts.items())
    marked = (
        "Diamonds: what the paper reports for logMel and ResNet101 on FSDKaggle2018. "
        if paper
        else ""
    )
    budget = "the same number of epochs"
    if results.stops_early:
        budget = "the same schedule, and stop early alike"
    caption = (
        f"The branch {':'.join(branch)} alone and distilled with a partner of another network "
        f"(DN), another representation (DR) or both (D-RN): {partners}. Over "
        f"{runs_in_words([len(found) for found in pairs.values()])}, with "
        f"{intervals_in_words(pairs.values())}. {marked}Below: "
        "each mode less the baseline on the same clips; an interval that holds 0 shows no "
        f"difference. All have {budget}."
    )
    return style.figure(id, "Baseline, DN, DR and D-RN", caption, panels)


def _theirs(branch: Spec) -> str:
    """Return a branch as the paper's figures name it, a small network's by the large one's."""
    return f"{branch[0]}:{STANDS_FOR.get(branch[1], branch[1])}"


def reported(
    branch: Spec, cohorts: dict[str, tuple[GridCohort, str]], key: str | None
) -> dict[str, dict[str, float]]:
    """Return the paper's figures of each mode in percent, by score; {} for another branch.

    `key` is the table or figure that the grid is meant for: one of FSDKaggle2018, as Figure 3 is.
    Small networks stand for the paper's, so that `--scale cpu` is shown beside it too.
    """
    from mrkd_ray.report.paper_tables import reported as paper

    number = paper.TABLES[key].number if key in paper.TABLES else "II"  # Figure 3's data set
    other = key is None or paper.dataset_of(number) != "fsdkaggle2018"
    if other or _theirs(branch) != paper.FIGURE3_BRANCH:
        return {}
    table = paper.reported()
    table = table[(table["representation"] == "logmel64") & (table["network"] == "resnet101")]
    alone = table[(table["table"] == "II") & ~table["distilled"]].iloc[0]
    found = {"baseline": {score: float(alone[column]) for score, column in COLUMNS.items()}}
    for which, (cohort, _) in cohorts.items():
        ours = sorted(map(_theirs, cohort.specs))
        for mode, number, pairing in paper.FIGURE3_MODES:
            if (mode, sorted(pairing.split("+"))) == (which, ours):
                rows = table[(table["table"] == number) & (table["branches"] == pairing)]
                row = rows[rows["distilled"]].iloc[0]
                found[which] = {score: float(row[column]) for score, column in COLUMNS.items()}
    return found


def draw(score: str, bars: dict[str, Interval], marks: dict[str, float]) -> Drawing:
    """Draw a bar with its interval and value for each mode; `marks` in percent."""
    drawing, axes = style.new(2.6, title=f"{score}, %")
    for x, (which, value) in enumerate(bars.items()):
        colour = style.INDEPENDENT if which == "baseline" else style.DISTILLED
        axes.bar(x, value.mean, width=0.6, color=colour, alpha=0.75)
        axes.plot([x, x], [value.low, value.high], color=style.INK, lw=1)
        axes.text(x, 2, f"{value.mean:.1f}", ha="center", va="bottom")
        if which in marks:
            axes.plot(x + 0.2, marks[which], "D", ms=4, mfc="none", mec=style.INK, mew=1)
    axes.set_xticks(range(len(bars)), list(bars))
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 104)
    return drawing


def draw_gains(pairs: dict[str, list[Pair]], paper: dict[str, dict[str, float]]) -> Drawing:
    """Draw the paired differences from the baseline in both scores, in points."""
    drawing, axes = style.new(2.6, title="distilled less baseline, points")
    axes.axhline(0, color=style.INK, lw=0.6, alpha=0.6)
    for x, (which, found) in enumerate(pairs.items()):
        for shift, filled, (score, function) in zip(
            (-0.15, 0.15), (True, False), SCORES.items(), strict=True
        ):
            gain = comparison.difference(found, function)
            place = x + shift
            axes.plot([place] * 2, [gain.low, gain.high], color=style.DISTILLED, lw=1.2)
            axes.plot(
                place,
                gain.mean,
                "o",
                ms=5,
                mec=style.DISTILLED,
                mfc=style.DISTILLED if filled else "none",
                label=score if x == 0 else None,
            )
            if which in paper:
                theirs = paper[which][score] - paper["baseline"][score]
                axes.plot(place + 0.08, theirs, "D", ms=4, mfc="none", mec=style.INK, mew=1)
    axes.set_xticks(range(len(pairs)), list(pairs))
    axes.set_xlim(-0.5, len(pairs) - 0.5)
    axes.tick_params(axis="x", length=0)
    drawing.legend(loc="outside lower center", ncols=2)
    return drawing
