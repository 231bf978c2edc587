"""Batches of windows, from channels kept on the device or made on the way from main memory.

Both give the same bits, so that which one a machine has room for changes no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrkd_ray.features.deltas import MARGIN, with_deltas
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.features.store import Bank
from mrkd_ray.features.window_extents import CHANNELS, margins

Index = NDArray[np.int64]

Loaded = tuple[Tensor, Tensor, torch.cuda.Event | None]
"""Static frames [B, F + 2 * MARGIN, bins], padding [B, F], and on a GPU their arrival."""

AHEAD = 2  # batches that the background thread may be ahead of the network


Sizes = int | Sequence[int]
"""Of batches: the most that one may have, or how many each has, none more than the first."""


def split(values: Index, size: Sizes) -> list[Index]:
    """Split [n] into as few parts of at most `size` as it takes, the larger ones first."""
    if not isinstance(size, int):
        return np.split(values, np.cumsum(size)[:-1])
    return np.array_split(values, max(1, -(-len(values) // size)))


class Streamed:
    """Static frames in main memory, or mapped from disk; each batch is made when it is due.

    A background thread gathers the frames. To a GPU they go from pinned memory on a stream of
    their own, while the network computes; deltas, normalisation and padding are made there.
    """

    def __init__(
        self, bank: Bank, statistics: Statistics, device: torch.device, window: int
    ) -> None:
        self.device = device
        self.window = window
        self.lengths: Index = bank.lengths
        self.bins = bank.frames.shape[1]
        self._frames = torch.from_numpy(bank.frames)
        self._offsets = bank.offsets
        self._mean, self._std = (
            torch.from_numpy(x).to(device)[None, :, :, None]
            for x in (statistics.mean, statistics.std)
        )
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def batches(self, clips: Index, starts: Index, size: Sizes) -> Iterator[Tensor]:
        """Yield as `Windows.batches`."""
        with ThreadPoolExecutor(1) as pool:
            coming: deque[Future[Loaded]] = deque()
            for own, start in zip(split(clips, size), split(starts, size), strict=True):
                coming.append(pool.submit(self._load, own, start))
                if len(coming) > AHEAD:
                    yield self._make(*coming.popleft().result())
            while coming:
                yield self._make(*coming.popleft().result())

    def _load(self, clips: Index, starts: Index) -> Loaded:
        """Send a batch off; the event tells when it has arrived."""
        frame = starts[:, None] + np.arange(-MARGIN, self.window + MARGIN)
        last = self.lengths[clips][:, None] - 1
        rows = np.clip(frame, 0, last) + self._offsets[clips][:, None]
        pinned = self._stream is not None
        static = torch.empty(rows.size, self.bins, pin_memory=pinned)
        torch.index_select(self._frames, 0, torch.from_numpy(rows.ravel()), out=static)
        static = static.view(*rows.shape, self.bins)
        frame = frame[:, MARGIN:-MARGIN]
        padding = torch.from_numpy((frame < 0) | (frame > last))
        if self._stream is None:
            return static, padding, None
        with torch.cuda.stream(self._stream):
            padding = padding.pin_memory().to(self.device, non_blocking=True)
            static = static.to(self.device, non_blocking=True)
            return static, padding, self._stream.record_event()

    def _make(self, static: Tensor, padding: Tensor, sent: torch.cuda.Event | None) -> Tensor:
        if sent is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(sent)  # for this batch only, not for those sent off since
            for x in (static, padding):  # their memory is not reused before `current` is done
                x.record_stream(current)
        windows = (with_deltas(static.transpose(1, 2)) - self._mean) / self._std
        windows.masked_fill_(padding[:, None, None, :], 0.0)
        return windows.contiguous(memory_format=torch.channels_last)


class Resident:
    """The three channels of all clips, computed once and kept on the device.

    One tensor [bins, frames, 3] in which a clip shorter than a window has zeros on both sides: a
    window is a slice of it, which is channels last as it lies there, and a batch is one gather.
    """

    def __init__(self, streamed: Streamed) -> None:
        self.device = streamed.device
        window = streamed.window
        padding = margins(streamed.lengths, window)
        extents = streamed.lengths + 2 * padding
        self._places = np.cumsum(extents) - extents + padding  # of each clip's first frame
        shape = (streamed.bins, int(extents.sum()), CHANNELS)
        channels = torch.empty(shape, device=self.device)
        # Filled by windows side by side, the last one of a clip ending with it.
        counts = -(-extents // window)
        owners = np.repeat(np.arange(len(extents)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        reach = np.minimum(within * window, extents[owners] - window)
        starts = reach - padding[owners]
        frames = (self._places[owners] + starts)[:, None] + np.arange(window)
        size = 64
        made = streamed.batches(owners, starts, size)
        for places, windows in zip(split(frames, size), made, strict=True):
            rows = windows.permute(2, 0, 3, 1).reshape(streamed.bins, -1, CHANNELS)
            channels.index_copy_(1, torch.from_numpy(places.ravel()).to(self.device), rows)
        # [first frame, bins, F, 3], without a copy
        self._windows = channels.unfold(1, window, 1).permute(1, 0, 3, 2)

    def batches(self, clips: Index, starts: Index, size: Sizes) -> Iterator[Tensor]:
        """Yield as `Windows.batches`, each batch in the memory of the one before."""
        first = torch.from_numpy(self._places[clips] + starts).to(self.device)  # for all at once
        sizes = [len(part) for part in split(clips, size)]
        parts = first.split_with_sizes(sizes)
        memory = torch.empty(len(parts[0]), *self._windows.shape[1:], device=self.device)
        for rows in parts:
            batch = memory[: len(rows)]
            torch.index_select(self._windows, 0, rows, out=batch)
            yield batch.permute(0, 3, 1, 2)
