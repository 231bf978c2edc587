"""Which labels look wrong, and how many are, from networks that were trained on other clips.

A clip that is hard to tell still has its label among the more probable classes; a label that is
wrong by chance has any rank behind the true class. So labels in the less probable half of the
classes tell wrong labels from hard clips, if networks have learnt enough: see `in_front`.
(Confident learning, Northcutt et al. 2021, asks whether another class is probable enough, which is
so of many hard clips too.) Wrong labels of classes that sound alike are not found so. NumPy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.common.arrays import Int64

FEWEST = 5
"""With fewer classes a hard clip's label is too easily in the less probable half."""


def doubted(probabilities: NDArray[np.floating], labels: Int64) -> NDArray[np.bool_]:
    """Return which labels [N] are in the less probable half of the classes.

    Args:
        probabilities: [N, M], out of sample.
        labels: class indices [N].
    """
    found: NDArray[np.bool_] = _ranks(probabilities, labels) >= probabilities.shape[1] / 2
    return found


def wrong_share(doubted_part: float, classes: int) -> float:
    """Return about which part of the labels is wrong, if wrong ones are drawn at random.

    A wrong label has each rank behind the first, of the true class, alike: M // 2 of these M - 1
    are in the less probable half. Right labels in that half count as wrong too: it errs upwards.

    Args:
        doubted_part: of the labels, in [0, 1]: see `doubted`.
        classes: M; NaN below `FEWEST`.
    """
    if classes < FEWEST:
        return float("nan")
    return doubted_part * (classes - 1) / (classes // 2)


def in_front(probabilities: NDArray[np.floating], labels: Int64) -> float:
    """Return which part of the right labels is among the first sixteenth of the classes.

    Of fewer than 32 classes that is the first one. Which labels are right need not be known: wrong
    ones are about as many as `wrong_share` says, and have each rank behind the first alike.
    Networks that have learnt enough have most right labels in front, however many others are
    wrong. Underfit ones have them spread, into the less probable half too, where they look wrong.

    Args:
        probabilities: [N, M], out of sample.
        labels: class indices [N].

    Returns:
        From 0; NaN with fewer classes than `FEWEST`.
    """
    classes = probabilities.shape[1]
    wrong = wrong_share(float(doubted(probabilities, labels).mean()), classes)
    front = max(1, classes // 16)
    found = float((_ranks(probabilities, labels) < front).mean())
    found -= wrong * (front - 1) / (classes - 1)
    return 0.0 if wrong >= 1 else found / (1 - wrong)


def _ranks(probabilities: NDArray[np.floating], labels: Int64) -> NDArray[np.floating]:
    """Return each label's place [N] among the classes, 0 the most probable; of equals the mean."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    equal = (probabilities == own).sum(axis=1) - 1  # of 0, far from what a network is sure of
    ranks: NDArray[np.floating] = (probabilities > own).sum(axis=1) + equal / 2
    return ranks
