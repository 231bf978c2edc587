"""What a network's logits [N, M] say: which one of the classes it is, or which of them are there.

Losses are of distributions along the last axis. One label a clip: one distribution over M classes,
[N, M]. Multi-label: M independent ones, each over present and absent, [N, M, 2]; a clip's
cross-entropy and divergence are then sums over the classes.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class LabelKind(Protocol):
    """How logits and probabilities [N, M] become distributions."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of each class, [N, M]."""

    def logits(self, logits: Tensor) -> Tensor:
        """Their distributions, before the softmax along the last axis."""

    def distributions(self, probabilities: Tensor) -> Tensor:
        """The same of probabilities, such as a teacher's or 0 and 1 for labels."""


class SingleLabel:
    """One label a clip."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """They sum to 1."""
        return logits.softmax(dim=1)

    def logits(self, logits: Tensor) -> Tensor:
        """As they are."""
        return logits

    def distributions(self, probabilities: Tensor) -> Tensor:
        """As they are."""
        return probabilities


class MultiLabel:
    """Multi-label: each class for itself. A sigmoid is the softmax of its logit and 0."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Each in [0, 1]."""
        return logits.sigmoid()

    def logits(self, logits: Tensor) -> Tensor:
        """Of present and absent, [N, M, 2]."""
        return torch.stack((logits, torch.zeros_like(logits)), dim=2)

    def distributions(self, probabilities: Tensor) -> Tensor:
        """Of present and absent, [N, M, 2]."""
        return torch.stack((probabilities, 1 - probabilities), dim=2)


def label_kind(multi_label: bool) -> LabelKind:
    """Return what the logits of a data set's networks say."""
    return MultiLabel() if multi_label else SingleLabel()
