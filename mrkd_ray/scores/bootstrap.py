"""The uncertainty of a difference or a mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mrkd_ray.common.arrays import Float64

_CHUNK = 1 << 20  # draws held in memory at once


@dataclass(frozen=True)
class Difference:
    """A mean difference with its 95% interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(differences: Sequence[ArrayLike], seed: int = 0, n: int = 2000) -> Difference:
    """Return the mean difference over all clips with a 95% percentile interval.

    The paired, crossed bootstrap: in every fold, seeds and clips are drawn again with replacement,
    independently of each other; the two models' scores of a seed and clip stay together. Art Owen
    (2007) calls it the pigeonhole bootstrap and shows that it errs on the wide side, if there are
    many of both. S seeds give (S - 1) / S of the variance between seeds; one gives none of it.

    Args:
        differences: for each fold [S, N]: S seeds, N clips; for example `hits` of one model less
            `hits` of the other.
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
    return Difference(mean, float(low), float(high))


def standard_error(values: Float64) -> float:
    """Return that of the mean of values [N]; NaN of a single one."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
