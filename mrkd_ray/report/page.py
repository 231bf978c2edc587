"""`report.html`: one page that needs no network and no JavaScript."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mrkd_ray.files import write_text
from mrkd_ray.report import paper
from mrkd_ray.report.figures import Section, figures
from mrkd_ray.report.measured import Measured, read
from mrkd_ray.report.tables import ENSEMBLE, NAMES, SCORES, runs, significance, tables

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
        source=paper.SOURCE,
    )


def summary(measured: Measured) -> str:
    """Return one sentence on what was run."""
    tidy = measured.tidy
    cohorts = measured.table["cohort"].nunique()
    temperatures = [f"{t:g}" for t in sorted(measured.table["temperature"].unique())]
    at = f"temperature{'s' * (len(temperatures) > 1)} {', '.join(temperatures)}"
    alone = "independent" in set(tidy["condition"])
    return (
        f"{cohorts} cohort{'s' * (cohorts > 1)} of classifiers that teach each other, at {at}, on "
        f"{tidy['dataset'].iloc[0]} ({len(measured.classes)} classes), {int(tidy['epochs'].max())} "
        f"epochs, {runs(measured)}"
        + ("; each branch also trained alone with the same epochs and schedule." if alone else ".")
    )


def findings(table: pd.DataFrame) -> list[str]:
    """Return what the comparisons say, counted: branches first, then ensembles."""
    ensemble = table["model"] == ENSEMBLE
    found = [
        _finding(table[~ensemble], "a distilled branch with the same branch trained alone"),
        _finding(
            table[ensemble],
            "a distilled ensemble with the ensemble of the same branches trained alone",
        ),
    ]
    found = [text for text in found if text]
    if not found:
        return ["No branch was trained alone: nothing can be said about the gain of distillation."]
    return [
        *found,
        "Each is one comparison at one temperature, none chosen by its score; of twenty such "
        "intervals about one misses the true difference by chance.",
    ]


def _finding(rows: pd.DataFrame, what: str) -> str:
    records = rows[rows["paired_runs"] > 0].to_dict("records")
    if not records:
        return ""
    parts = []
    for score in SCORES:
        kinds = Counter(significance(row, score) for row in records)
        mean = sum(row[f"{score}_difference"] for row in records) / len(records)
        parts.append(
            f"{NAMES[score]} is significantly higher in {kinds['higher']}, lower in "
            f"{kinds['lower']} and not significantly different in {kinds['ns']} "
            f"(mean difference {mean:+.1f} points)".replace("-", "−")
        )
    many = f"Of {len(records)} comparisons" if len(records) > 1 else "In one comparison"
    return f"{many} of {what}: {'; '.join(parts)}."


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
