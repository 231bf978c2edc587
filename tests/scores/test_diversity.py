"""Measures of how errors go together, on counts worked out by hand."""

from __future__ import annotations

import math

import pytest
from numpy.typing import ArrayLike

from mrkd_ray.scores.diversity import correlation, disagreement, yule_q

# Both right on 3 clips, only the first on 2, only the second on 1, neither on 4.
FIRST = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
SECOND = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
MEASURES = (disagreement, correlation, yule_q)


def test_the_definitions_of_kuncheva_and_whitaker() -> None:
    assert disagreement(FIRST, SECOND) == pytest.approx(3 / 10)
    assert correlation(FIRST, SECOND) == pytest.approx((3 * 4 - 2 * 1) / math.sqrt(5 * 5 * 4 * 6))
    assert yule_q(FIRST, SECOND) == pytest.approx((3 * 4 - 2 * 1) / (3 * 4 + 2 * 1))


@pytest.mark.parametrize("measure", MEASURES)
def test_they_are_symmetric(measure: object) -> None:
    assert callable(measure)
    assert measure(FIRST, SECOND) == measure(SECOND, FIRST)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([1, 1, 0, 0], (0.0, 1.0, 1.0)),  # the same errors
        ([0, 0, 1, 1], (1.0, -1.0, -1.0)),  # never the same
        ([1, 0, 1, 0], (0.5, 0.0, 0.0)),  # independent
    ],
)
def test_extremes(second: ArrayLike, expected: tuple[float, ...]) -> None:
    found = [measure([1, 1, 0, 0], second) for measure in MEASURES]
    assert found == pytest.approx(expected)


def test_one_that_is_never_wrong_has_no_correlation() -> None:
    assert disagreement([1, 1, 1], [1, 1, 0]) == pytest.approx(1 / 3)
    assert math.isnan(correlation([1, 1, 1], [1, 1, 0]))
    assert math.isnan(yule_q([1, 1, 1], [1, 1, 0]))


@pytest.mark.parametrize("other", [[1, 0, 1], []])
def test_other_clips_are_refused(other: list[int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        disagreement(other, FIRST[:2] if other else other)
