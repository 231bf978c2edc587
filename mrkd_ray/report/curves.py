"""The numbers behind the figures. numpy and scikit-learn only; what is drawn lies in `figures`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.common.arrays import Float64
from mrkd_ray.report.grid_results import GridCohort, GridResults
from mrkd_ray.scores.comparison import Condition, Model

PHASES = ("train", "soft_labels", "held_out_accuracy", "distil", "evaluate", "checkpoint")
"""In the order in which a cycle goes through them."""


def agreement(predicted: Sequence[NDArray[np.int16]]) -> Float64:
    """Return [cycles]: the part of the clips on which two branches predict the same class.

    Args:
        predicted: of each branch, [cycles, n]; of more than two, the mean over all pairs of them.
    """
    same = [(a == b).mean(axis=1) for a, b in combinations(predicted, 2)]
    found: Float64 = np.mean(same, axis=0)
    return found


def cycles_of_all(results: GridResults, models: Iterable[Model]) -> int:
    """Return how many cycles all of these runs had: some may have stopped early."""
    return min(results.history(model.cell)["cycle"].nunique() for model in models)


def agreements(results: GridResults, cohort: GridCohort) -> dict[Condition, Float64]:
    """Return the agreement within the cohort's runs under each condition, [runs, cycles].

    Branches that were trained alone are put together by fold and seed. Where runs stopped early,
    cycles are those that all had. Both conditions have the
    runs in which every branch was; without such a run, there is only the distilled one.
    """
    branches = results.branches(cohort)
    runs_of = (model for own in branches.values() for runs in own for model in runs)
    cycles = cycles_of_all(results, runs_of)
    found: dict[Condition, Float64] = {}
    if "independent" in branches:
        runs = zip(*branches["independent"], strict=True)
        found["independent"] = np.array(
            [
                agreement([results.predicted(model.cell)[:cycles, 0] for model in run])
                for run in runs
            ]
        )
    together = [results.predicted(model.cell)[:cycles] for model in branches["distilled"][0]]
    found["distilled"] = np.array([agreement(list(np.moveaxis(run, 1, 0))) for run in together])
    return found


@dataclass(frozen=True)
class Curves:
    """One branch's figures after every cycle, in all runs: [runs, cycles] each.

    Attributes:
        loss: L_ce of the last epoch of single branch training; trained alone, of the cycle.
        distil_ce, distil_kl: the terms of Eq. 5 of the last epoch of distillation; None alone.
        accuracy: on the test clips, in [0, 1]; multi-label: mAP.
    """

    loss: Float64
    distil_ce: Float64 | None
    distil_kl: Float64 | None
    accuracy: Float64


def learning_curves(
    results: GridResults, models: Sequence[Model], cycles: int | None = None
) -> Curves:
    """Return the learning curves of a branch's runs, by default over all cycles."""

    def column(name: str) -> Float64:
        found = []
        for model in models:
            history = results.history(model.cell)
            found.append(history.loc[history["branch"] == model.name, name].to_numpy(np.float64))
            found[-1] = found[-1][:cycles]
        return np.array(found)

    history = results.history(models[0].cell)
    distilled = models[0].condition == "distilled"
    # b = 0: no single branch training, so no loss of it
    loss = column("loss_ce") if "loss_ce" in history else np.full_like(column("lr"), np.nan)
    return Curves(
        loss=loss,
        distil_ce=column("loss_distil_ce") if distilled else None,
        distil_kl=column("loss_distil_kl") if distilled else None,
        accuracy=column(results.metrics[0].name),
    )


def phase_seconds(results: GridResults, models: Sequence[Model]) -> tuple[dict[str, float], float]:
    """Return a branch's seconds in each of `PHASES` and of the whole cell: means over runs."""
    phases: dict[str, list[float]] = {}
    walls = []
    for model in models:
        rows = results.history(model.cell)
        rows = rows[rows["branch"] == model.name]
        for phase in PHASES:
            if f"seconds_{phase}" in rows:
                phases.setdefault(phase, []).append(float(rows[f"seconds_{phase}"].sum()))
        walls.append(float(rows["seconds"].sum()))
    return {phase: float(np.mean(values)) for phase, values in phases.items()}, float(
        np.mean(walls)
    )
