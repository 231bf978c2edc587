"""From windows to clip-level logits, in training and afterwards."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mrkd_ray.windows import Index, Windows

BATCH = 64


def window_logits(network: nn.Module, windows: Windows, clips: Index, starts: Index) -> Tensor:
    """Logits [len(clips), M] of one window for each entry, in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        batches = np.array_split(np.arange(len(clips)), -(-len(clips) // BATCH))
        inputs = (windows.gather(clips[batch], starts[batch]) for batch in batches)
        return torch.cat([network(x.contiguous(memory_format=torch.channels_last)) for x in inputs])


def clip_logits(network: nn.Module, windows: Windows, clips: Index) -> Tensor:
    """Logits [len(clips), M], the mean over each clip's evenly spaced windows."""
    owners, starts = windows.even_starts(clips)
    logits = window_logits(network, windows, clips[owners], starts)
    index = torch.from_numpy(owners).to(logits.device)
    sums = torch.zeros(len(clips), logits.shape[1], device=logits.device)
    counts = torch.bincount(index, minlength=len(clips))[:, None]
    return sums.index_add_(0, index, logits) / counts
