"""What models predicted for test clips, and how two of them compare, paired. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mrkd_ray.common.arrays import Float64, Int64
from mrkd_ray.scores.ensemble import mean_probabilities
from mrkd_ray.scores.intervals import Interval, paired_bootstrap
from mrkd_ray.scores.metrics import Metric

ENSEMBLE = "ensemble"
BEST = "best branch"
"""Models of a cohort besides its branches; the best one may be another in each condition."""

Condition = Literal["independent", "distilled"]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One trained model, or an ensemble, on the test clips of one run.

    Attributes:
        name: of the branch, or `ensemble`.
        cell: its folder under `cells/`; "" for the ensemble of branches that were trained alone.
        labels: class indices [n]; multi-label 0 or 1 [n, M].
        probabilities: [n, M], float64.
    """

    name: str
    condition: Condition
    fold: int
    seed: int
    cell: str
    clip_ids: tuple[str, ...]
    labels: Int64
    probabilities: Float64


@dataclass(frozen=True)
class Pair:
    """Two models on the same fold and seed: mostly a branch, trained alone and distilled."""

    independent: Model
    distilled: Model


Runs = dict[tuple[int, int], Model]  # one model in every run, by (fold, seed)
Score = Callable[[Model], Float64]  # one figure a clip


def terms(metric: Metric) -> Score:
    """Return the score that is a metric's terms."""
    return lambda model: metric.terms(model.probabilities, model.labels)


def shared(models: Sequence[Runs]) -> list[Runs]:
    """Return of each only the runs that all have, in order of fold and seed."""
    runs = sorted(set.intersection(*map(set, models)))
    return [{run: of[run] for run in runs} for of in models]


def pairs(independent: Runs, distilled: Runs) -> list[Pair]:
    """Pair the models of each fold and seed that has an independent and a distilled one."""
    both = shared([independent, distilled])
    return [Pair(*models) for models in zip(*(of.values() for of in both), strict=True)]


def ensemble(members: Sequence[Runs]) -> Runs:
    """Return the mean of probabilities of each run that every member has."""
    members = shared(members)
    return {
        run: replace(
            first,
            name=ENSEMBLE,
            cell="",
            probabilities=mean_probabilities([member[run].probabilities for member in members]),
        )
        for run, first in members[0].items()
    }


def by_fold(models: Sequence[Model], score: Score) -> list[Float64]:
    """Return the scores of each fold's clips, [S, N]: S seeds, N clips.

    Folds, and seeds within them, are in the order of the models; clips in that of a fold's first.

    Raises:
        ValueError: the runs of a fold have not the same test clips.
    """
    folds: dict[int, list[Float64]] = {}
    clips: dict[int, tuple[str, ...]] = {}
    for model in models:
        place = {clip_id: i for i, clip_id in enumerate(model.clip_ids)}
        ids = clips.setdefault(model.fold, model.clip_ids)
        if place.keys() != set(ids):
            raise ValueError(f"fold {model.fold} has not the same test clips in all runs")
        order = np.array([place[clip_id] for clip_id in ids], dtype=np.int64)
        folds.setdefault(model.fold, []).append(score(model)[order])
    return [np.stack(seeds) for seeds in folds.values()]


def difference(pairs: Sequence[Pair], score: Score) -> Interval:
    """Return the mean of distilled minus independent, in points, with its 95 % interval.

    A paired bootstrap over seeds and clips within folds: `intervals.paired_bootstrap`.

    Raises:
        ValueError: as `by_fold`.
    """
    folds = by_fold([m for pair in pairs for m in (pair.independent, pair.distilled)], score)
    gains = [fold[1::2] - fold[::2] for fold in folds]
    return paired_bootstrap([fold for fold in gains if fold.size])


def mean(models: Sequence[Model], score: Score) -> Interval:
    """Return the mean score over clips in percent with its 95 % interval, by the same bootstrap."""
    return paired_bootstrap(by_fold(models, score))
