"""Samples of a search as Tune trials: Tune's own domains, searchers and scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ray import tune
from ray.tune import TuneConfig
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.search import Domain, Range, Value, is_whole
from mrkd_ray.distributed.tune_trials import PART, SCORE, Job, Watch, fit

Point = dict[str, Value]

REDUCTION = 3
"""Of the samples that come to a rung of ASHA, one in so many goes on."""

RUNGS = 2
"""ASHA's first rung: 1 / REDUCTION**RUNGS of the schedule that is left after the warm-up."""

TRIES = 50
"""How often a sample is drawn anew that was drawn before."""


def rounded(point: Point) -> Point:
    """Return a point with three digits of each number, as people read it."""
    return {n: float(f"{v:.3g}") if isinstance(v, float) else v for n, v in point.items()}


def domain(name: str, of: Domain) -> Any:
    """Return a domain as Tune's."""
    if not isinstance(of, Range):
        return tune.choice(list(of))
    if is_whole(name):
        low, high = int(of.low), int(of.high) + 1
        return tune.lograndint(low, high) if of.log else tune.randint(low, high)
    return tune.loguniform(of.low, of.high) if of.log else tune.uniform(of.low, of.high)


def draw(domains: Mapping[str, Domain], seed: int) -> Callable[[], Point]:
    """Return a function that draws the next point by chance: always the same ones in order."""
    rng = np.random.default_rng(seed)
    each = {name: domain(name, of) for name, of in domains.items()}

    def next_point() -> Point:
        return rounded({name: of.sample(random_state=rng) for name, of in each.items()})

    return next_point


class Suggested(Searcher):
    """Optuna's TPE, whose points become cells; a cell is tried once.

    Args:
        domains: of the points.
        seed: of the sampler.
        before: points that were tried before, the first to be suggested.
        job_of: returns the cell of a point, and None where it was given before.
    """

    def __init__(
        self,
        domains: Mapping[str, Domain],
        seed: int,
        before: Sequence[Point],
        job_of: Callable[[Point], Job | None],
    ) -> None:
        super().__init__(metric=SCORE, mode="max")
        try:
            from optuna.samplers import TPESampler
            from ray.tune.search.optuna import OptunaSearch
        except ImportError:
            raise UserError(
                "--searcher optuna: the package optuna is not installed. "
                'Install it: pip install "mrkd-ray[search]", or use --searcher random'
            ) from None
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._inner = OptunaSearch(
            space=OptunaSearch.convert_search_space(
                {name: domain(name, of) for name, of in domains.items()}
            ),
            metric=SCORE,
            mode="max",
            points_to_evaluate=list(before) or None,
            # Of a search that is resumed other points than those that it began with.
            sampler=TPESampler(seed=seed + len(before)),
        )
        self._job_of = job_of
        self._asked: dict[str, str] = {}  # trials, as Optuna's own were called

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a restore that is never asked for

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """Take what Tune says of the metric, which is known."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next sample."""
        for i in range(TRIES):
            asked = trial_id if i == 0 else f"{trial_id}-{i}"
            point = self._inner.suggest(asked)
            if not isinstance(point, dict):
                return point
            if job := self._job_of(rounded(point)):
                self._asked[trial_id] = asked
                return {"job": job}
            self._inner.on_trial_complete(asked, error=True)  # it knows its score already
        return Searcher.FINISHED  # type: ignore[return-value]  # as Tune's own do

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing for Tune's restore, which is never asked for."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna the score of a sample that has ended, stopped early or not."""
        scored = result is not None and SCORE in result
        told = result if scored else None
        self._inner.on_trial_complete(self._asked.pop(trial_id), told, error or not scored)


def scheduler_of(name: str, warm_up: float) -> TrialScheduler | None:
    """Return Tune's scheduler.

    Args:
        name: asha or none.
        warm_up: the longest part of a schedule without a teacher: before it nothing is compared.
    """
    if name == "none":
        return None
    first = 100 * (warm_up + (1 - warm_up) / REDUCTION**RUNGS)
    return ASHAScheduler(
        time_attr=PART,
        max_t=100 - 1e-6,  # type: ignore[arg-type]  # no rung at 100: who comes there is finished
        grace_period=first,
        reduction_factor=REDUCTION,
        stop_last_trials=False,
    )


def run(
    cells: Sequence[Job] | Suggested,
    samples: int,
    scheduler: TrialScheduler | None,
    watch: Watch,
    **options: Any,
) -> dict[str, str]:
    """Run samples; return the key and the error of each that failed.

    Args:
        cells: all of them, or who suggests them.
        samples: how many are suggested.
        scheduler: see `scheduler_of`.
        watch: told what happens.
        options: see `tune_trials.fit`.
    """
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a cell that failed has no score
    asked = TuneConfig(metric=SCORE, mode="max", scheduler=scheduler)
    if isinstance(cells, Suggested):
        asked, space = replace(asked, search_alg=cells, num_samples=samples), {}
    else:
        space = {"job": tune.grid_search(list(cells))}
    return fit(space, asked, watch, replay=True, **options)
