"""Embeddings of frozen pretrained representations: of clips, to find neighbours, and of windows.

Those of its windows a branch learns to predict. The linear layer that does is part of a checkpoint
and not of a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mrkd_ray.features.normalisation import STD_FLOOR, statistics
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.features.window_sources import Index, Sizes
from mrkd_ray.features.windows import Windows
from mrkd_ray.networks.catalogue import classifier_layer
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.training.branch_task import BranchTask


def clip_embeddings(stores: Sequence[FeatureStore], task: BranchTask) -> Tensor:
    """Return the embedding [N, D] of each of a task's `taught` clips: its mean over time.

    Each value is standardised over these clips, and stores stand side by side.
    """
    found = []
    for store in stores:
        bank = store.bank(task.taught)
        places = zip(bank.offsets.tolist(), bank.lengths.tolist(), strict=True)
        means = np.stack([bank.frames[first : first + n].mean(axis=0) for first, n in places])
        means -= means.mean(axis=0)
        found.append(means / np.maximum(means.std(axis=0), STD_FLOOR))
    return torch.from_numpy(np.concatenate(found, axis=1))


class Embeddings:
    """Embeddings of the windows of a task's `taught` clips, standardised by its training clips.

    Args:
        task: of a branch with `embeddings`.
        device: where they are made.
    """

    def __init__(self, task: BranchTask, device: torch.device) -> None:
        self.width = sum(store.bins for store in task.embeddings)
        self._windows = [
            Windows(
                store.bank(task.taught),
                statistics(store.bank(task.train.clip_ids)),
                device,
                REPRESENTATIONS[store.representation].timing,
                ticks=task.window_ticks,
            )
            for store in task.embeddings
        ]

    def batches(self, rows: Index, starts: Index, size: Sizes) -> Iterator[Tensor]:
        """Yield [B, D] of `taught` clips [n] at ticks [n], divided as `Windows.batches` does."""
        sources = (windows.batches(rows, starts, size) for windows in self._windows)
        for parts in zip(*sources, strict=True):
            yield torch.cat([part[:, 0].mean(dim=2) for part in parts], dim=1)


class Predictor(nn.Module):
    """A linear layer from what a network's classifier layer sees to embeddings [B, D].

    Args:
        network: whose last features it is called after.
        width: D.
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        layer = network.get_submodule(classifier_layer(network))
        features = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        assert isinstance(features, int)
        self.linear = nn.Linear(features, width)
        self._features = torch.empty(0)
        layer.register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def forward(self) -> Tensor:
        """Return the embeddings [B, D] that the network's last batch has by its features."""
        features, self._features = self._features.float(), torch.empty(0)
        predicted: Tensor = self.linear(
            features.flatten(2).mean(2) if features.ndim > 2 else features
        )
        return predicted
