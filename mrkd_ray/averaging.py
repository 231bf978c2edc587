"""Eq. 3, information fusion: from every branch's soft labels to a teacher for each branch.

In NumPy, so that the aggregator's process never loads PyTorch. A rule is one function and the
decorator `average`; it gets a shard of clips at a time and must treat rows one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.registry import Registry

Array = NDArray[np.float32]
Rule = Callable[[Sequence[Array], Sequence[float]], list[Array]]


@dataclass(frozen=True)
class Average:
    """A rule: `combine(parts, weights)` with parts of shape [n, M], one for each branch.

    It returns one teacher for all branches where `shared`, else one for each branch in order.
    Parts may be read-only (they lie in Ray's object store). Weights are the branches' accuracies
    on the held-out clips, and are all 1 where `weighted` is false. With `one_label` a row must be
    one distribution, as it is where a clip has one label.
    """

    combine: Rule
    shared: bool
    weighted: bool
    one_label: bool
    description: str


AVERAGES: Registry[Average] = Registry("average")

BLOCK_BYTES = 2**18  # stays in a core's cache


def average(
    name: str,
    description: str,
    *,
    shared: bool = True,
    weighted: bool = False,
    one_label: bool = False,
) -> Callable[[Rule], Rule]:
    """Register a rule of information fusion."""

    def decorate(rule: Rule) -> Rule:
        AVERAGES.add(name, Average(rule, shared, weighted, one_label, description))
        return rule

    return decorate


@average("mean", "the mean over all branches, the branch itself included (Eq. 3)")
def mean(parts: Sequence[Array], weights: Sequence[float]) -> list[Array]:
    """Eq. 3 as printed."""
    return [_weighted_sum(parts, [1.0 / len(parts)] * len(parts))]


@average("leave_one_out", "the mean over the other branches", shared=False)
def leave_one_out(parts: Sequence[Array], weights: Sequence[float]) -> list[Array]:
    """A branch is taught by the others only; a branch alone by itself."""
    if len(parts) == 1:
        return [parts[0]]
    others = [[part for j, part in enumerate(parts) if j != i] for i in range(len(parts))]
    return [mean(rest, [1.0] * len(rest))[0] for rest in others]


@average("weighted", "the mean weighted by accuracy on the held-out clips", weighted=True)
def weighted_mean(parts: Sequence[Array], weights: Sequence[float]) -> list[Array]:
    """Where every branch's accuracy is 0, all count the same."""
    total = sum(weights)
    shares = [weight / total if total > 0 else 1.0 / len(parts) for weight in weights]
    return [_weighted_sum(parts, shares)]


@average(
    "confidence", "the mean weighted, clip by clip, by how certain a branch is", one_label=True
)
def confidence(parts: Sequence[Array], weights: Sequence[float]) -> list[Array]:
    """A branch's weight in a clip is 1 / (entropy + 0.01 nats)."""
    certain = [1 / (0.01 - (part * np.log(np.maximum(part, 1e-30))).sum(1)) for part in parts]
    total = np.sum(certain, axis=0)
    shares = [(one / total).astype(np.float32)[:, None] for one in certain]
    return [sum(share * part for share, part in zip(shares, parts, strict=True))]


@average("logits", "the softmax of the mean logits (a geometric mean)", one_label=True)
def mean_of_logits(parts: Sequence[Array], weights: Sequence[float]) -> list[Array]:
    """softmax(mean_i(z_i / T)), found from the soft labels: log p_i is z_i / T less a constant."""
    floor = np.float32(1e-30)
    log_mean = _weighted_sum(
        [np.log(np.maximum(part, floor)) for part in parts], [1.0 / len(parts)] * len(parts)
    )
    log_mean -= log_mean.max(axis=1, keepdims=True)
    np.exp(log_mean, out=log_mean)
    log_mean /= log_mean.sum(axis=1, keepdims=True)
    return [log_mean]


def _weighted_sum(parts: Sequence[Array], shares: Sequence[float]) -> Array:
    """Return the sum of share x part, block by block: a pass over memory, not one for each term."""
    total = np.empty_like(parts[0])
    rows = max(1, BLOCK_BYTES // max(1, total.strides[0]))
    scratch = np.empty((rows, total.shape[1]), np.float32)
    for first in range(0, len(total), rows):
        here = slice(first, first + rows)
        block = total[here]
        np.multiply(parts[0][here], np.float32(shares[0]), out=block)
        for part, share in zip(parts[1:], shares[1:], strict=True):
            block += np.multiply(part[here], np.float32(share), out=scratch[: len(block)])
    return total
