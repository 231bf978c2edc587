"""From windows to clip-level logits, in training and afterwards."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mrkd_ray.features.window_sources import Index
from mrkd_ray.features.windows import Windows

BATCH = 64

Apply = Callable[[Tensor], Tensor]
"""Windows [B, 3, bins, F] to logits [B, M]: a network in evaluation mode."""


def window_logits(network: Apply, windows: Windows, clips: Index, starts: Index) -> Tensor:
    """Logits [len(clips), M] of one window for each entry."""
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in windows.batches(clips, starts, BATCH)])


def clip_logits(network: Apply, windows: Windows, clips: Index) -> Tensor:
    """Logits [len(clips), M], the mean over each clip's evenly spaced windows."""
    owners, starts = windows.even_starts(clips)
    logits = window_logits(network, windows, clips[owners], starts)
    index = torch.from_numpy(owners).to(logits.device)
    sums = torch.zeros(len(clips), logits.shape[1], device=logits.device)
    counts = torch.bincount(index, minlength=len(clips))[:, None]
    return sums.index_add_(0, index, logits) / counts
