"""Rows of the paper's tables in its layouts, reported and measured side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from mrkd_ray.report.paper_tables import reported as paper
from mrkd_ray.report.paper_tables.boxes import (
    NAMES,
    NONE,
    SCORES,
    Box,
    Row,
    as_reported,
    difference,
    mean,
    minus,
    with_difference,
)
from mrkd_ray.report.paper_tables.reported import PaperTable
from mrkd_ray.scores.comparison import ENSEMBLE

Key = tuple[str, ...]  # the branches of a pairing, sorted
Sweep = dict[float, dict[str, Row]]  # temperature -> the paper's branch, or ensemble -> its row


def key_of(pairing: str) -> Key:
    """Return what tells pairings apart, whatever the order of their branches."""
    return tuple(sorted(pairing.split("+")))


def of_model(sweep: Sweep, model: str) -> dict[float, Row]:
    """Return one model's row at each temperature."""
    return {t: models[model] for t, models in sweep.items() if model in models}


def rows_head(first: str, second: str) -> list[list[Box]]:
    """Headings of Tables I to V, and of Figure 3 as a table."""
    both = [Box("reported", kind="reported"), Box("measured")]
    return [
        [
            Box(first, rows=2, kind="stub"),
            Box(second, rows=2, kind="stub"),
            Box("T", rows=2),
            *(Box(NAMES[score], columns=2) for score in SCORES),
            *(Box(f"{NAMES[score]}: difference", columns=2) for score in SCORES),
        ],
        both * 4,
    ]


def model_rows(
    table: PaperTable, pairing: str, rows: pd.DataFrame, sweeps: Mapping[Key, Sweep]
) -> list[Sequence[Box]]:
    """Tables I to V: a row for each branch alone, each distilled, and their ensemble."""
    sweep = sweeps.get(key_of(pairing), {})
    names = paper.REPRESENTATIONS, paper.NETWORKS
    shared, other = names[::-1] if table.shared == "network" else names
    varies = "representation" if table.shared == "network" else "network"
    records = rows.to_dict("records")
    lines: list[Sequence[Box]] = []
    baselines: dict[str, Any] = {}
    for row in records:
        branch = f"{row['representation']}:{row['network']}"
        if row["model"] == ENSEMBLE:
            stub = Box("Ensemble*", kind="stub")
            lines += distilled_rows(stub, row, None, of_model(sweep, ENSEMBLE))
        elif not row["distilled"]:
            baselines[branch] = row
            stub = Box(_title(other, row[varies], table), kind="stub")
            lines.append([stub, *alone_boxes(row, sweep)])
        else:
            stub = Box(f"{_title(other, row[varies], table)}*", kind="stub")
            lines += distilled_rows(stub, row, baselines[branch], of_model(sweep, branch))
    title = shared[records[0][table.shared]]
    return led_by(Box(title, rows=len(lines), kind="stub"), lines)


def _title(names: Mapping[str, str], name: str, table: PaperTable) -> str:
    """Table I tells the logMels apart by their resolution, the others write logMel for 64."""
    return "logMel64" if table.number == "I" and name == "logmel64" else names[name]


def alone_boxes(reported: Row, sweep: Sweep) -> list[Box]:
    """An independent branch: its figures do not depend on the temperature."""
    branch = f"{reported['representation']}:{reported['network']}"
    row = next(iter(of_model(sweep, branch).values()), None)
    boxes = [Box(NONE)]
    for score in SCORES:
        boxes += [as_reported(reported[score]), mean(row, f"{score}_independent")]
    return [*boxes, Box("", columns=4)]


def distilled_rows(
    stub: Box, reported: Row, baseline: Row | None, swept: Mapping[float, Row]
) -> list[Sequence[Box]]:
    """A distilled model: the paper's figures once, the measured ones at each temperature."""
    temperatures: list[float | None] = [*swept] or [None]
    tall = len(temperatures)
    lines: list[Sequence[Box]] = []
    for temperature in temperatures:
        row = None if temperature is None else swept[temperature]
        line = [Box(NONE if temperature is None else f"{temperature:g}")]
        for score in SCORES:
            if not lines:
                line.append(as_reported(reported[score], tall))
            line.append(mean(row, f"{score}_distilled"))
        for score in SCORES:
            if not lines:
                gain = None if baseline is None else reported[score] - baseline[score]
                text = NONE if gain is None else minus(f"{gain:+.2f}")  # digits as printed there
                line.append(Box(text, rows=tall, kind="reported"))
            line.append(difference(row, score))
        lines.append(line)
    return led_by(replace(stub, rows=tall), lines)


def branches_head() -> list[list[Box]]:
    """Headings of Tables VI and VII."""
    first = [Box("ACC"), Box("mAP@3"), Box("ACC*"), Box("mAP@3*")]
    return [
        [
            Box("I₁,N₁", rows=2, kind="stub"),
            Box("", rows=2),
            Box("Branch 1", columns=4),
            Box("I₂,N₂", rows=2, kind="stub"),
            Box("Branch 2", columns=4),
            Box("Ensemble", columns=2),
        ],
        [*first, *first, *first[2:]],
    ]


def pairing_rows(pairing: str, rows: pd.DataFrame, sweep: Sweep) -> list[Sequence[Box]]:
    """Tables VI and VII: the pairing's figures as reported, then as measured at each T."""
    by_model = {
        (f"{r['representation']}:{r['network']}" if r["network"] else ENSEMBLE, r["distilled"]): r
        for r in rows.to_dict("records")
    }
    branches = pairing.split("+")
    temperatures: list[float | None] = [*sweep] or [None]
    tall = 1 + len(temperatures)
    stubs = [Box(paper.branch_title(b), rows=tall, kind="stub") for b in branches]
    line = [stubs[0], Box("reported", kind="reported")]
    for i, branch in enumerate(branches):
        line += [stubs[1]] * (i == 1)
        line += [as_reported(by_model[branch, d][s]) for d in (False, True) for s in SCORES]
    lines: list[Sequence[Box]] = [
        [*line, *(as_reported(by_model[ENSEMBLE, True][score]) for score in SCORES)]
    ]
    for temperature in temperatures:
        models = {} if temperature is None else sweep[temperature]
        label = NONE if temperature is None else f"T = {temperature:g}"
        line = [Box(label)]
        for branch in branches:
            row = models.get(branch)
            if len(lines) == 1:  # once: alone, a branch has no temperature
                line += [
                    replace(mean(row, f"{score}_independent"), rows=tall - 1) for score in SCORES
                ]
            line += [with_difference(row, score) for score in SCORES]
        line += [with_difference(models.get(ENSEMBLE), score) for score in SCORES]
        lines.append(line)
    return lines


def led_by(box: Box, lines: Sequence[Sequence[Box]]) -> list[Sequence[Box]]:
    """Put a box that reaches over all lines before the first."""
    return [[box, *lines[0]], *lines[1:]]
