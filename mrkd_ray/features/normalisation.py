"""Statistics of the training clips, for normalising a network's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.features.store import Bank

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
    order give the same bits, wherever they lie in the store.

    Raises:
        ValueError: the bank has no frames.
        UserError: there are such that are not finite.
    """
    import torch

    from mrkd_ray.features.deltas import MARGIN, with_deltas

    total = int(bank.lengths.sum())
    if total == 0:
        raise ValueError("no frames to take statistics of")
    bins = bank.frames.shape[1]
    sums = np.zeros((2, 3, bins))
    for offset, length in zip(bank.offsets.tolist(), bank.lengths.tolist(), strict=True):
        clip = np.array(bank.frames[offset : offset + length].T, np.float64)
        padded = np.pad(clip, ((0, 0), (MARGIN, MARGIN)), mode="edge")
        channels = with_deltas(torch.from_numpy(padded)[None])[0].numpy()
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
