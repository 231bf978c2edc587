"""What the space of logits looks like."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mrkd_ray.common.arrays import Float64
from mrkd_ray.scores.comparison import Model


def logits(probabilities: ArrayLike) -> Float64:
    """Return logits [n, M] with mean 0 in each row.

    A softmax keeps logits up to a constant per clip; that constant is set by the mean.
    Probabilities under float32's smallest normal number count as that.
    """
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny))
    centred: Float64 = logs - logs.mean(axis=1, keepdims=True)
    return centred


def silhouette(model: Model) -> Float64:
    """Return [n]: how compact the true classes are around each clip in logit space, in [-1, 1].

    (b - a) / max(a, b): a is the mean Euclidean distance to the other clips of its class, b that
    to the nearest other class. It does not change when all logits are scaled alike, so a network
    with softer outputs is not worse for it. Source: Rousseeuw, "Silhouettes", 1987; scikit-learn's
    `silhouette_samples`. 0 everywhere where there is just one class, or one clip for each.
    """
    from sklearn.metrics import silhouette_samples

    if not 2 <= len(np.unique(model.labels)) < len(model.labels):
        return np.zeros(len(model.labels))
    scores: Float64 = silhouette_samples(logits(model.probabilities), model.labels)
    return scores


def cka(first: Model, second: Model) -> float:
    """Return how alike two models arrange the same clips in logit space, in [0, 1].

    Linear centred kernel alignment, ||Y'X||^2 / (||X'X|| ||Y'Y||) in Frobenius norms, of the logits
    X and Y [n, M] with columns centred: 1 where one is the other scaled, rotated or moved; NaN
    where one is the same for all clips. Source: Kornblith et al., "Similarity of Neural Network
    Representations Revisited", ICML 2019, Section 3.

    Raises:
        ValueError: the models have not the same clips in the same order.
    """
    if first.clip_ids != second.clip_ids:
        raise ValueError("expected two models of the same clips, in the same order")
    x, y = (logits(model.probabilities) for model in (first, second))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norm = np.linalg.norm
    scale = norm(x.T @ x) * norm(y.T @ y)
    return float(norm(y.T @ x) ** 2 / scale) if scale else float("nan")
