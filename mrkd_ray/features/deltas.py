"""Delta and delta-delta, the second and third input channel, derived on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from mrkd_ray.representations.catalogue import DELTA_WIDTH

MARGIN = DELTA_WIDTH // 2  # frames needed on each side of a window


def with_deltas(static: Tensor) -> Tensor:
    """Return the channels static, delta and delta-delta of windows with a margin.

    As `librosa.feature.delta` with width 9 and order 1 and 2: the slope of the straight line, and
    the second derivative of the parabola, that fit the 9 frames around a frame best.

    Every step is one rounded operation on each element (no fused multiply-add, which vectors have
    and their tails have not): a frame gets the same bits in whatever batch it comes.

    Args:
        static: [B, bins, F + 2 * MARGIN], any floating dtype and device. At a clip's ends the
            margin repeats its first or last frame (librosa's `mode="nearest"`).

    Returns:
        [B, 3, bins, F], same dtype and device. Channel 0 is the middle F frames, unchanged.
    """
    frames = static.shape[-1] - 2 * MARGIN
    middle = static[..., MARGIN : MARGIN + frames]
    delta = torch.zeros_like(middle)
    second = torch.zeros_like(middle)
    for k in range(1, MARGIN + 1):
        after = static[..., MARGIN + k : MARGIN + k + frames]
        before = static[..., MARGIN - k : MARGIN - k + frames]
        # Least squares on -4..4: the slope's weights are k / 60, as sum(k²) = 60.
        delta.add_((after - before).mul_(k / 60))
        # The parabola's: (3k² - 20) / 462; they add up to 0, so a constant gives exactly 0.
        second.add_((after - middle).add_(before).sub_(middle).mul_((3 * k * k - 20) / 462))
    return torch.stack((middle, delta, second), dim=1)
