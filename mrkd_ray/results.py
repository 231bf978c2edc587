"""From finished cells to a tidy CSV and the table of independent against distilled branches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrkd_ray import cell_files, cells, metrics, table
from mrkd_ray.cells import Cell
from mrkd_ray.files import write_text

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

Probabilities = NDArray[np.float64]
Score = Callable[[Probabilities, NDArray[np.int64]], Probabilities]  # one term a clip
Scores = dict[str, dict[tuple[int, int], "Scored"]]  # model -> (fold, seed) -> its predictions


@dataclass(frozen=True)
class Scored:
    """One model's predictions on one test side."""

    clip_ids: list[str]
    labels: NDArray[np.int64]
    probabilities: Probabilities


@dataclass(frozen=True)
class Results:
    """A grid's results.

    Attributes:
        folder: where everything lies.
        tidy: a row per model, fold and seed (`results.csv`); accuracy and map3 in [0, 1], of a
            multi-label data set map and lwlrap (`metrics.of`). `cell` is the folder with its
            predictions; an independent ensemble has none: it is the mean of the probabilities of
            its cohort's branches that were trained alone.
        table: a row per cohort, temperature and model (`table.csv`), in percent: means over folds
            and seeds, standard deviations, and the paired difference distilled minus independent
            with its 95% interval.
        seconds: wall time of the run that returned this.
    """

    folder: Path
    tidy: pd.DataFrame
    table: pd.DataFrame
    seconds: float = 0.0

    def show(self, console: Console) -> None:
        """Print the table, how long the run took, and where the results are."""
        table.show(self.table, console)
        cells_done = self.tidy["cell"].replace("", None).nunique() if len(self.tidy) else 0
        minutes, seconds = divmod(round(self.seconds), 60)
        console.print(f"{cells_done} cells; this run took {minutes} min {seconds} s.")
        console.print(f"Results: {self.folder}", markup=False, soft_wrap=True)


def gather(folder: Path, grid: str, wanted: Sequence[Cell], seconds: float = 0.0) -> Results:
    """Collect the finished ones among the wanted cells of a grid's folder and write the CSVs.

    Raises:
        ValueError: the cells have different numbers of epochs.
    """
    import pandas as pd

    if len({cell.training.epochs for cell in wanted}) > 1:
        raise ValueError("cells with unequal budgets are not compared")
    done = [cell for cell in wanted if cells.finished(folder / "cells" / cell.key) is not None]
    scores = {cell.key: _load(folder, cell) for cell in done}
    baselines: Scores = {}
    for cell in done:
        if cell.temperature is None:
            runs = baselines.setdefault(cell.names[0], {})
            runs[cell.fold, cell.seed] = scores[cell.key][cell.names[0]]
    rows = list(_tidy_rows(folder, grid, done))
    rows += list(_ensemble_rows(done, rows, baselines))
    tidy = pd.DataFrame(rows)
    compared = pd.DataFrame(_table_rows(done, scores, baselines))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.csv", tidy.to_csv(index=False))
    write_text(folder / "table.csv", compared.to_csv(index=False))
    return Results(folder, tidy, compared, seconds)


def _tidy_rows(folder: Path, grid: str, done: Sequence[Cell]) -> Iterable[dict[str, Any]]:
    for cell in done:
        result = cells.finished(folder / "cells" / cell.key)
        assert result is not None
        specs = dict(zip(cell.names, cell.branches, strict=True))
        for model in result["models"]:
            spec = specs.get(model["model"])
            yield {
                "grid": grid,
                "dataset": result["dataset"],
                "fold": cell.fold,
                "seed": cell.seed,
                "cohort": cell.cohort,
                "model": "branch" if spec else "ensemble",
                "branch": model["model"] if spec else "",
                "representation": spec.representation if spec else "",
                "network": spec.network if spec else "",
                "condition": cell.condition,
                "temperature": cell.temperature,
                "label_noise": cell.training.label_noise,
                "epochs": result["epochs"],
                "clips": result["clips"],
                **{name: value for name, value in model.items() if name != "model"},
                "seconds": result["seconds"],
                "cell": cell.key,
            }


def _ensemble_rows(
    done: Sequence[Cell], tidy: Sequence[dict[str, Any]], baselines: Scores
) -> Iterable[dict[str, Any]]:
    """The independent ensemble of each cohort, where all of its branches were trained alone."""
    for cohort in {cell.cohort: cell for cell in done if len(cell.names) > 1}.values():
        ensemble = _ensemble([baselines.get(name, {}) for name in cohort.names])
        for (fold, seed), scored in ensemble.items():
            members = [
                row
                for row in tidy
                if row["condition"] == "independent"
                and row["branch"] in cohort.names
                and (row["fold"], row["seed"]) == (fold, seed)
            ]
            yield {
                **members[0],
                "cohort": cohort.cohort,
                "model": "ensemble",
                "branch": "",
                "representation": "",
                "network": "",
                **metrics.measure(scored.probabilities, scored.labels),
                "seconds": sum(row["seconds"] for row in members),
                "cell": "",
            }


def _table_rows(
    done: Sequence[Cell], scores: Mapping[str, dict[str, Scored]], baselines: Scores
) -> Iterable[dict[str, Any]]:
    """One row for each branch and the ensemble of each cohort and temperature."""
    groups: dict[tuple[str, float], list[Cell]] = {}
    for cell in done:
        if cell.temperature is not None:
            groups.setdefault((cell.cohort, cell.temperature), []).append(cell)
    for (cohort, temperature), members in groups.items():
        distilled: Scores = {}
        for cell in members:
            for model, scored in scores[cell.key].items():
                distilled.setdefault(model, {})[cell.fold, cell.seed] = scored
        names = members[0].names
        for model, runs in distilled.items():
            if model in names:
                baseline = baselines.get(model, {})
            else:
                baseline = _ensemble([baselines.get(name, {}) for name in names])
            common = {"cohort": cohort, "temperature": temperature, "model": model}
            common["epochs"] = members[0].training.epochs
            yield common | _compare(baseline, runs)


def _load(folder: Path, cell: Cell) -> dict[str, Scored]:
    clip_ids, labels, scores = cell_files.read_predictions(folder / "cells" / cell.key)
    return {model: Scored(clip_ids, labels, p.astype(np.float64)) for model, p in scores.items()}


def _ensemble(members: Sequence[dict[tuple[int, int], Scored]]) -> dict[tuple[int, int], Scored]:
    """Mean of probabilities, for each fold and seed that every member has."""
    runs = set.intersection(*(set(member) for member in members))
    return {
        run: Scored(
            members[0][run].clip_ids,
            members[0][run].labels,
            np.mean([member[run].probabilities for member in members], axis=0),
        )
        for run in sorted(runs)
    }


def _compare(
    independent: dict[tuple[int, int], Scored], distilled: dict[tuple[int, int], Scored]
) -> dict[str, Any]:
    paired = sorted(set(independent) & set(distilled))
    if paired:  # both columns and the difference are of the same runs
        independent = {run: independent[run] for run in paired}
        distilled = {run: distilled[run] for run in paired}
    row: dict[str, Any] = {"runs": len(distilled)}
    for i, name in enumerate(("folds", "seeds")):
        row[name] = len({run[i] for run in distilled})
    for metric in metrics.of(next(iter(distilled.values())).labels):
        name, score = metric.name, metric.terms
        for condition, runs in (("independent", independent), ("distilled", distilled)):
            values = [100 * float(score(s.probabilities, s.labels).mean()) for s in runs.values()]
            row[f"{name}_{condition}"] = float(np.mean(values)) if values else float("nan")
            row[f"{name}_{condition}_sd"] = (
                float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            )
        pairs = [(run[0], independent[run], distilled[run]) for run in paired]
        difference = _difference(pairs, score)
        for part, value in zip(("", "_low", "_high"), difference, strict=True):
            row[f"{name}_difference{part}"] = value
    row["paired_runs"] = len(paired)
    return row


def _difference(pairs: Sequence[tuple[int, Scored, Scored]], score: Score) -> tuple[float, ...]:
    """Mean of distilled minus independent over all clips, in points, and its 95% interval.

    Paired over folds, seeds and clips: a pair is a fold, and the same seed's independent and
    distilled predictions.
    """
    if not pairs:
        return (float("nan"),) * 3
    folds: dict[int, list[NDArray[np.float64]]] = {}
    clips: dict[int, list[str]] = {}
    for fold, before, after in pairs:
        if not clips.setdefault(fold, after.clip_ids) == before.clip_ids == after.clip_ids:
            raise ValueError(f"fold {fold} has not the same test clips in all runs")
        gained = score(after.probabilities, after.labels)
        lost = score(before.probabilities, before.labels)
        folds.setdefault(fold, []).append(100 * (gained - lost))
    found = metrics.paired_bootstrap([np.stack(seeds) for seeds in folds.values()])
    return found.mean, found.low, found.high
