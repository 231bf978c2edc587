"""From windows to clip-level logits, in training and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from mrkd_ray.features.window_sources import Index
from mrkd_ray.features.windows import Windows

BATCH = 64

Apply = Callable[[Tensor], Tensor]
"""Windows [B, 3, bins, F] to logits [B, M]: a network in evaluation mode."""


Map = Callable[[Apply, Iterable[Tensor]], Iterable[Tensor]]
"""Applies a function to batches of windows, in order."""


def window_logits(
    network: Apply, windows: Windows, clips: Index, starts: Index, map_: Map = map
) -> Tensor:
    """Logits [len(clips), M] of one window for each entry; see `clip_logits`."""
    return torch.cat(batch_logits(network, windows.batches(clips, starts, BATCH), map_))


def batch_logits(network: Apply, batches: Iterable[Tensor], map_: Map = map) -> list[Tensor]:
    """Logits [B, M] of each batch of windows; see `clip_logits`."""
    with torch.inference_mode():
        return list(map_(partial(_apply, network), batches))


def clip_logits(network: Apply, windows: Windows, clips: Index, map_: Map = map) -> Tensor:
    """Logits [len(clips), M], the mean over each clip's evenly spaced windows.

    Args:
        network: what is applied.
        windows: of all clips; streamed where `map_` is ahead of what it yields.
        clips: places of those that are meant.
        map_: applies the network to batches of at most `BATCH` windows.
    """
    owners, starts = windows.even_starts(clips)
    logits = window_logits(network, windows, clips[owners], starts, map_)
    index = torch.from_numpy(owners).to(logits.device)
    sums = torch.zeros(len(clips), logits.shape[1], device=logits.device)
    counts = torch.bincount(index, minlength=len(clips))[:, None]
    return sums.index_add_(0, index, logits) / counts


def _apply(network: Apply, batch: Tensor) -> Tensor:
    with torch.inference_mode():  # each thread has a mode of its own
        return network(batch)
