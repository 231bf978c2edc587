"""Which clips a person should listen to next, and why. NumPy only.

From what several networks that were trained on other clips say of each: its label looks wrong,
they disagree, or they are uncertain together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.common.arrays import Int64
from mrkd_ray.scores.doubtful_labels import FEWEST, doubted

Reason = Literal["label doubted", "branches disagree", "uncertain"]
HALF = 0.5  # a class of several a clip is heard from here on


@dataclass(frozen=True)
class Doubt:
    """A clip to listen to.

    Attributes:
        clip: its place.
        reason: the first that applies, in the order of `Reason`.
        disagreement: part of the branches that hear something else than their mean does.
    """

    clip: int
    reason: Reason
    disagreement: float


def to_review(probabilities: NDArray[np.floating], labels: Int64, count: int) -> list[Doubt]:
    """Return the clips to listen to first, at most `count`.

    The three reasons take turns, so that the worst clips of each come first. A clip whose label is
    not doubted, of which all branches say the same, and most certainly, comes last.

    Args:
        probabilities: [branches, N, M], out of sample.
        labels: class indices [N]; of several labels a clip [N, M] of 0 and 1.
        count: how many.
    """
    mean = probabilities.mean(axis=0)
    several = labels.ndim == 2
    heard = (probabilities >= HALF) if several else probabilities.argmax(axis=-1)[..., None]
    together = (mean >= HALF) if several else mean.argmax(axis=-1)[:, None]
    disagreement = (heard != together).any(axis=-1).mean(axis=0)
    if several:
        surprise = np.abs(labels - mean).max(axis=1)
        wrong = surprise > HALF
        margin = 2 * np.abs(mean - HALF).min(axis=1)
    else:
        own = np.take_along_axis(mean, labels[:, None], axis=1)[:, 0]
        surprise = 1 - own
        first = mean.argmax(axis=1) == labels
        many = mean.shape[1] >= FEWEST  # of fewer classes the half is too easily reached
        wrong = doubted(mean, labels) if many else ~first & (own < 1 / mean.shape[1])
        margin = np.diff(np.sort(mean, axis=1)[:, -2:], axis=1)[:, 0]
    disagree = ~wrong & (disagreement > 0)
    rest = ~wrong & ~disagree
    order = {
        "label doubted": np.lexsort((-surprise, ~wrong))[: wrong.sum()],
        "branches disagree": np.lexsort((margin, -disagreement, ~disagree))[: disagree.sum()],
        "uncertain": np.lexsort((margin, ~rest))[: rest.sum()],
    }
    found: list[tuple[int, int, Doubt]] = []
    for turn, reason in enumerate(get_args(Reason)):
        found += [
            (place, turn, Doubt(int(clip), reason, float(disagreement[clip])))
            for place, clip in enumerate(order[reason])
        ]
    found.sort(key=lambda each: each[:2])
    return [doubt for _, _, doubt in found[:count]]
