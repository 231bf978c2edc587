"""The models of a run beside each other: accuracy, size and time; and which one to use."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from mrkd_ray.cells import files as cell_files
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import Damaged
from mrkd_ray.common.text import count_text, megabytes_text, milliseconds_text
from mrkd_ray.config.grid_files import read_written
from mrkd_ray.inference.model_folder import Size
from mrkd_ray.results import best as best_folder
from mrkd_ray.results.best import BY, Best, By, Latency
from mrkd_ray.results.latency import measure, typical_seconds
from mrkd_ray.results.models import TrainedKind, comparable, size, standing, trained_kinds
from mrkd_ray.results.printed_table import cells
from mrkd_ray.results.tables import read_table
from mrkd_ray.scores import comparison
from mrkd_ray.scores.comparison import ENSEMBLE, Condition, Model, Runs
from mrkd_ray.scores.intervals import NO_INTERVAL, Interval

if TYPE_CHECKING:
    from rich.console import Console

RULES: dict[By, str] = {
    "accuracy": "the highest mean accuracy (mAP of a multi-label data set); of equal ones the "
    "higher mAP@3 (lwlrap), then the fewer parameters",
    "latency": "the fastest of those that are not significantly less accurate than the most "
    "accurate one",
    "size": "the smallest of those that are not significantly less accurate than the most "
    "accurate one",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model of the run.

    Attributes:
        kind: what it is.
        behind: its main score less that of the most accurate model, on the same clips; no interval
            for that model itself, and for those of fewer runs.
        complete: whether it was trained in every run: only then it can be chosen.
        size: None where files of its weights are missing.
        latency: None where it cannot be loaded.
    """

    kind: TrainedKind
    behind: Interval
    complete: bool
    size: Size | None
    latency: Latency | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found.

    Attributes:
        rows: the models, the first one (`models.standing`) first.
        seconds: length of the clips that latencies are of.
        best: what `best/` holds now.
    """

    folder: Path
    rows: list[Row]
    seconds: float
    best: Best

    @property
    def best_folder(self) -> Path:
        """What `mrkd predict` takes."""
        return self.folder / best_folder.NAME


def compare(folder: Path, by: str | None = None) -> Comparison:
    """Compare the models of a run's folder; measure what each takes for a clip on this machine.

    Args:
        folder: with `results.csv` and `cells/`.
        by: point `best/` at the model that is first by `accuracy`, `latency` or `size` (`RULES`).
            None leaves `best/` as it is, and makes it by accuracy where it is not there.

    Raises:
        UserError: no such rule or folder, no finished cell, or files of the weights are missing.
    """
    rule = next((each for each in BY if each == by), None)
    if by != rule:
        raise UserError(f"--choose {by}: one of {', '.join(BY)}")
    kinds = read_kinds(folder)
    seconds = typical_seconds(read_written(folder / "grid.yaml", ("data", "cache")))
    complete = comparable(kinds)
    order = sorted(
        kinds,
        key=lambda kind: (kind in complete, standing(kind.mean_scores(), kind.folders(folder))),
        reverse=True,
    )
    read = functools.cache(functools.partial(_models, folder))
    measured: dict[tuple[str, ...], Latency | None] = {}
    rows = []
    for kind in order:
        folders = kind.folders(folder)
        found = size(folders)
        networks = tuple(sorted(kind.branches.values()))
        if found and networks not in measured:
            measured[networks] = measure(folders, seconds)
        compared = kind in complete and kind is not order[0]
        row = Row(
            kind=kind,
            behind=_behind(kind, order[0], read) if compared else NO_INTERVAL,
            complete=kind in complete,
            size=found,
            latency=measured.get(networks),
        )
        rows.append(row)
    before = best_folder.read(folder)
    stays = [row for row in rows if rule is None and before and before.is_of(row.kind)]
    chosen = stays[0] if stays else choose(rows, rule or "accuracy")
    chosen_by = before.chosen_by if stays and before else rule or "accuracy"
    best = best_folder.facts(folder, chosen.kind, chosen_by)
    if best.bytes is None:
        listed = ", ".join(str(path) for path in chosen.kind.folders(folder))
        raise UserError(
            f"{folder}: best/ cannot hold {chosen.kind.title}: its weights are not in {listed}. "
            "Delete the folders of these cells, and run again with --resume"
        )
    best = replace(best, latency=chosen.latency)
    try:
        best = best_folder.point(folder, best)
    except OSError:
        if not stays:  # it is to hold another model
            raise
    return Comparison(folder=folder, rows=rows, seconds=seconds, best=best)


def read_kinds(folder: Path) -> list[TrainedKind]:
    """Return the models of a run's folder.

    Raises:
        UserError: no such folder, none in it, or its table is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a run's, for example results/demo")
    try:
        table = read_table(folder / "results.csv")
    except Damaged as error:
        raise UserError(f"{error}. Run again with --resume: it is made anew from cells/") from None
    if table is None:
        raise UserError(f"{folder}: no model there yet: no finished cell in results.csv")
    return trained_kinds(table.to_dict("records"))


def choose(rows: Sequence[Row], by: By) -> Row:
    """Return the model that a rule chooses (`RULES`); equal ones by their order.

    Args:
        rows: the most accurate first.
    """
    if by == "accuracy":
        return rows[0]
    good = [row for row in rows if row.complete and row.behind.mark != "lower"]
    if by == "size":
        return min(good, key=lambda row: row.size.bytes if row.size else inf)
    return min(good, key=lambda row: row.latency.milliseconds if row.latency else inf)


Read = Callable[[str, Condition, int, int], Mapping[str, Model]]


def _models(folder: Path, cell: str, condition: Condition, fold: int, seed: int) -> Any:
    return cell_files.read_models(folder / "cells" / cell, condition, fold, seed)


def _behind(kind: TrainedKind, first: TrainedKind, read: Read) -> Interval:
    pairs = comparison.pairs(_runs(first, read), _runs(kind, read))
    return comparison.difference(pairs, comparison.terms(kind.metrics[0]))


def _runs(kind: TrainedKind, read: Read) -> Runs:
    """What a model predicted in every run."""
    members: list[Runs] = [{} for _ in kind.branches]
    for (fold, seed), cells_ in kind.cells.items():
        for member, name, cell in zip(members, kind.branches, cells_, strict=True):
            models = read(cell, kind.condition, fold, seed)
            member[fold, seed] = models[ENSEMBLE] if kind.in_one_cell else models[name]
    if kind.is_ensemble and not kind.in_one_cell:
        return comparison.ensemble(members)
    return members[0]


def show(found: Comparison, console: Console) -> None:
    """Print a row for each model, what the columns are, and what `best/` holds."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    main, other = found.rows[0].kind.metrics
    cohorts = _letters([row.kind for row in found.rows])
    for cohort, letter in cohorts.items():
        of = f"{letter}: " if letter else ""
        console.print(f"{of}{cohort.replace('+', ' + ')}", markup=False, style="bold")
    shown = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 0))
    shown.add_column("model", overflow="fold", ratio=1)
    shown.add_column(f"% {main.title}", justify="right", no_wrap=True)
    shown.add_column(other.title, justify="right", no_wrap=True)
    shown.add_column("minus the first [95%]", justify="right", no_wrap=True)
    sizes = [row.size for row in found.rows if row.size]
    frozen = any(size.trained < size.parameters for size in sizes)
    for heading in ("", "param.", *["trained"] * frozen, "MB", "ms"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in found.rows:
        score, second = row.kind.mean_scores()
        deviation = row.kind.deviations()[0]
        spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
        shown.add_row(
            _short(row.kind, cohorts) + _fewer(row),
            f"{100 * score:.1f}{spread}",
            f"{100 * second:.1f}",
            *cells(row.behind),
            count_text(row.size.parameters) if row.size else "-",
            *[count_text(row.size.trained) if row.size else "-"] * frozen,
            megabytes_text(row.size.bytes) if row.size else "-",
            "-" if row.latency is None else milliseconds_text(row.latency.milliseconds),
        )
    console.print(shown)
    console.print(caption(found), style="dim")
    chosen = f"best/ (by {found.best.chosen_by}: {RULES[found.best.chosen_by]}):"
    console.print(f"{chosen} {found.best.model}", markup=False)


def _letters(kinds: Sequence[TrainedKind]) -> dict[str, str]:
    """Return a letter for each cohort, "" for a single one: rows say of which they are."""
    cohorts = dict.fromkeys(kind.cohort for kind in kinds if "+" in kind.cohort)
    letters = iter(ascii_uppercase)
    return {cohort: next(letters, cohort) if len(cohorts) > 1 else "" for cohort in cohorts}


def _short(kind: TrainedKind, letters: Mapping[str, str]) -> str:
    name = ENSEMBLE if kind.is_ensemble else next(iter(kind.branches))
    letter = letters.get(kind.cohort, "")
    words = [f"{name} of {letter}" if letter else name, kind.condition_text]
    return ", ".join([*words, *filter(None, kind.variants)])


def _fewer(row: Row) -> str:
    runs = len(row.kind.scores)
    return "" if row.complete else f" ({runs} run{'s' * (runs > 1)} only)"


def caption(found: Comparison) -> str:
    """Say what the columns are, of how many runs, and on which machine was measured."""
    runs = len(found.rows[0].kind.scores)
    text = f"Means over {runs} runs" if runs > 1 else "One run"
    text += (
        ". Minus the first: the difference to the first model, paired by fold, seed and clip, with "
        "a bootstrap's interval; ns: not significant, it holds 0. These scores also choose: of the "
        "chosen model they are a little too high."
    )
    processor = next((row.latency.processor for row in found.rows if row.latency), None)
    if any(row.size and row.size.trained < row.size.parameters for row in found.rows):
        text += " param.: with those of frozen pretrained networks."
    if processor:
        text += (
            f" ms: for a clip of {found.seconds:.3g} s, from the waveform to probabilities, on one "
            f"thread of {processor}."
        )
    return text


def as_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON has it; scores in [0, 1], differences in points."""
    names = [metric.name for metric in found.rows[0].kind.metrics]
    return {
        "best": asdict(found.best),
        "path": str(found.best_folder),
        "rule": RULES[found.best.chosen_by],
        "clip_seconds": found.seconds,
        "models": [
            {
                "model": row.kind.title,
                "condition": row.kind.condition,
                "branches": dict(row.kind.branches),
                "variants": [name for name in row.kind.variants if name],
                "temperature": row.kind.temperature,
                "runs": len(row.kind.scores),
                **dict(zip(names, row.kind.mean_scores(), strict=True)),
                "difference": _ends(row.behind),
                "parameters": row.size and row.size.parameters,
                "trained_parameters": row.size and row.size.trained,
                "megabytes": row.size and row.size.bytes / 1e6,
                "milliseconds": row.latency and row.latency.milliseconds,
                "is_best": found.best.is_of(row.kind),
            }
            for row in found.rows
        ],
    }


def _ends(found: Interval) -> dict[str, Any] | None:
    if not found.mark:
        return None
    return {"mean": found.mean, "low": found.low, "high": found.high, "mark": found.mark}
