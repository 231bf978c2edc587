"""Windows of a representation, gathered on the device as the network's input."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrkd_ray.deltas import MARGIN, with_deltas
from mrkd_ray.features import Bank
from mrkd_ray.normalisation import Statistics
from mrkd_ray.representations import WINDOW_FRAMES

Index = NDArray[np.int64]


class Windows:
    """Cuts windows of 150 frames out of clips and adds deltas, normalised by training statistics.

    A clip shorter than a window is padded: the missing frames are 0 in all channels after
    normalisation, which is the training clips' mean.

    Args:
        bank: static frames in dB of the clips, [total_frames, bins], with each clip's offset
            and length in frames.
        statistics: mean and standard deviation per channel and bin, [3, bins].
        device: where the frames are kept and the windows are made.
    """

    def __init__(self, bank: Bank, statistics: Statistics, device: torch.device) -> None:
        self.device = device
        self.lengths: Index = bank.lengths
        frames, offsets = bank.frames, bank.offsets
        if (
            device.type != "cpu"
        ):  # the memory map serves a CPU as it is; a GPU gets these clips only
            pairs = zip(bank.offsets, bank.lengths, strict=True)
            frames = np.concatenate([frames[start : start + length] for start, length in pairs])
            offsets = np.cumsum(bank.lengths) - bank.lengths
        self._frames = torch.from_numpy(frames).to(device)
        self._offsets = torch.from_numpy(offsets).to(device)
        self._lengths = torch.from_numpy(bank.lengths).to(device)
        self._mean = torch.from_numpy(statistics.mean).to(device)[None, :, :, None]
        self._std = torch.from_numpy(statistics.std).to(device)[None, :, :, None]
        self._reach = torch.arange(-MARGIN, WINDOW_FRAMES + MARGIN, device=device)

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

    def gather(self, clips: Index, starts: Index) -> Tensor:
        """Return the windows [B, 3, bins, 150], float32, of clips [B] at starts [B]."""
        which = torch.from_numpy(clips).to(self.device)
        begin = torch.from_numpy(starts).to(self.device)[:, None]
        frame = begin + self._reach
        length = self._lengths[which][:, None]
        inside = torch.minimum(frame.clamp_min(0), length - 1) + self._offsets[which][:, None]
        static = self._frames[inside].transpose(1, 2)
        windows = (with_deltas(static) - self._mean) / self._std
        frame = frame[:, MARGIN:-MARGIN]
        padding = (frame < 0) | (frame >= length)
        return windows.masked_fill_(padding[:, None, None, :], 0.0)
