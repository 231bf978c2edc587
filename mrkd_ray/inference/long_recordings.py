"""Scores of windows of a long recording, in memory that does not grow with its length.

Windows are classified as soon as their frames are there (`representations.parts`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mrkd_ray.common.arrays import Float32
from mrkd_ray.features.deltas import MARGIN
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.features.store import Bank
from mrkd_ray.features.window_sources import Index
from mrkd_ray.features.windows import Windows
from mrkd_ray.inference.clip_logits import BATCH, Apply, batch_logits
from mrkd_ray.inference.threads import side_by_side
from mrkd_ray.representations.timing import Timing


class LogitsOfParts:
    """Logits of windows of one recording, whose frames come part by part.

    Args:
        network: what is applied.
        statistics: of the training clips.
        timing: of the representation.
        ticks: of a window.
        first: the first frames of the windows, in order [n], all inside the recording.
        frames: of the whole recording.
        device: of the network.
    """

    def __init__(
        self,
        network: Apply,
        statistics: Statistics,
        timing: Timing,
        ticks: int,
        first: Index,
        frames: int,
        device: torch.device,
    ) -> None:
        self._network, self._statistics, self._timing = network, statistics, timing
        self._ticks = ticks
        self._first, self._left, self._device = first, frames, device
        self._held: Float32 = np.zeros((0, statistics.mean.shape[1]), np.float32)
        self._begin = 0  # the place of the first frame that is held

    def add(self, frames: Float32) -> list[Tensor]:
        """Take the next frames [n, bins]; return logits [B, M] of the windows that they complete.

        In order, in batches; none where no window is complete.
        """
        self._held = np.concatenate([self._held, frames])
        self._left -= len(frames)
        behind = MARGIN if self._left else 0  # frames that a window's last delta looks ahead
        last = self._begin + len(self._held) - behind - self._timing.window(self._ticks)
        count = int(np.searchsorted(self._first, last, side="right"))
        ready, self._first = np.split(self._first, [count])
        logits = []
        if count:
            bank = Bank(self._held, np.zeros(1, np.int64), np.array([len(self._held)]))
            windows = Windows(bank, self._statistics, self._device, self._timing, ticks=self._ticks)
            clips = np.zeros(count, np.int64)
            batches = windows.batches_from(clips, ready - self._begin, BATCH)
            logits = batch_logits(self._network, batches, side_by_side)
        needed = int(self._first[0]) - MARGIN if len(self._first) else last
        gone = max(0, needed - self._begin)
        self._held, self._begin = self._held[gone:].copy(), self._begin + gone
        return logits
