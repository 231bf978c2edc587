"""From which probability on a class is named. NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrkd_ray.common.arrays import Float64

PRESENT = 0.5
"""The probability from which a class is there, where nothing better is known."""

KEPT, KEPT_AT_LEAST = 0.95, 0.9
"""Parts of the clips told right that `least_known` keeps; the smaller one to turn noise away."""

ROUNDING = 1e-6
"""By so much a threshold lies below the clip that it keeps: float32 may round its probability."""

FEWEST = 5
"""Clips of a class, of either side, for a threshold of its own."""


def class_thresholds(
    probabilities: ArrayLike, truth: NDArray[np.integer], noise: ArrayLike
) -> Float64:
    """Return of each class the threshold of the highest F1, [M]; `PRESENT` where clips are few.

    It lies half way between the probabilities on both sides of it. Of equal ones the nearest to
    `PRESENT` is taken.

    Args:
        probabilities: [n, M].
        truth: 0 and 1 [n, M].
        noise: [k, M], of sounds that are of no class.
    """
    given = np.concatenate([np.asarray(probabilities), np.asarray(noise)]).astype(np.float64)
    known = np.concatenate([truth, np.zeros_like(noise, dtype=truth.dtype)])
    found = np.full(given.shape[1], PRESENT)
    for i, (scores, right) in enumerate(zip(given.T, known.T, strict=True)):
        if min(right.sum(), len(truth) - right.sum()) < FEWEST:
            continue
        levels = np.unique(scores)
        cuts = np.concatenate([levels[:1] / 2, (levels[1:] + levels[:-1]) / 2])
        order = np.sort(scores)
        hits = np.sort(scores[right == 1])
        named = len(order) - np.searchsorted(order, cuts)
        true = len(hits) - np.searchsorted(hits, cuts)
        f1 = 2 * true / (named + len(hits))
        best = cuts[np.isclose(f1, f1.max())]
        found[i] = best[np.abs(best - PRESENT).argmin()]
    return found


def least_known(
    probabilities: ArrayLike, truth: NDArray[np.integer], noise: ArrayLike
) -> Float64 | None:
    """Return of each class the probability below which a clip is taken for none of them, [M].

    Of the clips told right, `KEPT` are above it. A class for which noise is taken rises above that
    noise: first the classes that lose the fewest clips by it, while `KEPT_AT_LEAST` of all are
    kept. Noise is like few of the classes, so the others need not rise. None where no clip is told
    right.

    Args:
        probabilities: [n, M].
        truth: class indices [n].
        noise: [k, M], of sounds that are of no class.
    """
    given, other = np.asarray(probabilities), np.asarray(noise)
    right = given[given.argmax(axis=1) == truth]
    if not len(right):
        return None
    highest, named = right.max(axis=1), right.argmax(axis=1)
    low = np.quantile(highest, 1 - KEPT, method="lower") - ROUNDING
    found = np.full(given.shape[1], low, np.float64)
    spare = int((1 - KEPT_AT_LEAST) * len(right)) - int((highest < low).sum())
    rises = []
    for label in np.unique(other.argmax(axis=1)) if len(other) else ():
        above = other[other.argmax(axis=1) == label].max() + ROUNDING
        lost = int(((named == label) & (highest >= low) & (highest < above)).sum())
        if above > low:
            rises.append((lost, int(label), float(above)))
    for lost, label, above in sorted(rises):
        if lost <= spare:
            found[label], spare = above, spare - lost
    return found
