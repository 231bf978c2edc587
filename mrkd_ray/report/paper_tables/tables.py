"""The report's tables: the paper's in its layout, beside what was measured, and the grid's own.

`table.csv` holds every measured figure (`results.gather`); here they find their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from math import isnan

import pandas as pd

from mrkd_ray.cells.cell import named
from mrkd_ray.config.cpu_scale import STANDS_FOR
from mrkd_ray.report.grid_results import GridResults
from mrkd_ray.report.paper_tables import reported as paper
from mrkd_ray.report.paper_tables.boxes import NAMES, NONE, Box, Table, difference, mean
from mrkd_ray.report.paper_tables.caveats import warnings
from mrkd_ray.report.paper_tables.reported import PaperTable
from mrkd_ray.report.paper_tables.rows import (
    Key,
    Sweep,
    alone_boxes,
    branches_head,
    distilled_rows,
    key_of,
    led_by,
    model_rows,
    of_model,
    pairing_rows,
    rows_head,
)
from mrkd_ray.results import printed_table
from mrkd_ray.scores import metrics
from mrkd_ray.scores.comparison import BEST, ENSEMBLE


def tables(results: GridResults) -> list[Table]:
    """Return the paper's table that the grid is meant for, if any, and the grid's own."""
    asked = results.config["reported"]
    taught = results.table["temperature"].notna().any()
    if asked is None or results.multi_label or not taught:
        return [own(results)]
    return [
        figure3(results) if asked == "figure3" else paper_table(results, asked),
        own(results),
    ]


def paper_table(results: GridResults, key: str) -> Table:
    """Return `table1` to `table7` in the paper's layout, reported and measured side by side."""
    table = paper.TABLES[key]
    reported = paper.reported()
    reported = reported[reported["table"] == table.number]
    sweeps, others = _sweeps(results.table)
    pairings = [(str(name), rows) for name, rows in reported.groupby("branches", sort=False)]
    if table.shared is None:
        head = branches_head()
        groups = [pairing_rows(name, rows, sweeps.get(key_of(name), {})) for name, rows in pairings]
    else:
        head = rows_head(*_stubs(table))
        groups = [model_rows(table, name, rows, sweeps) for name, rows in pairings]
    return Table(
        id=key,
        title=f"Table {table.number}",
        caption=f"{table.caption} * marks distilled branches. {_measured_caption(results)}",
        head=head,
        groups=groups,
        notes=list(
            filter(None, [table.note, _elsewhere(sweeps, others, [n for n, _ in pairings])])
        ),
        warnings=warnings(results, paper.dataset_of(table.number)),
        wide=table.shared is None,
    )


def figure3(results: GridResults) -> Table:
    """Return Figure 3's bars as a table, with each partner that the paper's tables have."""
    reported = paper.reported()
    reported = reported[
        (reported["representation"] + ":" + reported["network"]) == paper.FIGURE3_BRANCH
    ]
    sweeps, others = _sweeps(results.table)
    swept = [sweeps.get(key_of(pairing), {}) for _, _, pairing in paper.FIGURE3_MODES]
    groups: list[Sequence[Sequence[Box]]] = []
    for (mode, number, pairing), sweep in zip(paper.FIGURE3_MODES, swept, strict=True):
        rows = reported[(reported["table"] == number) & (reported["branches"] == pairing)]
        found = {bool(row["distilled"]): row for row in rows.to_dict("records")}
        alone, distilled = found[False], found[True]
        if not groups:
            first = next(filter(None, swept), {})  # whichever was measured: alone is alone
            groups.append([[Box("baseline", columns=2, kind="stub"), *alone_boxes(alone, first)]])
        partner = next(b for b in pairing.split("+") if b != paper.FIGURE3_BRANCH)
        stub = Box(f"{paper.branch_title(partner)}*", f"Table {number}", kind="stub")
        lines = distilled_rows(stub, distilled, alone, of_model(sweep, paper.FIGURE3_BRANCH))
        groups.append(led_by(Box(mode, rows=len(lines), kind="stub"), lines))
    return Table(
        id="figure3",
        title="Figure 3 as a table",
        caption=f"{paper.FIGURE3_CAPTION} {_measured_caption(results)}",
        head=rows_head("Mode", "Partner"),
        groups=groups,
        notes=[
            paper.FIGURE3_NOTE,
            *filter(None, [_elsewhere(sweeps, others, [p for _, _, p in paper.FIGURE3_MODES])]),
        ],
        warnings=warnings(results, "fsdkaggle2018"),
    )


def own(results: GridResults) -> Table:
    """Return every variant, cohort, model and temperature: both conditions, their difference."""
    groups = []
    scores = [metric.name for metric in metrics.shown(results.table)]
    shown = printed_table.conditions(results.table)
    compared = bool(results.table["paired_runs"].any())
    columns = len(shown) + compared  # of each score
    taught = "distilled" in shown
    for (cohort, variant), rows in results.table.groupby(["cohort", "variant"], sort=False):
        name = f"{variant}: {cohort}" if variant else str(cohort)
        title = Box(
            name.replace("+", " + "), columns=1 + taught + columns * len(scores), kind="stub"
        )
        lines: list[Sequence[Box]] = [[title]]
        for model, swept in rows.groupby("model", sort=False):
            found = [(float(row["temperature"]), row) for row in swept.to_dict("records")]
            lines += led_by(
                Box(str(model), rows=len(found), kind="stub"),
                [
                    [
                        *[Box(NONE if isnan(temperature) else f"{temperature:g}")] * taught,
                        *chain.from_iterable(
                            [
                                *(mean(row, f"{score}_{condition}") for condition in shown),
                                *[difference(row, score)] * compared,
                            ]
                            for score in scores
                        ),
                    ]
                    for temperature, row in found
                ],
            )
        groups.append(lines)
    pair = [*map(Box, shown), *[Box("difference [95%]")] * compared]
    return Table(
        id="all",
        title="All that was measured",
        caption=f"Every cohort, model and temperature of {results.config['name']}, in percent. "
        + _measured_caption(results),
        head=[
            [
                Box("Model", rows=2, kind="stub"),
                *[Box("T", rows=2)] * taught,
                *(Box(NAMES[score], columns=columns) for score in scores),
            ],
            pair * len(scores),
        ],
        groups=groups,
    )


def _sweeps(table: pd.DataFrame) -> tuple[dict[Key, Sweep], list[str]]:
    """Sort the measured rows by the paper's pairing, small networks standing for big ones.

    Of several cohorts that stand for one pairing, the first does, and of several variants; the
    others are returned by name.
    """
    found: dict[Key, Sweep] = {}
    first: dict[Key, str] = {}
    others = [f"variant {variant}" for variant in table["variant"].unique()[1:]]
    table = table[(table["variant"] == table["variant"].iloc[0]) & (table["model"] != BEST)]
    table = table[table["temperature"].notna()]
    for cohort, rows in table.groupby("cohort", sort=False):
        branches = {name: _paper_branch(b) for name, b in named(str(cohort)).items()}
        key = tuple(sorted(branches.values()))
        if first.setdefault(key, str(cohort)) != cohort:
            others.append(str(cohort))
            continue
        sweep = found.setdefault(key, {})
        for row in rows.to_dict("records"):
            model = ENSEMBLE if row["model"] == ENSEMBLE else branches[row["model"]]
            # of equal branches, the first stands for them
            sweep.setdefault(float(row["temperature"]), {}).setdefault(model, row)
    return found, others


def _paper_branch(branch: str) -> str:
    representation, _, network = branch.partition(":")
    return f"{representation}:{STANDS_FOR.get(network, network)}"


def _stubs(table: PaperTable) -> tuple[str, str]:
    """Headings of the first two columns: what the branches share, and what they do not."""
    return ("Network", "Input") if table.shared == "network" else ("Input", "Network")


def _elsewhere(sweeps: Iterable[Key], others: Iterable[str], pairings: Iterable[str]) -> str:
    """Name the measured pairings that have no row here: not the paper's, or there already."""
    extra = sorted(set(sweeps) - {key_of(pairing) for pairing in pairings})
    listed = [" + ".join(key) for key in extra] + [name.replace("+", " + ") for name in others]
    return f"Not in this table, but below: {'; '.join(listed)}." if listed else ""


def _measured_caption(results: GridResults) -> str:
    text = f"Measured on {results.tidy['dataset'].iloc[0]}. {printed_table.caption(results.table)}"
    if not results.table["paired_runs"].any():
        return text
    return f"{text} The ensemble is compared with that of the same branches trained alone."
