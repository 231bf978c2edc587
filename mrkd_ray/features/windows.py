"""Windows of a representation: where they lie in the clips, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.features.store import Bank
from mrkd_ray.features.window_extents import window_bytes
from mrkd_ray.features.window_sources import Index, Resident, Streamed
from mrkd_ray.representations.catalogue import WINDOW_FRAMES


class Windows:
    """Windows of 150 frames with deltas, normalised by the training clips' statistics.

    A clip shorter than a window is padded: the missing frames are 0 in all channels after
    normalisation, which is the training clips' mean.

    Args:
        bank: static frames in dB of the clips, [total_frames, bins], with each clip's offset
            and length in frames.
        statistics: mean and standard deviation per channel and bin, [3, bins].
        device: where the windows are made.
        resident: compute all channels of all clips now and keep them on the device, instead of
            making each batch from static frames in main memory. The windows are the same, bit
            for bit; see `training.device_memory` for which one pays.

    Attributes:
        kept: "resident" or "streamed".
    """

    def __init__(
        self, bank: Bank, statistics: Statistics, device: torch.device, *, resident: bool = False
    ) -> None:
        self.device = device
        self.statistics = statistics
        self.lengths: Index = bank.lengths
        self._bins = bank.frames.shape[1]
        self.kept = "resident" if resident else "streamed"
        streamed = Streamed(bank, statistics, device)
        self._source = Resident(streamed) if resident else streamed

    @property
    def bytes(self) -> int:
        """What the windows take, or would take, where they are kept."""
        return window_bytes(self.lengths, self._bins)

    def random_starts(self, clips: Index, rng: np.random.Generator) -> Index:
        """Draw one start for each clip: negative where the clip is padded on its left."""
        spare = self.lengths[clips] - WINDOW_FRAMES
        drawn = np.floor(rng.random(len(clips)) * (np.abs(spare) + 1)).astype(np.int64)
        starts: Index = np.where(spare >= 0, drawn, -drawn)
        return starts

    def even_starts(self, clips: Index) -> tuple[Index, Index]:
        """Return (position in `clips`, start) of evenly spaced windows that cover every clip.

        A clip of L frames has ceil(L / 150) of them, the first at its start and the last at its
        end; one shorter than a window stands in the middle of its padding.
        """
        lengths = self.lengths[clips]
        counts = np.maximum(1, -(-lengths // WINDOW_FRAMES))
        owners = np.repeat(np.arange(len(clips)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        spare = (lengths - WINDOW_FRAMES)[owners]
        steps = np.maximum(counts[owners] - 1, 1)
        starts = np.where(spare >= 0, np.rint(within * spare / steps), spare // 2)
        return owners, starts.astype(np.int64)

    def inside(self, clips: Index, starts: Index) -> Tensor:
        """Return which frames of windows at starts [n] are the clips' own: bool [n, 150]."""
        frame = starts[:, None] + np.arange(WINDOW_FRAMES)
        own = (frame >= 0) & (frame < self.lengths[clips][:, None])
        return torch.from_numpy(own).to(self.device)

    def batches(self, clips: Index, starts: Index, size: int) -> Iterator[Tensor]:
        """Yield the windows of clips [n] at starts [n] in order, at most `size` at a time.

        Batches are split as `torch.tensor_split` does: as equal as possible, the larger first.

        Yields:
            [B, 3, bins, 150] float32 on the device, channels last in memory; free to be changed,
            and valid until the next batch is asked for.
        """
        return self._source.batches(clips, starts, size)
