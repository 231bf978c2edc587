"""A cascade of classifiers: one that costs little is asked first, and all where it is not sure.

Viola and Jones, "Rapid Object Detection using a Boosted Cascade of Simple Features", CVPR 2001, in
its simplest form: two stages, and the first one's confidence decides. NumPy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.common.arrays import Float64


def confidence(probabilities: NDArray[np.floating], *, multi_label: bool) -> Float64:
    """Return how sure a classifier is of each clip, [n] in [0, 1].

    Args:
        probabilities: [n, M].
        multi_label: whether each class has a probability of its own. Then it is as sure as of the
            class that it is least sure of; else it is the highest probability.
    """
    values = np.asarray(probabilities, np.float64)
    found: Float64 = (
        np.maximum(values, 1 - values).min(axis=1) if multi_label else values.max(axis=1)
    )
    return found
