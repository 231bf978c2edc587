"""From finished cells to a tidy CSV and the table of independent against distilled branches."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.intact import result_of
from mrkd_ray.common import manifest
from mrkd_ray.common.files import from_here, write_text
from mrkd_ray.common.progress import say
from mrkd_ray.common.reading import Damaged
from mrkd_ray.common.text import time_text, to_cell
from mrkd_ray.results import best as best_of_run
from mrkd_ray.results import printed_table
from mrkd_ray.results.best import Best
from mrkd_ray.results.models import branch_folder, standing, trained_kinds
from mrkd_ray.scores import comparison, metrics
from mrkd_ray.scores.comparison import BEST, ENSEMBLE, Model, Runs, Score
from mrkd_ray.scores.intervals import NO_INTERVAL

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

Baselines = Mapping[tuple[str, str, str], Runs]  # by variant, cohort and branch


FAILED, LOST = "failed.csv", "lost.csv"


class Failed(NamedTuple):
    """A cell that did not finish: what it is, why, and its key."""

    title: str
    error: str
    cell: str


class Lost(NamedTuple):
    """A branch that a finished cell went on without (`--quorum`), from which cycle on, and why."""

    title: str
    branch: str
    cycle: int
    error: str
    cell: str


@dataclass(frozen=True)
class Results:
    """A grid's results.

    Attributes:
        folder: where everything lies.
        tidy: a row per variant, model, fold and seed (`results.csv`); accuracy, map3,
            balanced_accuracy and macro_f1, of a multi-label data set map and lwlrap (`metrics.of`),
            in [0, 1].
            `cell` is the folder with its predictions; an independent ensemble has none: it is the
            mean of the probabilities of its cohort's branches that were trained alone. A branch
            trained alone has a row for every variant that it is a baseline of.
        table: a row per variant, cohort, temperature and model (`table.csv`), in percent; of a
            cohort of which no distilled cell is finished, a row per variant, cohort and model
            without temperature, of the branches that were trained alone. It has means
            over folds and seeds, standard deviations, and the paired difference distilled minus
            independent with its 95% interval and the mark of that (`Interval.mark`); then the same
            of the distilled model and the independent ensemble (`ensemble_independent`,
            `ensemble_difference`). `best branch`
            is, distilled and independent, the branch that comes first (`models.standing`).
        seconds: wall time of the run that returned this.
        best: the model that the run recommends, whose folder is `best_folder`; None where no cell
            is finished.
        failed: the cells that did not finish (`failed.csv`).
        lost: the branches that finished cells went on without (`lost.csv`). Only where there are
            some `tidy` and `table` have a column of them.
    """

    folder: Path
    tidy: pd.DataFrame
    table: pd.DataFrame
    seconds: float = 0.0
    best: Best | None = None
    failed: tuple[Failed, ...] = ()
    lost: tuple[Lost, ...] = ()

    def __str__(self) -> str:
        """Where the results are, and the model to use."""
        best = f"; best model: {self.best.text}" if self.best else ""
        return f"results in {self.folder}{best}"

    @property
    def best_folder(self) -> Path:
        """What `load`, `mrkd predict`, `evaluate` and `export` take."""
        return self.folder / best_of_run.NAME

    def show(self, console: Console) -> None:
        """Print the table, how long the run took, and where the results are."""
        if len(self.table):
            printed_table.show(self.table, console)
        for gone in self.lost:
            since = f"without {gone.branch} from cycle {gone.cycle} on"
            say(console, f"lost: {gone.title}: {since}: {gone.error}")
        for each in self.failed:
            say(console, f"failed: {each.title}: {each.error}")
        cells_done = self.tidy["cell"].replace("", None).nunique() if len(self.tidy) else 0
        cells = f"{cells_done} cell{'s' * (cells_done != 1)}"
        say(console, f"{cells}; this run took {time_text(self.seconds)}.")
        if self.best:
            say(console, f"Best model: {self.best.text}")
        say(console, f"Results: {from_here(self.folder)}")


def gather(
    folder: Path,
    grid: str,
    wanted: Sequence[Cell],
    seconds: float = 0.0,
    failed: Sequence[tuple[str, str]] = (),
) -> Results:
    """Collect the finished ones among the wanted cells of a grid's folder; write CSVs and `best/`.

    A cell is compared with the baselines that it names, which have its own options and budget.
    One of which a file is damaged counts as not finished.

    Args:
        failed: keys of the cells that did not finish, and why.
    """
    import pandas as pd

    found = {cell.key: _read(cell, folder / "cells" / cell.key) for cell in wanted}
    results = {key: each[0] for key, each in found.items() if each is not None}
    scores = {key: each[1] for key, each in found.items() if each is not None}
    done = [cell for cell in wanted if cell.key in results]
    baselines: dict[tuple[str, str, str], Runs] = {}
    for cell in wanted:
        for name, key in zip(cell.names, cell.baselines, strict=False):  # there may be none
            if key in scores:
                runs = baselines.setdefault((cell.variant, cell.cohort, name), {})
                runs[cell.fold, cell.seed] = scores[key][name]
    epochs = {key: int(result["epochs"]) for key, result in results.items()}
    rows = list(_tidy_rows(results, grid, wanted, done, scores))
    rows += list(_ensemble_rows(wanted, rows, baselines))
    tidy = pd.DataFrame(rows)
    lost = [
        Lost(cell.title, name, each["cycle"], each["error"], cell.key)
        for cell in done
        for name, each in results[cell.key].get("lost", {}).items()
    ]
    taught = _table_rows(folder, done, scores, baselines, epochs, {each.cell for each in lost})
    alone = _rows_alone(folder, wanted, done, baselines, epochs)
    compared = pd.DataFrame([*taught, *alone])
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"results.csv": tidy, "table.csv": compared}
    texts = {name: table.to_csv(index=False) for name, table in tables.items()}
    for name, text in texts.items():
        write_text(folder / name, text)
    manifest.write_only(folder, {name: text.encode() for name, text in texts.items()})
    best = best_of_run.recommend(folder, trained_kinds(rows))
    titles = {cell.key: cell.title for cell in wanted}
    unfinished = [Failed(titles.get(key, key), error, key) for key, error in failed]
    _write_list(folder / FAILED, Failed._fields, unfinished)
    _write_list(folder / LOST, Lost._fields, lost)
    return Results(folder, tidy, compared, seconds, best, tuple(unfinished), tuple(lost))


def _write_list(path: Path, fields: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Write a CSV, or remove it where it would have no rows."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([[to_cell(str(value)) for value in row] for row in rows])
    write_text(path, text.getvalue())


def _read(cell: Cell, folder: Path) -> tuple[dict[str, Any], dict[str, Model]] | None:
    """Return the result of a finished cell and what its models predicted."""
    result = result_of(folder)
    if result is None:
        return None
    try:
        models = cell_files.read_models(folder, cell.condition, cell.fold, cell.seed)
    except Damaged:
        return None
    return result, models


def _tidy_rows(
    results: Mapping[str, dict[str, Any]],
    grid: str,
    wanted: Sequence[Cell],
    done: Sequence[Cell],
    scores: Mapping[str, dict[str, Model]],
) -> Iterable[dict[str, Any]]:
    served: dict[str, dict[str, None]] = {}  # variants by the keys of their baselines
    for cell in wanted:
        for key in cell.baselines:
            served.setdefault(key, {})[cell.variant] = None
    any_lost = any("lost" in result for result in results.values())
    for cell in done:
        result = results[cell.key]
        specs = dict(zip(cell.names, cell.branches, strict=True))
        alone = cell.temperature is None
        for variant in served.get(cell.key, ()) if alone else (cell.variant,):
            for model in result["models"]:
                spec = specs.get(model["model"])
                own = scores[cell.key][model["model"]]
                figures = metrics.measure(own.probabilities, own.labels)
                yield {
                    "grid": grid,
                    "dataset": to_cell(result["dataset"]),
                    "variant": variant,
                    "fold": cell.fold,
                    "seed": cell.seed,
                    "cohort": cell.cohort,
                    "model": "branch" if spec else ENSEMBLE,
                    "branch": model["model"] if spec else "",
                    "representation": spec.representation if spec else "",
                    "network": spec.network if spec else "",
                    "condition": cell.condition,
                    "temperature": cell.temperature,
                    "label_noise": cell.training.label_noise,
                    "epochs": result["epochs"],
                    "clips": result["clips"],
                    # As its file has them; one of an earlier version has fewer.
                    **figures | {name: x for name, x in model.items() if name != "model"},
                    "seconds": result["seconds"],
                    "cell": cell.key,
                    **({"lost": "+".join(result.get("lost", ()))} if any_lost else {}),
                }


def _ensemble_rows(
    wanted: Sequence[Cell], tidy: Sequence[dict[str, Any]], baselines: Baselines
) -> Iterable[dict[str, Any]]:
    """The independent ensemble of each variant's cohort whose branches were all trained alone."""
    several = [cell for cell in wanted if len(cell.names) > 1]
    for cohort in {(cell.variant, cell.cohort): cell for cell in several}.values():
        for (fold, seed), model in _ensemble(cohort, baselines).items():
            members = [
                row
                for row in tidy
                if row["condition"] == "independent"
                and row["branch"] in cohort.names
                and (row["variant"], row["fold"], row["seed"]) == (cohort.variant, fold, seed)
            ]
            yield {
                **members[0],
                "cohort": cohort.cohort,
                "model": ENSEMBLE,
                "branch": "",
                "representation": "",
                "network": "",
                **metrics.measure(model.probabilities, model.labels),
                "seconds": sum(row["seconds"] for row in members),
                "cell": "",
            }


def _table_rows(
    folder: Path,
    done: Sequence[Cell],
    scores: Mapping[str, dict[str, Model]],
    baselines: Baselines,
    epochs: Mapping[str, int],
    lost: set[str],
) -> Iterable[dict[str, Any]]:
    """One row for each branch, the ensemble and the best branch of each variant's cohorts."""
    groups: dict[tuple[str, str, float], list[Cell]] = {}
    for cell in done:
        if cell.temperature is not None:
            groups.setdefault((cell.variant, cell.cohort, cell.temperature), []).append(cell)
    for (variant, cohort, temperature), members in groups.items():
        first = members[0]
        together: dict[str, Runs] = {}
        for cell in members:
            for name, model in scores[cell.key].items():
                together.setdefault(name, {})[cell.fold, cell.seed] = model
        alone = _alone(folder, first, baselines)
        if len(names := [name for name in first.names if name in together]) > 1:
            together[BEST] = _best(folder, names, together)
        for name, runs in together.items():
            if not runs:  # no run has all branches
                continue
            common = {"variant": variant, "cohort": cohort, "temperature": temperature}
            common |= {"model": name} | _epochs(first, name, runs, alone, epochs)
            row = common | _compare(alone[name], runs) | _beside(alone.get(ENSEMBLE, {}), runs)
            if lost:
                row["lost_runs"] = len(lost & {model.cell for model in runs.values()})
            yield row


def _rows_alone(
    folder: Path,
    wanted: Sequence[Cell],
    done: Sequence[Cell],
    baselines: Baselines,
    epochs: Mapping[str, int],
) -> Iterable[dict[str, Any]]:
    """The same rows of each variant's cohorts of which no distilled cell is finished."""
    cohorts = {(c.variant, c.cohort): c for c in wanted if c.temperature is not None}
    taught = {(c.variant, c.cohort) for c in done if c.temperature is not None}
    for (variant, cohort), cell in cohorts.items():
        if (variant, cohort) in taught:
            continue
        alone = _alone(folder, cell, baselines)
        for name, runs in alone.items():
            common: dict[str, Any] = {"variant": variant, "cohort": cohort, "temperature": None}
            if runs:
                common |= {"model": name} | _epochs(cell, name, {}, alone, epochs)
                yield common | _compare(runs, {}) | _beside(runs, {})


def _alone(folder: Path, cell: Cell, baselines: Baselines) -> dict[str, Runs]:
    """The baselines of a cohort's branches and, of several, their ensemble and the best branch."""
    alone = {name: _baseline(cell, name, baselines) for name in cell.names}
    if len(cell.names) > 1:
        ensemble = _ensemble(cell, baselines)
        alone |= {ENSEMBLE: ensemble, BEST: _best(folder, cell.names, alone)}
    return alone


def _epochs(
    cell: Cell,
    name: str,
    runs: Runs,
    alone: Mapping[str, Runs],
    epochs: Mapping[str, int],
) -> dict[str, Any]:
    """What was spent, means over runs, and what could have been: less where runs stopped early."""
    of = cell.names if name == ENSEMBLE else (name,)
    together = [epochs[model.cell] for model in runs.values()]
    before = [epochs[model.cell] for branch in of for model in alone[branch].values()]
    return {
        "epochs": round(np.mean(together or before)),
        "epochs_independent": round(np.mean(before)) if before else float("nan"),
        "epochs_at_most": cell.training.epochs,
    }


def _baseline(cell: Cell, name: str, baselines: Baselines) -> Runs:
    return baselines.get((cell.variant, cell.cohort, name), {})


def _ensemble(cell: Cell, baselines: Baselines) -> Runs:
    return comparison.ensemble([_baseline(cell, name, baselines) for name in cell.names])


def _best(folder: Path, names: Sequence[str], runs: Mapping[str, Runs]) -> Runs:
    """The branch that comes first over the runs that all have."""
    branches = comparison.shared([runs[name] for name in names])
    if not branches[0]:
        return {}
    main, other, *_ = _scores(branches[0]).values()

    def place(own: Runs) -> tuple[float, float, float]:
        models = list(own.values())
        means = (float(np.mean([s(model).mean() for model in models])) for s in (main, other))
        first = models[0]
        return standing((next(means), next(means)), [branch_folder(folder, first.cell, first.name)])

    return max(branches, key=place)


def _scores(runs: Runs) -> dict[str, Score]:
    """What models are scored by, by name: the main score first."""
    labels = next(iter(runs.values())).labels
    return {metric.name: comparison.terms(metric) for metric in metrics.of(labels)}


def _compare(independent: Runs, distilled: Runs) -> dict[str, Any]:
    """Both conditions and their difference; without a distilled run, of the independent ones."""
    pairs = comparison.pairs(independent, distilled)
    alone, together = list(independent.values()), list(distilled.values())
    if pairs:  # both columns and the difference are of the same runs
        alone = [pair.independent for pair in pairs]
        together = [pair.distilled for pair in pairs]
    counted = together or alone
    row: dict[str, Any] = {"runs": len(counted)}
    row["folds"] = len({model.fold for model in counted})
    row["seeds"] = len({model.seed for model in counted})
    for name, score in _scores(distilled or independent).items():
        for condition, models in (("independent", alone), ("distilled", together)):
            row |= _mean(f"{name}_{condition}", models, score)
        row |= _difference(f"{name}_difference", pairs, score)
    row["paired_runs"] = len(pairs)
    return row


def _beside(ensemble: Runs, distilled: Runs) -> dict[str, Any]:
    """The independent ensemble, and the distilled model less it."""
    pairs = comparison.pairs(ensemble, distilled)
    row: dict[str, Any] = {}
    for name, score in _scores(distilled or ensemble).items():
        alone = [pair.independent for pair in pairs]
        row |= _mean(f"{name}_ensemble_independent", alone, score)
        row |= _difference(f"{name}_ensemble_difference", pairs, score)
    return row


def _mean(name: str, models: Sequence[Model], score: Score) -> dict[str, float]:
    values = [100 * float(score(model).mean()) for model in models]
    return {
        name: float(np.mean(values)) if values else float("nan"),
        f"{name}_sd": float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
    }


def _difference(name: str, pairs: Sequence[comparison.Pair], score: Score) -> dict[str, Any]:
    """The mean difference over all clips, in points, its 95% interval and its mark."""
    found = comparison.difference(pairs, score) if pairs else NO_INTERVAL
    return {
        name: found.mean,
        f"{name}_low": found.low,
        f"{name}_high": found.high,
        f"{name}_mark": found.mark,
    }
