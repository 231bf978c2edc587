"""Heads: networks of embeddings, such as the representation `mn04`. They train in seconds."""

from __future__ import annotations

from torch import Tensor, nn

from mrkd_ray.networks.registry import network

WIDTH = 256  # of the hidden layer
DROPOUT = 0.3


class _Mean(nn.Module):
    """[B, 3, bins, frames] to [B, bins]: the mean over time of the embedding, without its deltas.

    Frames of padding are the training clips' mean and pull a short clip's embedding there.
    """

    def forward(self, windows: Tensor) -> Tensor:
        """[B, bins]."""
        return windows[:, 0].mean(dim=2)


@network("linear", description="one linear layer, for embeddings such as mn04", sized=True)
def linear(n_classes: int, bins: int) -> nn.Module:
    """Logistic regression on the mean of an embedding over time."""
    return nn.Sequential(_Mean(), nn.Linear(bins, n_classes))


@network("mlp", description="one hidden layer of 256, for embeddings such as mn04", sized=True)
def mlp(n_classes: int, bins: int) -> nn.Module:
    """A hidden layer with BatchNorm and dropout."""
    return nn.Sequential(
        _Mean(),
        nn.Linear(bins, WIDTH, bias=False),
        nn.BatchNorm1d(WIDTH),
        nn.ReLU(inplace=True),
        nn.Dropout(DROPOUT),
        nn.Linear(WIDTH, n_classes),
    )
