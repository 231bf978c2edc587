"""Figures at clip level, and the uncertainty of a difference. numpy only, float64.

Of a model that gives a clip one label: accuracy, mAP@3, balanced accuracy and macro F1. Of a
multi-label one: mAP and lwlrap. Each has a term a clip, and is the mean of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mrkd_ray.common.arrays import Float64, Int64
from mrkd_ray.scores.average_precision import average_precision_terms, lwlrap_terms

if TYPE_CHECKING:
    import pandas as pd


def hits(scores: ArrayLike, labels: ArrayLike) -> Float64:
    """Return [N]: 1 where the highest score is the label's, else 0.

    Args:
        scores: probabilities or any scores, [N, M]; of equal ones the lower class index counts as
            the higher.
        labels: integers in 0..M-1, [N].

    Raises:
        ValueError: NaN scores, or shapes or labels that do not fit.
    """
    found: Float64 = (_ranks(scores, labels) == 0).astype(np.float64)
    return found


def reciprocal_rank_at_3(scores: ArrayLike, labels: ArrayLike) -> Float64:
    """Return [N]: 1, 1/2 or 1/3 where the label has the first, second or third score, else 0.

    Arguments and errors as `hits`.
    """
    ranks = _ranks(scores, labels)
    return np.where(ranks < 3, 1.0 / (ranks + 1), 0.0)


def balanced_hits(scores: ArrayLike, labels: ArrayLike) -> Float64:
    """Return [N]: `hits`, weighted so that every class that has clips counts the same.

    Their mean is the mean of the classes' recalls: the balanced accuracy. Where all classes have as
    many clips, they are the hits. Arguments and errors as `hits`.
    """
    right = hits(scores, labels)
    if right.size == 0:
        return right
    _, own, clips = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    return right * (right.size / len(clips)) / clips[own]


def f1_hits(scores: ArrayLike, labels: ArrayLike) -> Float64:
    """Return [N]: `hits`, weighted so that their mean is the macro F1.

    That is the mean over the classes that have clips of 2 TP / (clips + predictions of the class).
    Arguments and errors as `hits`.
    """
    right = hits(scores, labels)
    if right.size == 0:
        return right
    labels, predicted = np.asarray(labels), np.asarray(scores).argmax(axis=1)
    counts = np.bincount(labels, minlength=predicted.max() + 1)
    both = counts + np.bincount(predicted, minlength=len(counts))
    weights: Float64 = 2 * right.size / np.count_nonzero(counts) / both[labels]
    return right * weights


@dataclass(frozen=True)
class Metric:
    """A figure of a model in [0, 1]: the mean of its terms [N], which are at least 0.

    Attributes:
        name: in files and columns.
        title: for people.
        terms: of scores [N, M] and labels, one for each clip.
    """

    name: str
    title: str
    terms: Callable[[ArrayLike, ArrayLike], Float64]


SINGLE_LABEL = (
    Metric("accuracy", "accuracy", hits),
    Metric("map3", "mAP@3", reciprocal_rank_at_3),
    Metric("balanced_accuracy", "balanced", balanced_hits),
    Metric("macro_f1", "macro F1", f1_hits),
)
MULTI_LABEL = (
    Metric("map", "mAP", average_precision_terms),
    Metric("lwlrap", "lwlrap", lwlrap_terms),
)


def of(labels: ArrayLike) -> tuple[Metric, ...]:
    """Return the metrics for labels: class indices [N], or multi-hot [N, M]. The first is the main.

    mAP@3 with one label a clip is the mean of `reciprocal_rank_at_3`.
    """
    return MULTI_LABEL if np.ndim(labels) == 2 else SINGLE_LABEL


def named(names: Iterable[str]) -> tuple[Metric, ...]:
    """Return the metrics of a table by the names of its columns, such as `map3_difference`.

    At least the first two: tables of earlier versions have no more.
    """
    names = list(names)
    multi = any(name == "lwlrap" or name.startswith("lwlrap_") for name in names)
    known = MULTI_LABEL if multi else SINGLE_LABEL
    return known[:2] + tuple(
        metric
        for metric in known[2:]
        if any(name == metric.name or name.startswith(f"{metric.name}_") for name in names)
    )


def shown(table: Mapping[str, Any] | pd.DataFrame) -> tuple[Metric, ...]:
    """Return the metrics that people are shown of a table's columns or a row's fields.

    Balanced accuracy and macro F1 are left out where the former is the accuracy: all classes have
    as many clips.
    """
    columns = {str(name): values for name, values in table.items()}
    same = all(
        np.allclose(
            values, columns[name.removeprefix("balanced_")], rtol=0, atol=1e-9, equal_nan=True
        )
        for name, values in columns.items()
        if re.fullmatch(r"balanced_accuracy(_independent|_distilled)?", name)
    )
    return named(columns)[:2] if same else named(columns)


def measure(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Return each metric for these labels by its name, in [0, 1].

    Raises:
        ValueError: as the terms; also where there are no clips.
    """
    return {metric.name: _mean(metric.terms(scores, labels)) for metric in of(labels)}


def accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean of `hits`, in [0, 1]. Raises ValueError also where there are no clips."""
    return _mean(hits(scores, labels))


def _ranks(scores: ArrayLike, labels: ArrayLike) -> Int64:
    """Return [N]: how many classes come before the label's."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"expected scores [N, M], labels [N], not {scores.shape}, {labels.shape}")
    if np.isnan(scores).any():
        raise ValueError("NaN among the scores")
    if labels.size == 0:
        return np.zeros(0, np.int64)
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"labels must be integers in 0..{scores.shape[1] - 1}")
    own = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    before = (scores > own) | ((scores == own) & earlier)
    ranks: Int64 = before.sum(axis=1, dtype=np.int64)
    return ranks


def _mean(values: Float64) -> float:
    if values.size == 0:
        raise ValueError("no clips to score")
    return float(values.mean())
