"""How far confidence is from accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mrkd_ray.common.arrays import Float64, Int64
from mrkd_ray.scores.comparison import Model
from mrkd_ray.scores.tempering import crossfitted

BINS = 15  # of a reliability diagram: Guo et al.'s


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram: for each of the bins, [bins]; NaN where a bin has no clips.

    Attributes:
        clips: number of predictions.
        confidence: mean of the highest probability.
        accuracy: part of the predictions that are right.
        ece: expected calibration error, in [0, 1].
    """

    clips: Int64
    confidence: Float64
    accuracy: Float64
    ece: float


def calibration(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Calibration:
    """Return how far confidence is from accuracy.

    The confidence of a prediction is its highest probability; bin m of B holds those in
    ((m - 1) / B, m / B]; ECE is the sum over bins of n_m / n * |accuracy_m - confidence_m|.
    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
    equations 2 and 3, with their B = 15.

    Args:
        probabilities: [n, M].
        labels: class indices [n].
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    place = np.digitize(confidence, np.arange(1, bins) / bins, right=True)
    clips = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(place, confidence, bins) / clips
        accuracy = np.bincount(place, right, bins) / clips
    gaps = np.nan_to_num(np.abs(accuracy - mean_confidence))
    ece = float((clips * gaps).sum() / clips.sum())
    return Calibration(clips, mean_confidence, accuracy, ece)


def pooled(models: Sequence[Model]) -> Calibration:
    """Return the calibration over the predictions of all runs together."""
    return calibration(
        np.concatenate([model.probabilities for model in models]),
        np.concatenate([model.labels for model in models]),
    )


def tempered(models: Sequence[Model]) -> Calibration:
    """As `pooled`, of probabilities that are calibrated in each run (`tempering.crossfitted`)."""
    return calibration(
        np.concatenate([crossfitted(model.probabilities, model.labels) for model in models]),
        np.concatenate([model.labels for model in models]),
    )
