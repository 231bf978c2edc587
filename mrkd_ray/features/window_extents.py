"""Windows in frames and bytes. NumPy only: plans and cells' keys need no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from mrkd_ray.common.arrays import Int64
from mrkd_ray.representations.timing import LONGEST_WHOLE, ticks_in

CHANNELS = 3  # static, delta, delta-delta


def window_ticks(window: float | Literal["whole"], whole: int | None = None) -> int:
    """Return the ticks of a window.

    Args:
        window: `config.method.Learning.window`, seconds or "whole".
        whole: ticks of one that holds a whole clip (`whole_window`).

    Raises:
        ValueError: the whole clip, and nobody says how long that is.
    """
    if window != "whole":
        return max(1, ticks_in(window))
    if whole is None:
        raise ValueError("window: whole, of clips of an unknown length")
    return whole


def whole_window(ticks: Iterable[int]) -> int:
    """Return the ticks of a window that holds any of some clips, at most `LONGEST_WHOLE`."""
    return min(max(ticks), LONGEST_WHOLE)


def margins(lengths: Int64, window: int) -> Int64:
    """Return the frames of padding on each side of clips [n]: as many as one lacks for a window."""
    return np.maximum(window - lengths, 0)


def window_bytes(lengths: Int64, bins: int, window: int) -> int:
    """Return the bytes of all windows of clips of these lengths in frames, in float32."""
    return int((lengths + 2 * margins(lengths, window)).sum()) * bins * CHANNELS * 4
