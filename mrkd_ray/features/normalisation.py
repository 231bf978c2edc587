"""Statistics of the training clips, for normalising a network's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrkd_ray.common.arrays import Float32, Float64
from mrkd_ray.common.errors import UserError
from mrkd_ray.features.store import Bank

BLOCK = 2**14  # frames: 2.7 minutes at the paper's hop
STD_FLOOR = 1e-3  # dB: a bin that (almost) never changes is not blown up by normalisation


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per channel (static, delta, delta-delta) and bin, in the
    representation's unit.

    Both float32 [3, bins]; `std` is at least `STD_FLOOR`.
    """

    mean: Float32
    std: Float32


def as_they_are(bins: int) -> Statistics:
    """Return the statistics that change no value."""
    return Statistics(np.zeros((3, bins), np.float32), np.ones((3, bins), np.float32))


def statistics(bank: Bank, *, one_scale: bool = False) -> Statistics:
    """Return the statistics over all frames of the bank's clips: those of the training part.

    Those of each bin, or with `one_scale` those of all bins together, in every bin: samples of a
    waveform stay what they are to one another.

    Summed in float64, clip by clip in the order given, on one thread: the same clips in the same
    order give the same bits, wherever they lie in the store. A clip of more than `BLOCK` frames is
    summed in blocks of so many: memory does not grow with its length.

    Raises:
        ValueError: the bank has no frames.
        UserError: there are such that are not finite.
    """
    total = int(bank.lengths.sum())
    if total == 0:
        raise ValueError("no frames to take statistics of")
    bins = bank.frames.shape[1]
    sums = np.zeros((2, 3, bins))
    for offset, length in zip(bank.offsets.tolist(), bank.lengths.tolist(), strict=True):
        clip = bank.frames[offset : offset + length]
        for first in range(0, length, BLOCK):
            channels = _channels(clip, first, min(first + BLOCK, length))
            sums[0] += channels.sum(axis=-1)
            sums[1] += (channels * channels).sum(axis=-1)
    if one_scale:
        sums = np.broadcast_to(sums.mean(axis=-1, keepdims=True), sums.shape)
    mean = sums[0] / total
    variance = np.maximum(sums[1] / total - mean * mean, STD_FLOOR**2)
    found = Statistics(mean.astype(np.float32), np.sqrt(variance).astype(np.float32))
    if not (np.isfinite(found.mean).all() and np.isfinite(found.std).all()):
        raise UserError(
            "features: their mean or deviation is not finite. Remove the cache (mrkd clean cache "
            "--yes), and run again: they are computed anew."
        )
    return found


def _channels(clip: Float32, first: int, end: int) -> Float64:
    """Return some frames of a clip [length, bins] with their deltas, [3, bins, end - first]."""
    import torch

    from mrkd_ray.features.deltas import MARGIN, with_deltas

    low, high = max(0, first - MARGIN), min(len(clip), end + MARGIN)
    around = np.array(clip[low:high].T, np.float64)
    lacking = (low - (first - MARGIN), end + MARGIN - high)  # at the clip's ends
    padded = np.pad(around, ((0, 0), lacking), mode="edge")
    found: Float64 = with_deltas(torch.from_numpy(padded)[None])[0].numpy()
    return found
