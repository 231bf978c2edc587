"""Windows in frames and bytes. NumPy only: plans and cells' keys need no PyTorch."""

from __future__ import annotations

import numpy as np

from mrkd_ray.audio.decoding import SAMPLE_RATE
from mrkd_ray.common.arrays import Int64
from mrkd_ray.representations.catalogue import WINDOW_FRAMES
from mrkd_ray.representations.filters import HOP

CHANNELS = 3  # static, delta, delta-delta


def shift_frames(seconds: float) -> int:
    """Return the most frames of a shift of at most so many seconds."""
    return round(seconds * SAMPLE_RATE / HOP)


def margins(lengths: Int64) -> Int64:
    """Return the frames of padding on each side of clips [n]: as many as one lacks for a window."""
    return np.maximum(WINDOW_FRAMES - lengths, 0)


def window_bytes(lengths: Int64, bins: int) -> int:
    """Return the bytes of all windows of clips of these lengths in frames, in float32."""
    return int((lengths + 2 * margins(lengths)).sum()) * bins * CHANNELS * 4
