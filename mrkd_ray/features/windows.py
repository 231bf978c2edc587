"""Windows of a representation: where they lie in the clips, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mrkd_ray.common.arrays import Float32
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.features.store import Bank
from mrkd_ray.features.window_extents import window_bytes
from mrkd_ray.features.window_sources import Index, Resident, Sizes, Streamed
from mrkd_ray.representations.timing import PAPER, WINDOW_TICKS, Timing


class Windows:
    """Windows of F frames with deltas, normalised by the training clips' statistics.

    A window is F frames, by default 150 at the paper's hop. Its length and where it starts are told
    in ticks, which are the same moment in every branch of a cohort. A clip shorter than a window is
    padded: the missing frames are 0 in all channels after normalisation, which is the training
    clips' mean.

    Args:
        bank: static frames in dB of the clips, [total_frames, bins], with each clip's offset
            and length in frames.
        statistics: mean and standard deviation per channel and bin, [3, bins].
        device: where the windows are made.
        timing: of the representation.
        ticks: of a window.
        resident: compute all channels of all clips now and keep them on the device, instead of
            making each batch from static frames in main memory. The windows are the same, bit
            for bit; see `training.device_memory` for which one pays.

    Attributes:
        kept: "resident" or "streamed".
        frames: F.
    """

    def __init__(
        self,
        bank: Bank,
        statistics: Statistics,
        device: torch.device,
        timing: Timing = PAPER,
        *,
        ticks: int = WINDOW_TICKS,
        resident: bool = False,
    ) -> None:
        self.device = device
        self.statistics = statistics
        self.timing = timing
        self.lengths: Index = bank.lengths
        self._ticks: Index = bank.lengths if bank.ticks is None else bank.ticks
        self._window = ticks
        self.frames = timing.window(ticks)
        self._bins = bank.frames.shape[1]
        self.kept = "resident" if resident else "streamed"
        streamed = Streamed(bank, statistics, device, self.frames)
        self._source = Resident(streamed) if resident else streamed

    @property
    def bytes(self) -> int:
        """What the windows take, or would take, where they are kept."""
        return window_bytes(self.lengths, self._bins, self.frames)

    def random_starts(self, clips: Index, rng: np.random.Generator) -> Index:
        """Draw one start, in ticks, for each clip: negative where it is padded on its left."""
        spare = self._ticks[clips] - self._window
        drawn = np.floor(rng.random(len(clips)) * (np.abs(spare) + 1)).astype(np.int64)
        starts: Index = np.where(spare >= 0, drawn, -drawn)
        return starts

    def even_starts(self, clips: Index) -> tuple[Index, Index]:
        """Return (position in `clips`, start in ticks) of even windows that cover every clip.

        There are as few as cover it, the first at its start and the last at its end; a clip shorter
        than a window stands in the middle of its padding.
        """
        ticks = self._ticks[clips]
        counts = np.maximum(1, -(-ticks // self._window))
        owners = np.repeat(np.arange(len(clips)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        spare = (ticks - self._window)[owners]
        steps = np.maximum(counts[owners] - 1, 1)
        starts = np.where(spare >= 0, np.rint(within * spare / steps), spare // 2)
        return owners, starts.astype(np.int64)

    def first_frames(self, clips: Index, starts: Index) -> Index:
        """Return the first frame of the windows of clips [n] that start at ticks [n].

        The nearest one, within the clip, or within the padding of a clip shorter than a window.
        """
        spare = self.lengths[clips] - self.frames
        first = self.timing.frames_at(starts)
        return np.clip(first, np.minimum(spare, 0), np.maximum(spare, 0))

    def inside(self, clips: Index, starts: Index) -> Tensor:
        """Return which frames of windows at ticks [n] are the clips' own: bool [n, F]."""
        first = self.first_frames(clips, starts)
        frame = first[:, None] + np.arange(self.frames)
        own = (frame >= 0) & (frame < self.lengths[clips][:, None])
        return torch.from_numpy(own).to(self.device)

    def batches(self, clips: Index, starts: Index, size: Sizes) -> Iterator[Tensor]:
        """Yield the windows of clips [n] at ticks [n] in order, at most `size` at a time.

        Batches are split as `torch.tensor_split` does, as equal as possible, the larger first; or
        as `size` says, if it has the size of each.

        Yields:
            [B, 3, bins, F] float32 on the device, channels last in memory; free to be changed,
            and valid until the next batch is asked for.
        """
        return self.batches_from(clips, self.first_frames(clips, starts), size)

    def batches_from(self, clips: Index, first: Index, size: Sizes) -> Iterator[Tensor]:
        """Yield as `batches` the windows of clips [n] that begin with frames [n]."""
        return self._source.batches(clips, first, size)


def windows_of(
    frames: Sequence[Float32],
    clip_ticks: Sequence[int],
    statistics: Statistics,
    device: torch.device,
    timing: Timing,
    ticks: int,
) -> Windows:
    """Return the windows of clips whose static frames [frames, bins] are at hand.

    Args:
        frames: of each clip.
        clip_ticks: length of each clip in ticks.
        statistics, device, timing, ticks: as of `Windows`.
    """
    lengths = np.array([len(each) for each in frames], np.int64)
    joined = np.concatenate(frames) if len(frames) > 1 else frames[0]
    bank = Bank(joined, np.cumsum(lengths) - lengths, lengths, np.array(clip_ticks, np.int64))
    return Windows(bank, statistics, device, timing, ticks=ticks)
