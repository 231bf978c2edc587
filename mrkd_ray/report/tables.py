"""The report's tables: the paper's in its layout, beside what was measured, and the grid's own.

`table.csv` holds every measured figure (see `mrkd_ray.results`); here they find their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import pandas as pd

from mrkd_ray import table as printed
from mrkd_ray.config import PRETRAINED_LR, SCRATCH_LR, Training
from mrkd_ray.report import paper
from mrkd_ray.report.boxes import (
    NAMES,
    NONE,
    SCORES,
    Box,
    Row,
    Table,
    as_reported,
    difference,
    mean,
    signed,
    with_difference,
)
from mrkd_ray.report.measured import Measured, named
from mrkd_ray.report.paper import ENSEMBLE, PaperTable
from mrkd_ray.scale import STANDS_FOR

NOT_METHOD = ("cycles", "precision", "channels_last", "compile")
"""Fields of `Training` that say nothing of the method, or that epochs stand for."""
Key = tuple[str, ...]  # the branches of a pairing, sorted
Sweep = dict[float, dict[str, Row]]  # temperature -> the paper's branch, or ensemble -> its row


def tables(measured: Measured) -> list[Table]:
    """Return the paper's table that the grid is meant for, if any, and the grid's own."""
    asked = measured.config.get("paper")
    if asked is None:
        return [own(measured)]
    return [
        figure3(measured) if asked == "figure3" else paper_table(measured, asked),
        own(measured),
    ]


def paper_table(measured: Measured, key: str) -> Table:
    """Return `table1` to `table7` in the paper's layout, reported and measured side by side."""
    table = paper.TABLES[key]
    reported = paper.reported()
    reported = reported[reported["table"] == table.number]
    sweeps, others = _sweeps(measured.table)
    pairings = [(str(name), rows) for name, rows in reported.groupby("branches", sort=False)]
    if table.shared is None:
        head = _branches_head()
        groups = [_pairing_rows(name, rows, sweeps.get(_key(name), {})) for name, rows in pairings]
    else:
        head = _rows_head(*_stubs(table))
        groups = [_model_rows(table, name, rows, sweeps) for name, rows in pairings]
    return Table(
        id=key,
        title=f"Table {table.number}",
        caption=f"{table.caption} * marks distilled branches. {_measured_caption(measured)}",
        head=head,
        groups=groups,
        notes=list(
            filter(None, [table.note, _elsewhere(sweeps, others, [n for n, _ in pairings])])
        ),
        warnings=_warnings(measured, paper.dataset_of(table.number)),
        wide=table.shared is None,
    )


def figure3(measured: Measured) -> Table:
    """Return Figure 3's bars as a table, with each partner that the paper's tables have."""
    reported = paper.reported()
    reported = reported[
        (reported["representation"] + ":" + reported["network"]) == paper.FIGURE3_BRANCH
    ]
    sweeps, others = _sweeps(measured.table)
    swept = [sweeps.get(_key(pairing), {}) for _, _, pairing in paper.FIGURE3_MODES]
    groups: list[Sequence[Sequence[Box]]] = []
    for (mode, number, pairing), sweep in zip(paper.FIGURE3_MODES, swept, strict=True):
        rows = reported[(reported["table"] == number) & (reported["branches"] == pairing)]
        found = {bool(row["distilled"]): row for row in rows.to_dict("records")}
        alone, distilled = found[False], found[True]
        if not groups:
            first = next(filter(None, swept), {})  # whichever was measured: alone is alone
            groups.append([[Box("baseline", columns=2, kind="stub"), *_alone(alone, first)]])
        partner = next(b for b in pairing.split("+") if b != paper.FIGURE3_BRANCH)
        stub = Box(f"{paper.branch_title(partner)}*", f"Table {number}", kind="stub")
        lines = _distilled(stub, distilled, alone, _of(sweep, paper.FIGURE3_BRANCH))
        groups.append(_first(Box(mode, rows=len(lines), kind="stub"), lines))
    return Table(
        id="figure3",
        title="Figure 3 as a table",
        caption=f"{paper.FIGURE3_CAPTION} {_measured_caption(measured)}",
        head=_rows_head("Mode", "Partner"),
        groups=groups,
        notes=[
            paper.FIGURE3_NOTE,
            *filter(None, [_elsewhere(sweeps, others, [p for _, _, p in paper.FIGURE3_MODES])]),
        ],
        warnings=_warnings(measured, "fsdkaggle2018"),
    )


def own(measured: Measured) -> Table:
    """Return every cohort, model and temperature: independent, distilled and the difference."""
    groups = []
    for cohort, rows in measured.table.groupby("cohort", sort=False):
        title = Box(str(cohort).replace("+", " + "), columns=8, kind="stub")
        lines: list[Sequence[Box]] = [[title]]
        for model, swept in rows.groupby("model", sort=False):
            found = [(float(row["temperature"]), row) for row in swept.to_dict("records")]
            lines += _first(
                Box(str(model), rows=len(found), kind="stub"),
                [
                    [
                        Box(f"{temperature:g}"),
                        *chain.from_iterable(
                            [
                                mean(row, f"{score}_independent"),
                                mean(row, f"{score}_distilled"),
                                difference(row, score),
                            ]
                            for score in SCORES
                        ),
                    ]
                    for temperature, row in found
                ],
            )
        groups.append(lines)
    pair = [Box("independent"), Box("distilled"), Box("difference [95%]")]
    return Table(
        id="all",
        title="All that was measured",
        caption=f"Every cohort, model and temperature of {measured.config['name']}, in percent. "
        + _measured_caption(measured),
        head=[
            [
                Box("Model", rows=2, kind="stub"),
                Box("T", rows=2),
                *(Box(NAMES[score], columns=3) for score in SCORES),
            ],
            [*pair, *pair],
        ],
        groups=groups,
    )


def _sweeps(table: pd.DataFrame) -> tuple[dict[Key, Sweep], list[str]]:
    """Sort the measured rows by the paper's pairing, small networks standing for big ones.

    Of several cohorts that stand for one pairing, the first does; the others are returned by name.
    """
    found: dict[Key, Sweep] = {}
    first: dict[Key, str] = {}
    others: list[str] = []
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


def _key(pairing: str) -> Key:
    return tuple(sorted(pairing.split("+")))


def _of(sweep: Sweep, model: str) -> dict[float, Row]:
    return {t: models[model] for t, models in sweep.items() if model in models}


def _stubs(table: PaperTable) -> tuple[str, str]:
    """Headings of the first two columns: what the branches share, and what they do not."""
    return ("Network", "Input") if table.shared == "network" else ("Input", "Network")


def _rows_head(first: str, second: str) -> list[list[Box]]:
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


def _model_rows(
    table: PaperTable, pairing: str, rows: pd.DataFrame, sweeps: Mapping[Key, Sweep]
) -> list[Sequence[Box]]:
    """Tables I to V: a row for each branch alone, each distilled, and their ensemble."""
    sweep = sweeps.get(_key(pairing), {})
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
            lines += _distilled(stub, row, None, _of(sweep, ENSEMBLE))
        elif not row["distilled"]:
            baselines[branch] = row
            stub = Box(_title(other, row[varies], table), kind="stub")
            lines.append([stub, *_alone(row, sweep)])
        else:
            stub = Box(f"{_title(other, row[varies], table)}*", kind="stub")
            lines += _distilled(stub, row, baselines[branch], _of(sweep, branch))
    title = shared[records[0][table.shared]]
    return _first(Box(title, rows=len(lines), kind="stub"), lines)


def _title(names: Mapping[str, str], name: str, table: PaperTable) -> str:
    """Table I tells the logMels apart by their resolution, the others write logMel for 64."""
    return "logMel64" if table.number == "I" and name == "logmel64" else names[name]


def _alone(reported: Row, sweep: Sweep) -> list[Box]:
    """An independent branch: its figures do not depend on the temperature."""
    branch = f"{reported['representation']}:{reported['network']}"
    row = next(iter(_of(sweep, branch).values()), None)
    boxes = [Box(NONE)]
    for score in SCORES:
        boxes += [as_reported(reported[score]), mean(row, f"{score}_independent")]
    return [*boxes, Box("", columns=4)]


def _distilled(
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
                line.append(
                    Box(NONE if gain is None else signed(gain, 2), rows=tall, kind="reported")
                )
            line.append(difference(row, score))
        lines.append(line)
    return _first(replace(stub, rows=tall), lines)


def _branches_head() -> list[list[Box]]:
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


def _pairing_rows(pairing: str, rows: pd.DataFrame, sweep: Sweep) -> list[Sequence[Box]]:
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


def _elsewhere(sweeps: Iterable[Key], others: Iterable[str], pairings: Iterable[str]) -> str:
    """Name the measured pairings that have no row here: not the paper's, or there already."""
    extra = sorted(set(sweeps) - {_key(pairing) for pairing in pairings})
    listed = [" + ".join(key) for key in extra] + [name.replace("+", " + ") for name in others]
    return f"Not in this table, but below: {'; '.join(listed)}." if listed else ""


def _first(box: Box, lines: Sequence[Sequence[Box]]) -> list[Sequence[Box]]:
    """Put a box that reaches over all lines before the first."""
    return [[box, *lines[0]], *lines[1:]]


def _measured_caption(measured: Measured) -> str:
    text = f"Measured on {measured.tidy['dataset'].iloc[0]}. {printed.caption(measured.table)}"
    if not measured.table["paired_runs"].any():
        return text
    return f"{text} The ensemble is compared with that of the same branches trained alone."


def _warnings(measured: Measured, dataset: str) -> list[str]:
    """Say in which respects the run is not the paper's."""
    found = []
    measured_on = set(measured.tidy["dataset"])
    if measured_on != {dataset}:
        found.append(
            f"the data set is {', '.join(sorted(measured_on))}, not {paper.DATASETS[dataset]}"
        )
    networks = {n for n in measured.tidy["network"] if n}
    if small := sorted(n for n in networks if n in STANDS_FOR):
        listed = ", ".join(f"{n} for {paper.NETWORKS[STANDS_FOR[n]]}" for n in small)
        found.append(f"small networks stand for the paper's: {listed}")
    found += _settings(measured.config, scratch=bool(small))
    epochs = set(measured.tidy["epochs"])
    if epochs != {paper.EPOCHS}:
        found.append(f"{', '.join(map(str, sorted(epochs)))} epochs, not {paper.EPOCHS}")
    if not found:
        return []
    return [
        "Not the paper's experiment: " + "; ".join(found) + ". The measured figures cannot be "
        "compared with the reported ones in absolute terms; what can be compared is which way a "
        "difference goes, and how sure it is."
    ]


def _settings(config: Mapping[str, Any], scratch: bool) -> list[str]:
    """Name each setting that is not the paper's, which the defaults are."""
    weights = config["weights"] or ("none" if scratch else "imagenet")
    lr = config["lr"] or (SCRATCH_LR if weights == "none" else PRETRAINED_LR)
    asked = {**config, "weights": weights, "lr": lr}
    theirs = {name: Training.model_fields[name].default for name in Training.model_fields}
    theirs |= {"weights": "imagenet", "lr": PRETRAINED_LR}
    return [
        f"{name} {asked[name]}, not {value}" + " (the paper gives no alpha)" * (name == "mixup")
        for name, value in theirs.items()
        if name not in NOT_METHOD and asked.get(name, value) != value
    ]
