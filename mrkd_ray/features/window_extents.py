"""Windows in frames and bytes. NumPy only: plans and cells' keys need no PyTorch."""

from __future__ import annotations

import numpy as np

from mrkd_ray.common.arrays import Int64
from mrkd_ray.representations.timing import PAPER

CHANNELS = 3  # static, delta, delta-delta


def shift_ticks(seconds: float) -> int:
    """Return the most ticks of a shift of at most so many seconds."""
    return round(seconds / PAPER.frame_seconds)


def margins(lengths: Int64, window: int) -> Int64:
    """Return the frames of padding on each side of clips [n]: as many as one lacks for a window."""
    return np.maximum(window - lengths, 0)


def window_bytes(lengths: Int64, bins: int, window: int) -> int:
    """Return the bytes of all windows of clips of these lengths in frames, in float32."""
    return int((lengths + 2 * margins(lengths, window)).sum()) * bins * CHANNELS * 4
