"""Eq. 3, information fusion: from every branch's soft labels to a teacher for each branch.

In NumPy, so that the aggregator's process never loads PyTorch. A rule is one function and the
decorator `average`; it gets a shard of clips at a time and must treat rows one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.registry import Registry

Rule = Callable[[Sequence[Float32], Sequence[float]], list[Float32]]


@dataclass(frozen=True)
class Average:
    """A rule: `combine(parts, weights)` with parts of shape [n, M], one for each branch.

    It returns one teacher for all branches where `shared`, else one for each branch in order.
    Parts may be read-only (they lie in Ray's object store). Weights are the branches' accuracies
    on the held-out clips, and are all 1 where `weighted` is false. A row of a part is one
    distribution where a clip has one label, and M probabilities where it has several: these go to
    `multi_label`.
    """

    combine: Rule
    multi_label: Rule
    shared: bool
    weighted: bool
    description: str

    def teachers(
        self, parts: Sequence[Float32], weights: Sequence[float], multi_label: bool
    ) -> list[Float32]:
        """Apply Eq. 3 to soft labels of the one kind or the other."""
        return (self.multi_label if multi_label else self.combine)(parts, weights)


AVERAGES: Registry[Average] = Registry("average")

BLOCK_BYTES = 2**18  # stays in a core's cache


def average(
    name: str,
    description: str,
    *,
    shared: bool = True,
    weighted: bool = False,
    multi_label: Rule | None = None,
) -> Callable[[Rule], Rule]:
    """Register a rule of information fusion; for multi-label data another, where one is given."""

    def decorate(rule: Rule) -> Rule:
        AVERAGES.add(name, Average(rule, multi_label or rule, shared, weighted, description))
        return rule

    return decorate


@average("mean", "the mean over all branches, the branch itself included (Eq. 3)")
def mean(parts: Sequence[Float32], weights: Sequence[float]) -> list[Float32]:
    """Eq. 3 as printed."""
    return [_weighted_sum(parts, [1.0 / len(parts)] * len(parts))]


@average("leave_one_out", "the mean over the other branches", shared=False)
def leave_one_out(parts: Sequence[Float32], weights: Sequence[float]) -> list[Float32]:
    """A branch is taught by the others only; a branch alone by itself."""
    if len(parts) == 1:
        return [parts[0]]
    others = [[part for j, part in enumerate(parts) if j != i] for i in range(len(parts))]
    return [mean(rest, [1.0] * len(rest))[0] for rest in others]


@average("weighted", "the mean weighted by accuracy on the held-out clips", weighted=True)
def weighted_mean(parts: Sequence[Float32], weights: Sequence[float]) -> list[Float32]:
    """Where every branch's accuracy is 0, all count the same."""
    total = sum(weights)
    shares = [weight / total if total > 0 else 1.0 / len(parts) for weight in weights]
    return [_weighted_sum(parts, shares)]


def mean_of_binary_logits(parts: Sequence[Float32], weights: Sequence[float]) -> list[Float32]:
    """sigmoid(mean_i(z_i / T)), class by class, found from the soft labels sigmoid(z_i / T).

    A logit counts as no more than 17.3 either way: above it float32 tells no soft label from 1.
    """
    odds = _weighted_sum(parts, [1.0 / len(parts)] * len(parts), _log_odds)
    np.exp(np.negative(odds, out=odds), out=odds)
    odds += 1
    return [np.reciprocal(odds, out=odds)]


@average(
    "logits", "the softmax of the mean logits (a geometric mean)", multi_label=mean_of_binary_logits
)
def mean_of_logits(parts: Sequence[Float32], weights: Sequence[float]) -> list[Float32]:
    """softmax(mean_i(z_i / T)), found from the soft labels: log p_i is z_i / T less a constant."""
    log_mean = _weighted_sum(parts, [1.0 / len(parts)] * len(parts), _log)
    log_mean -= log_mean.max(axis=1, keepdims=True)
    np.exp(log_mean, out=log_mean)
    log_mean /= log_mean.sum(axis=1, keepdims=True)
    return [log_mean]


def _log(block: Float32, out: Float32) -> None:
    np.log(np.maximum(block, np.float32(1e-30), out=out), out=out)


def _log_odds(block: Float32, out: Float32) -> None:
    inside = np.clip(block, np.float32(2**-25), None)
    np.log(np.clip(1 - block, np.float32(2**-25), None, out=out), out=out)
    np.subtract(np.log(inside, out=inside), out, out=out)


def _weighted_sum(
    parts: Sequence[Float32],
    shares: Sequence[float],
    of: Callable[[Float32, Float32], None] | None = None,
) -> Float32:
    """Return the sum of share x part, or of share x of(part).

    Block by block: a pass over memory, not one for each term, and no memory but the sum's.
    """
    total = np.empty_like(parts[0])
    rows = max(1, BLOCK_BYTES // max(1, total.strides[0]))
    scratch = np.empty((rows, total.shape[1]), np.float32)
    for first in range(0, len(total), rows):
        here = slice(first, first + rows)
        block = total[here]
        for i, (part, share) in enumerate(zip(parts, shares, strict=True)):
            term = scratch[: len(block)] if i else block
            if of:
                of(part[here], term)
                term *= np.float32(share)
            else:
                np.multiply(part[here], np.float32(share), out=term)
            if i:
                block += term
    return total
