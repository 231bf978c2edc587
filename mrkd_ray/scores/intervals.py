"""Intervals: how they are computed, how they are printed, and when a difference counts.

The one place that decides. NumPy, and SciPy for a t interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mrkd_ray.common.arrays import Float64

IntervalKind = Literal["", "bootstrap over clips", "bootstrap over clips and seeds", "t over runs"]
Mark = Literal["", "higher", "lower", "ns"]

_CHUNK = 1 << 20  # draws held in memory at once


@dataclass(frozen=True)
class Interval:
    """A mean, or a mean difference, with its 95 % interval.

    Attributes:
        mean, low, high: in percent, or points; NaN where there is nothing to compare.
        kind: what the interval is of; "" where there is none.
    """

    mean: float
    low: float
    high: float
    kind: IntervalKind

    @property
    def mark(self) -> Mark:
        """Whether the difference is `higher` or `lower` than 0; `ns`, not significant: neither.

        Decided on the ends as printed, so equal texts have equal marks. "" where an end is NaN.
        """
        if isnan(self.low) or isnan(self.high):
            return ""
        low, high = _rounded(self.low), _rounded(self.high)
        return "higher" if low > 0 else "lower" if high < 0 else "ns"

    @property
    def mean_text(self) -> str:
        """The mean as a difference, with its sign: `+0.9`."""
        return signed(self.mean)

    @property
    def ends_text(self) -> str:
        """Both ends: `[0.0, 1.7]`."""
        return f"[{_rounded(self.low):.1f}, {_rounded(self.high):.1f}]"


NO_INTERVAL = Interval(nan, nan, nan, "")


def signed(value: float) -> str:
    """Return a difference in points with its sign and one decimal; 0 is `+0.0`."""
    return f"{_rounded(value):+.1f}"


def _rounded(value: float) -> float:
    """Return the value to one decimal, as Python prints it; never -0.0."""
    return round(float(value), 1) + 0.0  # NumPy's own round would take 0.05 to 0.0


def bootstrap_kind(*, several_seeds: bool) -> IntervalKind:
    """Return what a bootstrap draws: seeds too, where a fold has several."""
    return "bootstrap over clips and seeds" if several_seeds else "bootstrap over clips"


def paired_bootstrap(differences: Sequence[ArrayLike], seed: int = 0, n: int = 2000) -> Interval:
    """Return the mean difference over all clips with a 95% percentile interval, in points.

    The paired, crossed bootstrap: in every fold, seeds and clips are drawn again with replacement,
    independently of each other; the two models' scores of a seed and clip stay together. Art Owen
    (2007) calls it the pigeonhole bootstrap and shows that it errs on the wide side, if there are
    many of both. S seeds give (S - 1) / S of the variance between seeds; one gives none of it.

    Args:
        differences: for each fold [S, N]: S seeds, N clips, as parts of 1; for example `hits` of
            one model less `hits` of the other.
        seed: of the draws.
        n: number of draws.

    Raises:
        ValueError: no clips, wrong shapes, or differences that are not finite.
    """
    folds = [np.asarray(fold, np.float64) for fold in differences]
    if not folds or any(fold.ndim != 2 or fold.size == 0 for fold in folds):
        shapes = [fold.shape for fold in folds]
        raise ValueError(f"expected an array [S, N], S > 0, N > 0, for each fold, not {shapes}")
    if not all(np.isfinite(fold).all() for fold in folds):
        raise ValueError("the differences are not all finite")
    rng = np.random.default_rng(seed)
    sums = np.zeros(n)
    for fold in folds:
        seeds, size = fold.shape
        rows = max(1, _CHUNK // size)
        for begin in range(0, n, rows):
            draws = sums[begin : begin + rows]
            drawn = rng.integers(0, seeds, (len(draws), seeds), dtype=np.int32)
            share = (drawn[:, :, None] == np.arange(seeds)).mean(axis=1)  # of each seed, [draws, S]
            chosen = rng.integers(0, size, (len(draws), size), dtype=np.int32)
            draws += np.take_along_axis(share @ fold, chosen, axis=1).sum(axis=1)
    clips = sum(fold.shape[1] for fold in folds)
    low, high = np.quantile(sums / clips, (0.025, 0.975))
    mean = sum(float(fold.mean(axis=0).sum()) for fold in folds) / clips
    kind = bootstrap_kind(several_seeds=any(len(fold) > 1 for fold in folds))
    return Interval(100 * mean, 100 * float(low), 100 * float(high), kind)


def t_interval(differences: Float64) -> Interval:
    """Return the mean difference over runs with Student's 95% interval, in points.

    Args:
        differences: [R], one of each run, as parts of 1. A single one has no interval: NaN.
    """
    from scipy import stats

    mean = float(differences.mean())
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * standard_error(differences)
    return Interval(100 * mean, 100 * (mean - half), 100 * (mean + half), "t over runs")


def standard_error(values: Float64) -> float:
    """Return that of the mean of values [N]; NaN of a single one."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
