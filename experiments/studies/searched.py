"""What a search found beside what a grid found, and what both cost.

    python experiments/studies/searched.py results/esc10 results/searched [--fold 1]

Of both the model with the highest main score on the fold that the search looked at. Then that
model, and the ensemble of its cohort, on the other folds that both have: the main score in %, and
the search's less the grid's in points with its 95 % interval.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mrkd_ray.cells.files import read_models
from mrkd_ray.cells.intact import result_of
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import read_rows
from mrkd_ray.config.yaml_files import read_yaml
from mrkd_ray.results import printed_table
from mrkd_ray.scores import comparison, metrics
from mrkd_ray.scores.comparison import ENSEMBLE, Model, Runs


@dataclass(frozen=True)
class Found:
    """The best model of a folder on one fold.

    Attributes:
        name: of the branch.
        setting: its cohort and temperature.
        score: on that fold, in percent.
        models: it and its ensemble on the other folds.
        epochs: of all branches of all cells in the folder, finished or not.
        finished, cells: how many there are.
    """

    name: str
    setting: tuple[str, float]
    score: float
    models: dict[str, Runs]
    epochs: int
    finished: int
    cells: int


def main() -> None:
    """Print what each found, and the difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("grid", type=Path)
    parser.add_argument("search", type=Path)
    parser.add_argument("--fold", type=int, default=1)
    asked = parser.parse_args()
    try:
        grid, search = (found(folder, asked.fold) for folder in (asked.grid, asked.search))
    except UserError as error:
        raise SystemExit(str(error)) from None
    for title, one in (("grid", grid), ("search", search)):
        cohort, temperature = one.setting
        print(
            f"{title}: {one.epochs} epochs of a branch, {one.finished} of {one.cells} cells "
            f"finished. Best on fold {asked.fold}: {one.name}, {one.score:.1f} %, "
            f"in {cohort} at T = {temperature:.3g}"
        )
    print(f"The search had {search.epochs / grid.epochs:.2f} of the grid's epochs.")
    print_differences(grid, search)


def found(folder: Path, fold: int) -> Found:
    """Read a folder of results. Raises UserError: no cell of that fold is finished."""
    options = read_yaml(folder / "grid.yaml")
    epochs, cells = 0, sorted((folder / "cells").iterdir())
    results: list[tuple[dict[str, Any], dict[str, Model]]] = []
    for cell in cells:
        if (history := cell / "history.csv").exists():
            rows = sum(1 for _ in read_rows(history, ("cycle", "branch")))
            epochs += rows * (options["b"] + options["d"])
        if result := result_of(cell):
            models = read_models(cell, result["condition"], result["fold"], result["seed"])
            results.append((result, models))
    candidates = [
        (score_of(model), name, result)
        for result, models in results
        if result["fold"] == fold
        for name, model in models.items()
        if name != ENSEMBLE
    ]
    if not candidates:
        raise UserError(f"{folder}: no finished cell of fold {fold}")
    score, name, best = max(candidates, key=lambda each: each[0])
    of_setting: dict[str, Runs] = {name: {}, ENSEMBLE: {}}
    for result, models in results:
        if result["fold"] != fold and setting(result) == setting(best):
            for each, runs in of_setting.items():
                run = result["fold"], result["seed"]
                if run in runs:
                    raise UserError(
                        f"{folder}: several cells are of {setting(best)}, fold {run[0]}"
                    )
                runs[run] = models[each]
    return Found(name, setting(best), score, of_setting, epochs, len(results), len(cells))


def setting(result: dict[str, Any]) -> tuple[str, float]:
    """Return what tells settings apart in a grid of cohorts and temperatures."""
    return result["cohort"], result["temperature"]


def score_of(model: Model) -> float:
    """Return the main score in percent."""
    score = comparison.terms(metrics.of(model.labels)[0])
    return 100 * float(score(model).mean())


def print_differences(grid: Found, search: Found) -> None:
    """Print the best branch of each and its ensemble on the other folds."""
    gains, rows = [], []
    for title, names in (
        ("best branch", (grid.name, search.name)),
        (ENSEMBLE, (ENSEMBLE, ENSEMBLE)),
    ):
        both = [one.models[name] for one, name in zip((grid, search), names, strict=True)]
        pairs = comparison.pairs(*both)
        metric = metrics.of(pairs[0].distilled.labels)[0]
        score = comparison.terms(metric)
        means = [comparison.mean(list(runs.values()), score) for runs in comparison.shared(both)]
        gains.append(comparison.difference(pairs, score))
        shown = [f"{mean.mean:.1f} {mean.ends_text}" for mean in means]
        rows.append((title, *shown, *printed_table.cells(gains[-1])))
    table = Table(metric.title, "grid, %", "search, %", "search less grid [95%]", "")
    for row in rows:
        table.add_row(*row)
    folds = ", ".join(str(pair.distilled.fold) for pair in pairs)
    clips = sum(len(pair.distilled.labels) for pair in pairs)
    table.caption = f"Folds {folds}: {clips} clips. {printed_table.kinds(gains)}"
    Console().print(table)


if __name__ == "__main__":
    main()
