"""What an ensemble says. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.common.arrays import Float64


def mean_probabilities(members: Sequence[NDArray[np.floating]] | NDArray[np.floating]) -> Float64:
    """Return the mean of the members' probabilities, computed in float64.

    Args:
        members: Γ arrays of one shape, for example [n, M]; or one of [Γ, n, M].
    """
    mean: Float64 = np.asarray(members, np.float64).mean(axis=0)
    return mean
