"""Thresholds of classes, and of being none of them."""

from __future__ import annotations

import numpy as np
import pytest

from mrkd_ray.scores.thresholds import PRESENT, class_thresholds, least_known


def test_a_class_has_the_threshold_of_its_highest_f1() -> None:
    truth = np.zeros((40, 3), np.int64)
    truth[:10, 0] = truth[:10, 1] = 1
    truth[:2, 2] = 1  # too few
    scores = np.full((40, 3), 0.1)
    scores[:10, 0], scores[:10, 1] = 0.3, 0.9
    found = class_thresholds(scores, truth, np.zeros((0, 3)))
    np.testing.assert_allclose(found, [0.2, PRESENT, PRESENT])
    noise = np.tile([0.25, 0.1, 0.1], (5, 1))  # lies above what would do without it
    assert class_thresholds(scores, truth, noise)[0] == pytest.approx(0.275)


def test_what_is_less_probable_than_what_is_known_is_none_of_these() -> None:
    p = np.linspace(0.5, 0.995, 100)
    scores = np.stack([p, 1 - p], axis=1)
    truth = np.zeros(100, np.int64)
    none = np.zeros((0, 2))
    least = least_known(scores, truth, none)
    assert least is not None
    assert (p >= least).mean() == pytest.approx(0.96)
    above = least_known(scores, truth, np.array([[0.53, 0.47]]))
    assert above is not None
    assert 0.53 < above < 0.54
    most = least_known(scores, truth, np.array([[0.99, 0.01]]))  # which too many clips lie below
    assert most is not None
    assert (p >= most).mean() == pytest.approx(0.91)
    assert least_known(scores, truth + 1, none) is None  # no clip is told right
