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
    scores = np.stack([p, 1 - p, np.zeros(100)], axis=1)
    scores[1::2] = scores[1::2, [1, 0, 2]]  # every second clip is of the second class
    truth = np.arange(100) % 2
    none = np.zeros((0, 3))
    least = least_known(scores, truth, none)
    assert least is not None
    assert (p >= least[truth]).mean() == pytest.approx(0.96)
    assert least[0] == least[1] == least[2]
    # A class rises above the noise that is taken for it; the others stay.
    above = least_known(scores, truth, np.array([[0.55, 0.45, 0.0], [0.1, 0.0, 0.9]]))
    assert above is not None
    assert 0.55 < above[0] < 0.551
    assert above[1] == least[1]
    assert 0.9 < above[2] < 0.901  # which costs no clip
    assert (p >= above[truth]).mean() >= 0.9
    # Where too many clips would be lost, it stays.
    most = least_known(scores, truth, np.array([[0.99, 0.01, 0.0]]))
    assert most is not None
    np.testing.assert_array_equal(most, least)
    assert least_known(scores, 1 - truth, none) is None  # no clip is told right
