"""What the windows of clips take where they are kept. NumPy only: plans need no PyTorch."""

from __future__ import annotations

import numpy as np

from mrkd_ray.common.arrays import Int64
from mrkd_ray.representations.catalogue import WINDOW_FRAMES

CHANNELS = 3  # static, delta, delta-delta


def margins(lengths: Int64) -> Int64:
    """Return the frames of padding on each side of clips [n]: as many as one lacks for a window."""
    return np.maximum(WINDOW_FRAMES - lengths, 0)


def window_bytes(lengths: Int64, bins: int) -> int:
    """Return the bytes of all windows of clips of these lengths in frames, in float32."""
    return int((lengths + 2 * margins(lengths)).sum()) * bins * CHANNELS * 4
