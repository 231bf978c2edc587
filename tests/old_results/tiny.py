"""The network of the old results, of few weights: for old code and new, so it imports neither."""

from __future__ import annotations

from torch import nn

NAME = "tiny_for_tests"
DESCRIPTION = "one convolution, for tests; a thousand parameters"


def tiny(n_classes: int) -> nn.Module:
    """Windows [B, 3, bins, 150] to logits [B, n_classes]; the last layer is the classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, n_classes),
    )
