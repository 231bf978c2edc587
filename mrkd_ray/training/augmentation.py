"""Random changes of training windows, besides mixup; all of them off by default."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mrkd_ray.config.method import Training
from mrkd_ray.features.window_extents import window_ticks
from mrkd_ray.representations.timing import PAPER, Timing, ticks_in


class Augmentation:
    """Gain, circular shift in time, and SpecAugment's masks (Park et al. 2019), on the device.

    Args:
        training: the options `augment_gain`, `augment_shift`, `specaugment_time` and
            `specaugment_bins`; 0 is off.
        level: float32 [bins], what 1 dB of gain adds to the normalised static channel.
        timing: of the representation.
        linear: the values are proportional to the samples: gain multiplies them, and no bins are
            masked, which would be single samples.
    """

    def __init__(
        self,
        training: Training,
        level: Tensor,
        timing: Timing = PAPER,
        *,
        linear: bool = False,
    ) -> None:
        self._gain = training.augment_gain
        self._shift = ticks_in(training.augment_shift)
        self._timing = timing
        self._window = timing.window(window_ticks(training.window))
        self._sizes = (self._window, len(level))
        bins = 0 if linear else min(training.specaugment_bins, len(level))
        time = int(timing.frames_at(training.specaugment_time))
        self._masks = (min(time, self._window), bins)
        self._level = level
        self._linear = linear
        self.on = bool(self._gain or self._shift or any(self._masks))

    def draw(self, n: int, own: np.random.Generator, shared: np.random.Generator) -> None:
        """Draw the changes of n clips for an epoch.

        Args:
            own: the branch's generator, for gain and masks.
            shared: the same in every branch of the cohort: a shift moves what is heard when.
        """
        device = self._level.device
        gains = own.uniform(-self._gain, self._gain, n).astype(np.float32)
        self._gains = torch.from_numpy(gains).to(device)
        shifts = shared.integers(-self._shift, self._shift, n, endpoint=True)
        self._shifts = torch.from_numpy(self._timing.frames_at(shifts)).to(device)
        self._blocks = []  # begin and width of each mask [n, 2]; it is spread out batch by batch
        for size, most in zip(self._sizes, self._masks, strict=True):
            widths = own.integers(0, most, n, endpoint=True)
            begins = np.floor(own.random(n) * (size - widths + 1)).astype(np.int64)
            self._blocks.append(torch.from_numpy(np.stack([begins, widths], axis=1)).to(device))

    def apply(self, windows: Tensor, rows: Tensor, inside: Tensor) -> Tensor:
        """Return the windows [B, 3, bins, F], changed, and in the same memory format.

        Args:
            windows: may be overwritten.
            rows: [B] int64, which of the n drawn changes belongs to each window.
            inside: [B, F] bool, the frames that are not padding: only these get louder.
        """
        if self._gain and self._linear:
            windows[:, 0] *= (10 ** (self._gains[rows] / 20))[:, None, None]
        elif self._gain:
            louder = self._gains[rows][:, None, None] * self._level[:, None]
            windows[:, 0] += louder * inside[:, None, :]
        if self._shift:
            window = self._window
            places = torch.arange(window, device=windows.device)
            frames = (places - self._shifts[rows][:, None]) % window
            frames = frames[:, None, None, :].expand(windows.shape)
            windows = torch.gather(windows, 3, frames, out=torch.empty_like(windows))
        if any(self._masks):
            time, bins = (
                _within(blocks[rows], size)
                for blocks, size in zip(self._blocks, self._sizes, strict=True)
            )
            # 0 is the training clips' mean.
            windows.masked_fill_(time[:, None, None, :] | bins[:, None, :, None], 0.0)
        return windows


def _within(blocks: Tensor, size: int) -> Tensor:
    """Return which of `size` places lie in each block [B, 2] of (begin, width): bool [B, size]."""
    begins, widths = blocks[:, :1], blocks[:, 1:]
    after = torch.arange(size, device=blocks.device) - begins
    return (after >= 0) & (after < widths)
