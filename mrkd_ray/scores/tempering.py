"""Temperature scaling: probabilities that say how often they are right. NumPy only.

Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section
4.2. Of several models it is the mean of their probabilities that is scaled: Rahaman and Thiery,
"Uncertainty Quantification and Deep Ensembles", NeurIPS 2021 (pool, then calibrate).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrkd_ray.common.arrays import Float64

LEAST, MOST = 0.05, 20.0  # of a temperature
GOLDEN = (5**0.5 - 1) / 2

SMALLEST = float(np.finfo(np.float32).tiny)
LARGEST = 1 - 2.0**-24
"""The probability that is as near to 1 as float32 tells apart."""


def temper(probabilities: ArrayLike, temperature: float, *, multi_label: bool) -> Float64:
    """Return probabilities as logits divided by a temperature would give them.

    A softmax to the power 1 / T, normalised, is the softmax of the logits over T; so is a sigmoid's
    odds. The order of classes stays.

    Args:
        probabilities: [..., M].
        temperature: T, above 0. 1 changes nothing.
        multi_label: whether each class has a probability of its own.
    """
    given = np.asarray(probabilities, np.float64)
    if temperature == 1:
        return given
    if multi_label:
        within = given.clip(SMALLEST, LARGEST)
        odds = np.log(within / (1 - within)) / temperature
        return np.asarray(1 / (1 + np.exp(-odds)))
    powers = np.log(given.clip(min=SMALLEST)) / temperature
    powers = np.exp(powers - powers.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def fit_temperature(probabilities: ArrayLike, truth: NDArray[np.integer]) -> float:
    """Return the temperature of the least cross-entropy.

    As if one clip more had been of every class a little (Platt's correction): without, clips that
    are all told right would ask for a temperature of 0.

    Args:
        probabilities: [n, M], n >= 1.
        truth: class indices [n], or 0 and 1 [n, M].
    """
    given = np.asarray(probabilities, np.float64)
    n, classes = given.shape
    multi_label = truth.ndim == 2
    few = 1 / (n + 1)
    if multi_label:
        targets = (1 - few) * truth + few / 2
    else:
        targets = (1 - few) * np.eye(classes)[truth] + few / classes

    def loss(log_temperature: float) -> float:
        p = temper(given, float(np.exp(log_temperature)), multi_label=multi_label)
        found = targets * np.log(p.clip(min=SMALLEST))
        if multi_label:
            found += (1 - targets) * np.log((1 - p).clip(min=SMALLEST))
        return float(-found.sum() / n)

    # Golden-section search: the loss has one minimum. SciPy's takes half a second to be imported,
    # whenever a model is loaded.
    low, high = float(np.log(LEAST)), float(np.log(MOST))
    one, other = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_one, at_other = loss(one), loss(other)
    while high - low > 1e-4:
        if at_one < at_other:
            high, other, at_other = other, one, at_one
            one = high - GOLDEN * (high - low)
            at_one = loss(one)
        else:
            low, one, at_one = one, other, at_other
            other = low + GOLDEN * (high - low)
            at_other = loss(other)
    return float(np.exp((low + high) / 2))


def crossfitted(probabilities: ArrayLike, truth: NDArray[np.integer]) -> Float64:
    """Return calibrated probabilities [n, M]: of each half, by the temperature of the other one.

    So what is said of them is not of the clips that they were fitted to. Every second clip is in
    the same half.
    """
    given = np.asarray(probabilities, np.float64)
    found = given.copy()
    for half, other in ((0, 1), (1, 0)):
        if len(given) > 1:
            temperature = fit_temperature(given[other::2], truth[other::2])
            found[half::2] = temper(given[half::2], temperature, multi_label=truth.ndim == 2)
    return found
