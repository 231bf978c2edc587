"""`report.html`: one page that needs no network and no JavaScript."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mrkd_ray.files import write_text
from mrkd_ray.report import paper
from mrkd_ray.report.boxes import Score, signed, significance
from mrkd_ray.report.figures import Section, figures
from mrkd_ray.report.measured import Measured, read
from mrkd_ray.report.paper import ENSEMBLE
from mrkd_ray.report.tables import tables

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
        UserError: the folder is not a grid's, or a file in it is missing (`measured.read`).
    """
    measured = read(folder)
    path = folder / NAME
    write_text(path, render(measured, figures(measured)))
    return path


def render(measured: Measured, sections: list[Section]) -> str:
    """Return the page; the same folder gives the same page."""
    import yaml
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mrkd_ray.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        name=measured.config["name"],
        summary=summary(measured),
        findings=findings(measured.table),
        tables=tables(measured),
        sections=[section for section in sections if section.figures or section.note],
        facts=facts(measured),
        config=yaml.safe_dump(measured.config, sort_keys=False),
        sources=[f"Reported figures: {paper.SOURCE}.", paper.TSNE_NOTE],
    )


def summary(measured: Measured) -> str:
    """Return one sentence on what was run."""
    tidy = measured.tidy
    cohorts = measured.table["cohort"].nunique()
    temperatures = [f"{t:g}" for t in sorted(measured.table["temperature"].unique())]
    at = f"temperature{'s' * (len(temperatures) > 1)} {', '.join(temperatures)}"
    folds, seeds = (int(measured.table[name].max()) for name in ("folds", "seeds"))
    times = f"{folds} fold{'s' * (folds > 1)} × {seeds} seed{'s' * (seeds > 1)}"
    alone = "independent" in set(tidy["condition"])
    return (
        f"{cohorts} cohort{'s' * (cohorts > 1)} of classifiers that teach each other, at {at}, on "
        f"{tidy['dataset'].iloc[0]} ({len(measured.classes)} classes), {int(tidy['epochs'].max())} "
        f"epochs, {times}"
        + ("; each branch also trained alone with the same epochs and schedule." if alone else ".")
    )


def findings(table: pd.DataFrame) -> list[str]:
    """Return what the comparisons say, counted; the first sentence is the main one."""
    compared = table[table["paired_runs"] > 0]
    branches = compared[compared["model"] != ENSEMBLE]
    ensembles = compared[compared["model"] == ENSEMBLE]
    if branches.empty:
        return ["No branch was also trained alone: the gain of distillation cannot be told."]
    found = [
        "The accuracy of a distilled branch, beside the same branch trained alone, is "
        f"{_counted(branches, 'accuracy')}.",
        f"Its mAP@3 is {_counted(branches, 'map3')}.",
    ]
    if not ensembles.empty:
        found[1] += (
            " An ensemble of distilled branches, beside that of the same branches trained alone: "
            f"its accuracy is {_counted(ensembles, 'accuracy')}; its mAP@3 is "
            f"{_counted(ensembles, 'map3')}."
        )
    return [
        *found,
        "Every swept temperature is counted, none chosen by its score. Of twenty 95% intervals "
        "about one misses the true difference by chance.",
    ]


def _counted(rows: pd.DataFrame, score: Score) -> str:
    kinds = Counter(significance(row, score) for row in rows.to_dict("records"))
    mean = signed(rows[f"{score}_difference"].mean(), 1)
    return (
        f"significantly higher in {kinds['higher']} of {len(rows)} comparisons, lower in "
        f"{kinds['lower']}, not significantly different in {kinds['ns']} ({mean} points on average)"
    )


def facts(measured: Measured) -> list[Fact]:
    """Return what somebody needs to repeat the run."""
    env: dict[str, Any] = measured.environment
    seconds = measured.tidy[measured.tidy["cell"] != ""].groupby("cell")["seconds"].max()
    packages = ", ".join(f"{name} {version}" for name, version in env["packages"].items())
    return [
        Fact("Command", env["command"], code=True),
        Fact("This page", f"mrkd report {measured.folder}", code=True),
        Fact("Date", env["date"].replace("T", " ").removesuffix("+00:00") + " UTC"),
        Fact("Commit", env["commit"] or "unknown", code=True),
        Fact("Versions", f"Python {env['python']}, {packages}"),
        Fact("System", env["system"]),
        Fact("Processor", f"{env['processor']}, {env['cpus']} CPUs"),
        Fact("GPUs", ", ".join(env["gpus"]) or "none"),
        Fact("Cells", f"{len(seconds)} trained"),
        Fact("Wall time", f"{_duration(seconds.sum())}, the sum over cells"),
    ]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
