"""Accuracy and confusion class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mrkd_ray.common.arrays import Float32, Float64, Int64
from mrkd_ray.scores import metrics
from mrkd_ray.scores.comparison import Model, Pair, by_fold, difference, terms
from mrkd_ray.scores.intervals import Interval

FEWEST = 5  # clips of a class in a fold, for its change to be called clear

HITS = terms(metrics.SINGLE_LABEL[0])


@dataclass(frozen=True)
class ClassChange:
    """What distillation did to the accuracy on one class, over all its test clips.

    Attributes:
        clips: number of its test clips in all folds.
        fewest: number of them in the fold that has the fewest.
        independent: accuracy (recall), in [0, 1].
        difference: distilled minus independent, in points.
    """

    name: str
    clips: int
    fewest: int
    independent: float
    difference: Interval

    @property
    def clear(self) -> bool:
        """Whether the difference is significant and of enough clips.

        A bootstrap of a few clips of which none changed, or each did, has no width.
        """
        return self.fewest >= FEWEST and self.difference.mark != "ns"


def per_class(pairs: Sequence[Pair], classes: Sequence[str]) -> list[ClassChange]:
    """Return the change of every class that has test clips, largest gain first."""
    found = []
    for index, name in enumerate(classes):
        parts = [Pair(*(_only(m, index) for m in (p.independent, p.distilled))) for p in pairs]
        folds = [fold for fold in by_fold([p.independent for p in parts], HITS) if fold.size]
        if folds:
            scores = np.concatenate([fold.mean(axis=0) for fold in folds])
            fewest = min(fold.shape[1] for fold in folds)
            change = difference(parts, HITS)
            found.append(ClassChange(name, len(scores), fewest, float(scores.mean()), change))
    return sorted(found, key=lambda change: -change.difference.mean)


def _only(model: Model, label: int) -> Model:
    """Return the model's predictions for the clips of one class."""
    chosen = np.flatnonzero(model.labels == label)
    return replace(
        model,
        clip_ids=tuple(model.clip_ids[i] for i in chosen),
        labels=model.labels[chosen],
        probabilities=model.probabilities[chosen],
    )


def confusion(models: Sequence[Model], classes: int) -> Float64:
    """Return [M, M]: the part of each true class's (row's) clips that went to each class.

    Over the clips of all runs; rows of classes without clips are 0.
    """
    of_all = np.zeros((classes, classes), np.int64)
    for model in models:
        of_all += confused(model.probabilities, model.labels)
    return row_parts(of_all)


def confused(scores: Float32 | Float64, truth: Int64) -> Int64:
    """Return [M, M]: how many clips of each true class (row) were given each class.

    Args:
        scores: probabilities [N, M].
        truth: class indices [N].
    """
    counts = np.zeros((scores.shape[1],) * 2, np.int64)
    np.add.at(counts, (truth, scores.argmax(axis=1)), 1)
    return counts


def row_parts(counts: Int64) -> Float64:
    """Return counts [M, M] as parts of their rows; rows without clips are 0."""
    parts: Float64 = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return parts
