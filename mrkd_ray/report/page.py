"""`report.html`: one page that needs no network and no JavaScript."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from mrkd_ray.cells.cell import named
from mrkd_ray.common.files import write_text
from mrkd_ray.common.reading import read_rows
from mrkd_ray.common.text import time_text
from mrkd_ray.report.figures import Section, figures
from mrkd_ray.report.grid_results import GridResults, read_results
from mrkd_ray.report.paper_tables import reported as paper
from mrkd_ray.report.paper_tables.boxes import MetricName, minus
from mrkd_ray.report.paper_tables.tables import tables
from mrkd_ray.report.templates import template
from mrkd_ray.results import best as best_of_run
from mrkd_ray.results.best import Best
from mrkd_ray.results.compare import RULES
from mrkd_ray.results.gather import FAILED, LOST, Failed, Lost
from mrkd_ray.results.latency import with_latency
from mrkd_ray.results.models import trained_kinds
from mrkd_ray.results.printed_table import conditions, interval, range_of
from mrkd_ray.scores import metrics
from mrkd_ray.scores.comparison import BEST, ENSEMBLE
from mrkd_ray.scores.intervals import signed

NAME = "report.html"


@dataclass(frozen=True)
class Fact:
    """One line of "What was run"."""

    name: str
    value: str
    code: bool = False


def write(folder: Path) -> Path:
    """Draw a grid's report and write it into its folder; return the file's path.

    Raises:
        UserError: the folder is not a grid's, or a file in it is missing (`read_results`).
    """
    results = read_results(folder)
    best = best_of_run.current(folder, trained_kinds(results.tidy.to_dict("records")))
    if best:
        best = with_latency(folder, best, results.config)
    path = folder / NAME
    write_text(path, render(results, figures(results), best))
    return path


def render(results: GridResults, sections: list[Section], best: Best | None) -> str:
    """Return the page; the same folder gives the same page."""
    import yaml

    of_paper = results.config.get("reported") is not None  # beside figures of the paper
    return template("page.html.j2").render(
        name=results.config["name"],
        best=best and headline(results.folder, best),
        summary=summary(results),
        findings=findings(results.table),
        tables=tables(results),
        sections=[section for section in sections if section.figures or section.note],
        failed=_rows(results.folder / FAILED, Failed._fields),
        lost=_rows(results.folder / LOST, Lost._fields),
        facts=facts(results),
        config=yaml.safe_dump(results.config, sort_keys=False),
        sources=[f"Reported figures: {paper.SOURCE}.", paper.TSNE_NOTE] if of_paper else [],
    )


def _rows(path: Path, fields: Sequence[str]) -> list[dict[str, str]]:
    """Return what a list beside the tables has; nothing where there is none."""
    return read_rows(path, fields) if path.exists() else []


@dataclass(frozen=True)
class Headline:
    """Which model to use.

    Attributes:
        model: in words.
        facts: its score, size, time and place.
        command: that classifies with it; "" where its weights are missing.
        note: how it was chosen, and of which run it is.
    """

    model: str
    facts: list[Fact]
    command: str
    note: str


def headline(folder: Path, best: Best) -> Headline:
    """Return what the page begins with."""
    place = folder / best_of_run.NAME
    runs = "one run" if best.runs == 1 else f"the mean of {best.runs} runs"
    main = metrics.named(best.scores)[0].title
    found = [Fact(f"Test clips, {runs}", best.score_text), Fact("Size", best.size_text)]
    if best.latency:
        found.append(Fact(f"Time, on one thread of {best.latency.processor}", best.latency.text))
    note = f"Chosen by {best.chosen_by}: {RULES[best.chosen_by]}."
    note += f" The same clips chose it and score it: its {main} is a little too high."
    command = ""
    if best.bytes is not None:
        found.append(Fact("Where", str(place), code=True))
        command = shlex.join(["mrkd", "predict", str(place), "FILE"])
        if best.runs > 1:
            note += f" Its weights are those of fold {best.fold}, seed {best.seed}: the first run, "
            note += "not the luckiest."
        note += f" All models: mrkd compare {shlex.quote(str(folder))}"
    return Headline(best.model, found, command, note)


def summary(results: GridResults) -> str:
    """Return one sentence on what was run."""
    tidy = results.tidy
    cohorts = results.table["cohort"].nunique()
    variants = results.table["variant"].nunique()
    temperatures = [f"{t:g}" for t in sorted(results.table["temperature"].dropna().unique())]
    at = f"at temperature{'s' * (len(temperatures) > 1)} {', '.join(temperatures)}, "
    what = f"cohort{'s' * (cohorts > 1)} of classifiers that teach each other"
    if not temperatures:
        at, what = "", f"cohort{'s' * (cohorts > 1)} of classifiers, each trained alone"
    folds, seeds = (tidy[name].nunique() for name in ("fold", "seed"))
    noise = [f"{100 * part:g}" for part in sorted(tidy["label_noise"].unique())]
    wrong = " or ".join(f"{part} %" for part in noise)
    labelled = float(results.config.get("labelled", 1.0))  # older runs know no unlabelled clips
    more = results.config.get("unlabelled")
    times = f"{folds} fold{'s' * (folds > 1)} × {seeds} seed{'s' * (seeds > 1)}"
    both = len(set(tidy["condition"])) == 2
    budget = "epochs and schedule"
    if results.stops_early:
        budget = "schedule, stopped early by the same clips"
    text = (
        f"{cohorts} {what}, "
        + (f"in {variants} variants of the method, " if variants > 1 else "")
        + f"{at}on {tidy['dataset'].iloc[0]} ({len(results.classes)} classes), "
        f"{range_of(tidy['epochs'])} epochs, {times}"
        + (f", with {wrong} of the training clips given a wrong label" if noise != ["0"] else "")
        + (f", with {100 * labelled:g} % of the training clips' labels" if labelled < 1 else "")
        + (f", with unlabelled clips of {more}" if more else "")
        + (f"; each branch also trained alone with the same {budget}." if both else ".")
    )
    return f"{text} {unfinished(results)}".strip()


def unfinished(results: GridResults) -> str:
    """Say how much of what the grid asks for is missing; "" where that is nothing."""
    config, tidy = results.config, results.tidy
    folds = sorted(tidy["fold"].unique()) if config["folds"] == "all" else config["folds"]
    runs = list(product(folds, config["seeds"]))
    cohorts = ["+".join(branches) for branches in config["cohorts"]]
    names = [name for cohort in cohorts for name in named(cohort)]

    def missing(condition: str, columns: list[str], wanted: set[Any]) -> str:
        rows = tidy[tidy["condition"] == condition]
        lacking = wanted - set(rows[[*columns, "fold", "seed"]].itertuples(index=False, name=None))
        return f"{len(lacking)} of {len(wanted)} {condition} runs" if lacking else ""

    variants = config["variants"] or {"": {}}
    distilled = {
        (variant, cohort, temperature, *run)
        for variant, changed in variants.items()
        for cohort in cohorts
        for temperature in changed.get("temperatures", config["temperatures"])
        for run in runs
    }
    if config.get("alone"):  # older runs know no such option
        distilled = set()
    names *= config["independent"]
    alone = {(*branch, *run) for branch in product(variants, names) for run in runs}
    found = [
        missing("distilled", ["variant", "cohort", "temperature"], distilled),
        missing("independent", ["variant", "branch"], alone),
    ]
    listed = " and ".join(filter(None, found))
    return f"Unfinished: {listed} are missing; mrkd grid ... --resume goes on." if listed else ""


def findings(table: pd.DataFrame) -> list[str]:
    """Return what the comparisons say, counted; the first sentence is the main one."""
    compared = table[table["paired_runs"] > 0]
    branches = compared[~compared["model"].isin((ENSEMBLE, BEST))]
    ensembles = compared[compared["model"] == ENSEMBLE]
    if conditions(table) == ["independent"]:
        return ["Each branch was trained alone: nothing was distilled."]
    if branches.empty:
        return [
            "No branch was also trained alone, so nobody knows what teaching changed. "
            "--independent trains them too."
        ]
    main, other, *_ = metrics.named(table.columns)
    found = [
        f"The {main.title} of a distilled branch, beside the same branch trained alone, is "
        f"{_counted(branches, main.name)}.",
        f"Its {other.title} is {_counted(branches, other.name)}.",
    ]
    if not ensembles.empty:
        found[1] += (
            " An ensemble of distilled branches, beside that of the same branches trained alone: "
            f"its {main.title} is {_counted(ensembles, main.name)}; its {other.title} is "
            f"{_counted(ensembles, other.name)}."
        )
    one_seed = (compared["paired_runs"] < 2 * compared["folds"]).any()
    return [
        *found,
        "Every variant and swept temperature is counted, none chosen by its score. Comparisons "
        "share baselines (a branch at several temperatures has one), so they are not independent "
        "of each other. "
        + (
            "With one seed the variation between trainings is not in the intervals: more than one "
            "in twenty misses the true difference by chance."
            if one_seed
            else "Of twenty 95% intervals about one misses the true difference by chance."
        ),
    ]


def _counted(rows: pd.DataFrame, score: MetricName) -> str:
    found = [interval(row, f"{score}_difference") for row in rows.to_dict("records")]
    marks: Counter[str] = Counter(each.mark for each in found)
    mean = minus(signed(rows[f"{score}_difference"].mean()))
    words = {"higher": "significantly higher", "lower": "significantly lower"}
    words["ns"] = "not significantly different"
    if len(rows) == 1:
        return f"{words[next(iter(marks))]} ({mean} points)"
    counts = [f"{text} in {marks[mark]}" for mark, text in words.items() if marks[mark]]
    counts[0] += f" of {len(rows)} comparisons"
    return f"{', '.join(counts)} ({mean} points on average)"


def facts(results: GridResults) -> list[Fact]:
    """Return what somebody needs to repeat the run."""
    env: dict[str, Any] = results.environment
    seconds = results.tidy[results.tidy["cell"] != ""].groupby("cell")["seconds"].max()
    made = results.taken_over
    here = seconds[~seconds.index.isin(made)]
    taken = seconds[seconds.index.isin(made)]
    gpus = env["gpus"] if isinstance(env["gpus"], str) else ", ".join(env["gpus"])
    packages = ", ".join(f"{name} {version}" for name, version in env["packages"].items())
    return [
        Fact("Command", env["command"], code=True),
        Fact("This page", f"mrkd report {results.folder}", code=True),
        Fact("Date", _date(env["date"])),
        Fact("Commit", env["commit"] or "unknown", code=True),
        Fact("Versions", f"Python {env['python']}, {packages}"),
        Fact("System", env["system"]),
        Fact("Processor", f"{env['processor']}, {env['cpus']} CPUs"),
        Fact("GPUs", gpus or "none"),
        Fact("Cells", f"{len(here)} trained here" + _taken(list(made.values()))),
        Fact(
            "Wall time",
            f"{time_text(here.sum())}, the sum over cells"
            + (f"; of those taken over {time_text(taken.sum())}" if len(taken) else ""),
        ),
    ]


def _taken(environments: list[dict[str, Any]]) -> str:
    """Say what the cells of other grids were made with."""
    if not environments:
        return ""
    made = dict.fromkeys(
        f"at commit {env['commit'] or 'unknown'} on {_date(env['date'])}" for env in environments
    )
    return f", {len(environments)} taken over from other grids (made {'; '.join(made)})"


def _date(text: str) -> str:
    """Return `2026-01-31 12:00:00 UTC` for one or more dates in ISO's format."""
    return text.replace("T", " ").replace("+00:00", " UTC")
