"""The models that a run has trained, which of them are compared, and which one comes first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from mrkd_ray.cells.cell import named
from mrkd_ray.inference.model_folder import Size, read_size
from mrkd_ray.scores import metrics
from mrkd_ray.scores.comparison import ENSEMBLE, Condition
from mrkd_ray.scores.metrics import Metric

Run = tuple[int, int]  # fold and seed


@dataclass(frozen=True, kw_only=True)
class TrainedKind:
    """A branch or an ensemble under one condition, in every run that has trained it.

    Attributes:
        variants: those that it belongs to, of a grid that has some; a baseline may serve several.
        temperature: None of an independent one.
        branches: `REPRESENTATION:NETWORK` of its members by their names; several are an ensemble.
        cohort: of a distilled one, in which it was taught.
        cells: folders under `cells/`, of each run one for each member, in order.
        scores: of each run the main metric and the second one, in [0, 1].
        metrics: both of them.
    """

    condition: Condition
    variants: tuple[str, ...]
    temperature: float | None
    branches: Mapping[str, str]
    cohort: str
    cells: Mapping[Run, tuple[str, ...]]
    scores: Mapping[Run, tuple[float, float]]
    metrics: tuple[Metric, Metric]

    @property
    def is_ensemble(self) -> bool:
        """Whether it has several members."""
        return len(self.branches) > 1

    @property
    def in_one_cell(self) -> bool:
        """Whether it is an ensemble whose members were trained together."""
        return self.is_ensemble and self.condition == "distilled"

    @property
    def title(self) -> str:
        """For people: `ensemble of a:b + c:d, distilled`, `a:b, independent`."""
        members = " + ".join(self.branches.values())
        words = [f"ensemble of {members}" if self.is_ensemble else members, self.condition_text]
        if self.condition == "distilled" and not self.is_ensemble and "+" in self.cohort:
            words[1] += f" in {self.cohort.replace('+', ' + ')}"
        if known := [name for name in self.variants if name]:
            words.append(f"variant{'s' * (len(known) > 1)} {', '.join(known)}")
        return ", ".join(words)

    @property
    def condition_text(self) -> str:
        """The condition and, where it is not 1, the temperature: `distilled at T = 2`."""
        at = "" if self.temperature in (None, 1) else f" at T = {self.temperature:g}"
        return self.condition + at

    @property
    def first_run(self) -> Run:
        """The first fold's first seed: not the one with the best score, which is luck."""
        return min(self.cells)

    def folders(self, results: Path) -> list[Path]:
        """Return the folders of its members, as trained in the first run."""
        cells = self.cells[self.first_run]
        return [
            branch_folder(results, cell, name)
            for name, cell in zip(self.branches, cells, strict=True)
        ]

    def mean_scores(self) -> tuple[float, float]:
        """Return the means of both metrics over all runs."""
        main, other = np.mean(list(self.scores.values()), axis=0)
        return float(main), float(other)

    def deviations(self) -> tuple[float | None, float | None]:
        """Return the standard deviations of both metrics over runs; None of a single one."""
        if len(self.scores) == 1:
            return None, None
        main, other = np.std(list(self.scores.values()), axis=0, ddof=1)
        return float(main), float(other)


def branch_folder(results: Path, cell: str, name: str) -> Path:
    """Return the folder of a trained branch of a cell."""
    return results / "cells" / cell / "branches" / name


def trained_kinds(rows: Iterable[Mapping[Any, Any]]) -> list[TrainedKind]:
    """Return the models of `results.csv`, in its order, each once.

    An independent branch has a row for each variant that it is a baseline of: it is one model where
    its cells are the same.
    """
    found: dict[tuple[Any, ...], dict[Run, Mapping[Any, Any]]] = {}
    for row in rows:
        alone = row["condition"] == "independent"
        name = row["branch"] or ENSEMBLE
        # The cohort of a branch that was trained alone is itself.
        temperature = None if alone else float(row["temperature"])
        lost = row.get("lost", "") if name == ENSEMBLE else ""  # it is of the others
        key = (row["condition"], row["variant"], row["cohort"], temperature, name, lost)
        found.setdefault(key, {})[int(row["fold"]), int(row["seed"])] = row
    distinct: dict[Any, TrainedKind] = {}
    for (condition, variant, cohort, temperature, name, lost), runs in found.items():
        first = next(iter(runs.values()))
        if name == ENSEMBLE:
            gone = lost.split("+")
            branches = {name: spec for name, spec in named(cohort).items() if name not in gone}
        else:
            branches = {name: f"{first['representation']}:{first['network']}"}
        cells = {
            run: tuple(
                str(found[condition, variant, branches[member], None, member, ""][run]["cell"])
                if name == ENSEMBLE and condition == "independent"
                else str(row["cell"])
                for member in branches
            )
            for run, row in runs.items()
        }
        main, second, *_ = metrics.named(first)
        scores = {
            run: (float(row[main.name]), float(row[second.name])) for run, row in runs.items()
        }
        kind = TrainedKind(
            condition=condition,
            variants=(variant,),
            temperature=temperature,
            branches=branches,
            cohort=cohort,
            cells=cells,
            scores=scores,
            metrics=(main, second),
        )
        same = (condition, tuple(branches), temperature, tuple(cells.items()))
        if other := distinct.get(same):
            variants = tuple(dict.fromkeys((*other.variants, variant)))
            kind = TrainedKind(**{**vars(other), "variants": variants})
        distinct[same] = kind
    return list(distinct.values())


def comparable(kinds: Sequence[TrainedKind]) -> list[TrainedKind]:
    """Return those that were trained in every run that the one with most runs was.

    The others' scores are of fewer folds or seeds, and so of other clips.
    """
    most = max((set(kind.cells) for kind in kinds), key=len, default=set())
    return [kind for kind in kinds if set(kind.cells) >= most]


def standing(scores: tuple[float, float], folders: Sequence[Path]) -> tuple[float, float, float]:
    """Return what decides which model comes first: the one of which this is highest.

    The main metric; where it is equal the second one; where that is too, the fewer parameters.

    Args:
        scores: means of both metrics.
        folders: of its members.
    """
    found = size(folders)
    main, other = (round(score, 9) for score in scores)
    return main, other, -found.parameters if found else -inf


def size(folders: Sequence[Path]) -> Size | None:
    """Return the size of models together; None where a file is missing or damaged."""
    from safetensors import SafetensorError

    try:
        sizes = [read_size(folder) for folder in folders]
    except (OSError, SafetensorError):
        return None
    return Size(*map(sum, zip(*sizes, strict=True)))
