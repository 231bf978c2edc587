"""What a grid measured, read from its folder alone: without its data set, PyTorch or Ray."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.cell import named
from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import LARGEST, Damaged, read_array, read_json
from mrkd_ray.config.grid_files import read_written
from mrkd_ray.results.tables import read_table
from mrkd_ray.scores import comparison, metrics
from mrkd_ray.scores.comparison import ENSEMBLE, Condition, Model, Pair, Runs
from mrkd_ray.scores.metrics import Metric

CELL_FILES = ("result.json", "history.csv", "predictions.csv", "predicted.npy")
COLUMNS = (
    "variant",
    "epochs",
    "folds",
    "seeds",
    "paired_runs",
)  # of table.csv, that older versions lack
DRAWN_TEMPERATURE = 2.0  # between those of the paper's grids: a choice by no score


@dataclass(frozen=True)
class GridCohort:
    """The branches of a cohort in one variant ("" where a grid has none) at one temperature.

    `temperature` is None of branches that were trained alone only.
    """

    variant: str
    name: str
    temperature: float | None
    branches: tuple[str, ...]

    @property
    def title(self) -> str:
        """For people: `a:b + c:d, T = 2`."""
        variant = self.variant and f", {self.variant}"
        at = "" if self.temperature is None else f", T = {self.temperature:g}"
        return f"{self.name.replace('+', ' + ')}{variant}{at}"

    @property
    def specs(self) -> list[tuple[str, str]]:
        """Representation and network of each branch."""
        parts = [spec.partition(":") for spec in self.name.split("+")]
        return [(representation, network) for representation, _, network in parts]

    @property
    def models(self) -> tuple[str, ...]:
        """Its branches and, where it has several, their ensemble."""
        return (*self.branches, ENSEMBLE) if len(self.branches) > 1 else self.branches


@dataclass(frozen=True)
class GridResults:
    """One grid's folder.

    Attributes:
        folder: as given.
        config: grid.yaml.
        environment: environment.json.
        tidy: results.csv, a row per variant, model, fold and seed; `metrics` in [0, 1].
        table: table.csv, a row per variant, cohort, temperature and model, in percent.
        classes: names, in the order of the class indices.
    """

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    tidy: pd.DataFrame
    table: pd.DataFrame
    classes: tuple[str, ...]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What models are scored by."""
        return metrics.named(self.table.columns)

    def asked(self, variant: str) -> dict[str, Any]:
        """Return the configuration of one variant; of "" the grid's."""
        found: dict[str, Any] = self.config | self.config["variants"].get(variant, {})
        return found

    @property
    def stops_early(self) -> bool:
        """Whether cells may have stopped before their last cycle."""
        return any(self.asked(v).get("early_stop") for v in ("", *self.config["variants"]))

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have several labels."""
        return self.metrics[0] == metrics.MULTI_LABEL[0]

    @cached_property
    def taken_over(self) -> dict[str, dict[str, Any]]:
        """What each cell that another grid had finished was made with, by its folder's name."""
        found = {}
        for cell in self.tidy["cell"].unique():
            path = self.folder / "cells" / cell / "environment.json"
            if cell and path.is_file():
                found[cell] = read_json(path, "commit", "date")
        return found

    @cached_property
    def cohorts(self) -> tuple[GridCohort, ...]:
        """The finished cohorts, in the grid's order, each at one temperature.

        Of several it is the one nearest to 2, the lower of two equally near: a rule
        that looks at no score.
        """
        found = []
        distilled = self.tidy[self.tidy["condition"] == "distilled"]
        for (variant, name), rows in distilled.groupby(["variant", "cohort"], sort=False):
            temperature = min(
                sorted(rows["temperature"].unique()), key=lambda t: abs(t - DRAWN_TEMPERATURE)
            )
            branches = rows.loc[rows["model"] == "branch", "branch"].unique()
            found.append(GridCohort(str(variant), str(name), float(temperature), tuple(branches)))
        return tuple(found)

    @cached_property
    def alone(self) -> tuple[GridCohort, ...]:
        """The cohorts of a grid in which nothing was distilled, of which a run is finished."""
        tidy = self.tidy
        if (tidy["condition"] == "distilled").any():
            return ()
        found = [
            GridCohort(variant, name, None, tuple(named(name)))
            for variant in tidy["variant"].unique()
            for name in map("+".join, self.config["cohorts"])
        ]
        return tuple(c for c in found if all(self.independent(c, name) for name in c.models))

    def distilled(self, cohort: GridCohort, name: str) -> Runs:
        """One model of a cohort in every run, by (fold, seed)."""
        rows = self.tidy[
            (self.tidy["condition"] == "distilled")
            & (self.tidy["variant"] == cohort.variant)
            & (self.tidy["cohort"] == cohort.name)
            & (self.tidy["temperature"] == cohort.temperature)
            & (self.tidy["branch"] == ("" if name == ENSEMBLE else name))
        ]
        return {(row["fold"], row["seed"]): self._model(row) for row in rows.to_dict("records")}

    def independent(self, cohort: GridCohort, name: str) -> Runs:
        """Its twin that was trained alone, by (fold, seed); of the ensemble, the mean of them."""
        if name == ENSEMBLE:
            return comparison.ensemble([self.independent(cohort, b) for b in cohort.branches])
        rows = self.tidy[
            (self.tidy["condition"] == "independent")
            & (self.tidy["variant"] == cohort.variant)
            & (self.tidy["branch"] == name)
        ]
        return {(row["fold"], row["seed"]): self._model(row) for row in rows.to_dict("records")}

    def pairs(self, cohort: GridCohort, name: str) -> list[Pair]:
        """Both of them, of the runs that have both, by fold and seed."""
        return comparison.pairs(self.independent(cohort, name), self.distilled(cohort, name))

    def conditions(self, cohort: GridCohort, name: str) -> dict[Condition, list[Model]]:
        """Return a model's runs by condition: those that were made under both conditions.

        Where no run was, those of the one condition that there is.
        """
        if cohort.temperature is None:
            return {"independent": list(self.independent(cohort, name).values())}
        if pairs := self.pairs(cohort, name):
            return {
                "independent": [pair.independent for pair in pairs],
                "distilled": [pair.distilled for pair in pairs],
            }
        return {"distilled": list(self.distilled(cohort, name).values())}

    def branches(self, cohort: GridCohort) -> dict[Condition, list[list[Model]]]:
        """Every branch under both, in the runs that all have; without such, distilled alone."""
        alone = [self.independent(cohort, name) for name in cohort.branches]
        together = [self.distilled(cohort, name) for name in cohort.branches]
        both = [list(runs.values()) for runs in comparison.shared([*alone, *together])]
        if not both[0]:
            return {"distilled": [list(runs.values()) for runs in together]}
        return {"independent": both[: len(alone)], "distilled": both[len(alone) :]}

    def history(self, cell: str) -> pd.DataFrame:
        """A row per cycle and branch: losses, `metrics` in [0, 1], `seconds_<phase>`.

        Raises Damaged.
        """
        found: pd.DataFrame = self._histories(cell)
        return found

    def predicted(self, cell: str) -> NDArray[np.int16]:
        """Classes predicted after every cycle, [cycles, branches, n]; clips as in a `Model`."""
        array: NDArray[np.int16] = read_array(
            self.folder / "cells" / cell / "predicted.npy", "int16", 3
        )
        return array

    def _model(self, row: dict[Any, Any]) -> Model:
        models = self._models(row["cell"], row["condition"], row["fold"], row["seed"])
        found: Model = models[row["branch"] or ENSEMBLE]
        return found

    @cached_property
    def _histories(self) -> Any:
        """The function of a cell that reads its history, once for all curves and branches."""
        return functools.cache(lambda cell: cell_files.history_table(self.folder / "cells" / cell))

    @cached_property
    def _models(self) -> Any:
        """The function of a cell, its condition, fold and seed that reads its models, once."""
        return functools.cache(
            lambda cell, *run: cell_files.read_models(self.folder / "cells" / cell, *run)
        )


def read_results(folder: Path) -> GridResults:
    """Read a grid's folder.

    Raises:
        UserError: no such folder; the grid has not finished a cohort; a file is missing; its table
            is an older version's.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a grid's, for example results/demo")
    resume = f"go on with: mrkd grid {folder / 'grid.yaml'} --resume"
    try:
        return _read(folder, resume)
    except Damaged as error:
        raise UserError(f"{error}. What is damaged is made anew: {resume}") from None


def _read(folder: Path, resume: str) -> GridResults:
    tidy, table = read_table(folder / "results.csv"), read_table(folder / "table.csv")
    if tidy is None or table is None:
        raise UserError(f"{folder}: the grid has not finished a cohort yet; {resume}")
    if lacking := [name for name in COLUMNS if name not in table]:
        raise UserError(
            f"{folder / 'table.csv'}: no column {', '.join(lacking)}: an older version wrote it. "
            "Report it with that version, or run the grid again."
        )
    used = [cell for cell in tidy["cell"].unique() if cell]
    wanted = [folder / "cells" / cell / name for cell in used for name in CELL_FILES]
    wanted += [folder / "grid.yaml", folder / "environment.json"]
    missing = [str(path) for path in wanted if not path.is_file()]
    if missing:
        listed = "\n  ".join(missing)
        raise UserError(
            f"{folder}: {len(missing)} file(s) missing. Delete the folders of these cells, then "
            f"{resume}\n  {listed}"
        )
    for cell in used:
        manifest.check(folder / "cells" / cell, CELL_FILES)
    first = manifest.content(folder / "cells" / used[0], cell_files.PREDICTIONS, LARGEST)
    columns = next(csv.reader([first.partition(b"\n")[0].decode("utf-8", "replace")]), [])
    return GridResults(
        folder=folder,
        config=read_written(folder / "grid.yaml"),
        environment=read_json(folder / "environment.json", "packages"),
        tidy=tidy,
        table=table,
        classes=tuple(name.removeprefix("p_") for name in columns if name.startswith("p_")),
    )
