"""The running average of a network's weights, which answers in its place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

YOUNG = 10
Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage(AveragedModel):
    """An exponential moving average of a network's weights and of its BatchNorm's statistics.

    Update n keeps `decay` of the average, but at most (1 + n) / (`YOUNG` + n) of it, so that a
    short training is not averaged with what it began from.

    Args:
        network: the one that learns; the average begins as a copy of it.
        decay: in (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        def update(averages: Tensors, values: Tensors, _: Tensor | int) -> None:
            if averages[0].is_floating_point():
                n = int(self.n_averaged)  # on the CPU: no waiting for a GPU
                kept = min(decay, (1 + n) / (YOUNG + n))
                torch._foreach_lerp_(averages, values, 1 - kept)
            else:  # how many batches BatchNorm has seen
                torch._foreach_copy_(averages, values)

        super().__init__(network, multi_avg_fn=update, use_buffers=True)
