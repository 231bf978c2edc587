"""How the errors of classifiers go together: the pairwise measures of Kuncheva and Whitaker.

"Measures of Diversity in Classifier Ensembles and Their Relationship with the Ensemble Accuracy",
Machine Learning 51, 2003, Section 2.1. Each takes, of two classifiers, whether they are right on
each clip: [N], 1 or 0, as `metrics.hits`. Of several classifiers it is the mean over their pairs.
NumPy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def disagreement(first: ArrayLike, second: ArrayLike) -> float:
    """Return the part of the clips on which exactly one of two is right, in [0, 1]."""
    right, only_first, only_second, wrong = _counts(first, second)
    return (only_first + only_second) / (right + only_first + only_second + wrong)


def correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Return the correlation coefficient (phi) of being right, in [-1, 1]; NaN for a constant."""
    right, only_first, only_second, wrong = _counts(first, second)
    margins = (right + only_first) * (only_second + wrong)
    margins *= (right + only_second) * (only_first + wrong)
    return (right * wrong - only_first * only_second) / margins**0.5 if margins else float("nan")


def yule_q(first: ArrayLike, second: ArrayLike) -> float:
    """Return Yule's Q, in [-1, 1]: 0 where errors are independent; NaN where it is 0 / 0."""
    right, only_first, only_second, wrong = _counts(first, second)
    same, other = right * wrong, only_first * only_second
    return (same - other) / (same + other) if same + other else float("nan")


def _counts(first: ArrayLike, second: ArrayLike) -> tuple[int, int, int, int]:
    """Return on how many clips both are right, only the first, only the second, neither."""
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"expected [N] twice, N > 0, not {a.shape} and {b.shape}")
    return int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum())
