"""Average precision of multi-label scores: mAP and lwlrap, a term a clip. numpy only, float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mrkd_ray.common.arrays import Float64, Int64


def average_precision_terms(scores: ArrayLike, labels: ArrayLike) -> Float64:
    """Return [N], whose mean is mAP: average precision of each class, over classes with a clip.

    The mean is scikit-learn's `average_precision_score`, equal scores included. A term is mAP plus
    how fast it grows with the clip's weight, so that, to first order, the mean of terms drawn again
    is the mAP of the clips drawn again (the infinitesimal jackknife: Efron, 1982).

    Args:
        scores: probabilities or any scores, [N, M].
        labels: 1 for each label of a clip, else 0: integers [N, M].

    Raises:
        ValueError: NaN scores, shapes or labels that do not fit, or no label at all.
    """
    hot, scores = _checked(labels, scores)
    tested = hot.any(axis=0)
    ranked = _rank(scores.T[tested], hot.T[tested])
    relevant, precision, seen = ranked.relevant, ranked.precision, ranked.ends + 1.0
    count = relevant.sum(axis=1, keepdims=True)
    mean = (relevant * precision).sum(axis=1, keepdims=True) / count
    # A clip counts in the precision at each label that is ranked where it is or after it.
    behind = relevant * ranked.from_here(relevant / seen)
    behind -= ranked.from_here(relevant * precision / seen)
    slopes = (relevant * (precision - mean) + behind) / count
    terms = np.empty_like(slopes)
    np.put_along_axis(terms, ranked.order, mean + len(hot) * slopes, axis=1)
    means: Float64 = terms.mean(axis=0)
    return means


def lwlrap_terms(scores: ArrayLike, labels: ArrayLike) -> Float64:
    """Return [N], whose mean is lwlrap, label-weighted label-ranking average precision.

    It is the mean over all labels of all clips of the precision at the label's rank in its clip
    (DCASE 2019, task 2): scikit-learn's `label_ranking_average_precision_score`, clips weighted by
    their number of labels. Terms, arguments and errors as in `average_precision_terms`.
    """
    hot, scores = _checked(labels, scores)
    ranked = _rank(scores, hot)
    precision = (ranked.relevant * ranked.precision).sum(axis=1)
    count = hot.sum(axis=1)
    mean = precision.sum() / count.sum()
    terms: Float64 = mean + (precision - mean * count) / count.mean()
    return terms


@dataclass(frozen=True)
class _Ranked:
    """Rows of scores from the highest down; all [R, K].

    Attributes:
        order: the places that they had.
        ends: the last rank with the same score.
        relevant: 1 or 0.
        precision: part of what scores as much or more that is relevant.
    """

    order: Int64
    ends: Int64
    relevant: Float64
    precision: Float64

    def from_here(self, values: Float64) -> Float64:
        """Sum over the ranks from each one on, those of equal scores before it included."""
        ranks = np.arange(self.ends.shape[1])
        first = np.ones(self.ends.shape, bool)
        first[:, 1:] = self.ends[:, :-1] < ranks[1:]
        starts = np.maximum.accumulate(np.where(first, ranks, 0), axis=1)
        sums: Float64 = values[:, ::-1].cumsum(axis=1)[:, ::-1]
        return np.take_along_axis(sums, starts, axis=1)


def _rank(scores: Float64, relevant: Float64) -> _Ranked:
    order = np.argsort(-scores, axis=1, kind="stable")
    scores = np.take_along_axis(scores, order, axis=1)
    relevant = np.take_along_axis(relevant, order, axis=1)
    last = scores.shape[1] - 1
    ends = np.full(scores.shape, last)
    ends[:, :-1] = np.where(scores[:, :-1] > scores[:, 1:], np.arange(last), last)
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    found = np.take_along_axis(relevant.cumsum(axis=1), ends, axis=1)
    return _Ranked(order, ends, relevant, found / (ends + 1.0))


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[Float64, Float64]:
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if scores.ndim != 2 or labels.shape != scores.shape:
        raise ValueError(f"expected scores and labels [N, M], not {scores.shape}, {labels.shape}")
    if np.isnan(scores).any():
        raise ValueError("NaN among the scores")
    if not np.isin(labels, (0, 1)).all() or not labels.any():
        raise ValueError("labels must be 0 or 1, and not all 0")
    return labels.astype(np.float64), scores
