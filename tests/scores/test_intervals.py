"""How intervals are computed, printed and marked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mrkd_ray.scores.intervals import NO_INTERVAL, Interval, paired_bootstrap, signed, t_interval


def interval(low: float, high: float, mean: float = 1.0) -> Interval:
    return Interval(mean, low, high, "bootstrap over clips")


@pytest.mark.parametrize(
    ("low", "high", "ends", "mark"),
    [
        (0.06, 2.0, "[0.1, 2.0]", "higher"),
        (0.04, 1.74, "[0.0, 1.7]", "ns"),  # above 0, but not as printed
        (-0.04, 1.7, "[0.0, 1.7]", "ns"),  # never "-0.0"
        (-3.0, -0.06, "[-3.0, -0.1]", "lower"),
        (-3.0, -0.04, "[-3.0, 0.0]", "ns"),
        (-0.5, 2.0, "[-0.5, 2.0]", "ns"),
        (0.0, 0.0, "[0.0, 0.0]", "ns"),
        (0.05, 1.0, "[0.1, 1.0]", "higher"),  # NumPy's own round says 0.0
    ],
)
def test_the_mark_is_of_the_ends_as_printed(low: float, high: float, ends: str, mark: str) -> None:
    for number in (float, np.float64):
        found = interval(number(low), number(high))
        assert (found.ends_text, found.mark) == (ends, mark)


def test_equal_texts_have_equal_marks() -> None:
    rng = np.random.default_rng(0)
    marks: dict[str, str] = {}
    for low, width in zip(rng.normal(0, 0.3, 20_000), rng.exponential(0.3, 20_000), strict=True):
        found = interval(low, low + width)
        assert marks.setdefault(found.ends_text, found.mark) == found.mark
        first, last = map(float, found.ends_text.strip("[]").split(","))
        assert (found.mark == "ns") is (first <= 0 <= last)
    assert set(marks.values()) == {"higher", "lower", "ns"}


def test_where_there_is_no_comparison_there_is_no_mark() -> None:
    assert NO_INTERVAL.mark == ""
    assert NO_INTERVAL.kind == ""


def test_a_difference_has_its_sign() -> None:
    assert [signed(x) for x in (1.25, -0.06, -0.04, 0.0)] == ["+1.2", "-0.1", "+0.0", "+0.0"]
    assert interval(0, 2, mean=-1.26).mean_text == "-1.3"


def test_an_interval_says_of_what_kind_it_is() -> None:
    assert paired_bootstrap([[[0, 1]]]).kind == "bootstrap over clips"
    assert paired_bootstrap([[[0, 1]], [[0, 1]] * 2]).kind == "bootstrap over clips and seeds"
    assert t_interval(np.array([0.0, 0.1])).kind == "t over runs"


def test_the_t_interval_of_three_runs_by_hand() -> None:
    found = t_interval(np.array([0.01, 0.02, 0.03]))
    half = 4.302653 * 1 / 3**0.5  # of two degrees of freedom; a standard deviation of 1 point
    expected = [2, 2 - half, 2 + half]
    assert [found.mean, found.low, found.high] == pytest.approx(expected)
    assert t_interval(np.array([0.01])).mark == ""  # a single run has none


def test_bootstrap_by_hand() -> None:
    # One fold, one seed, two clips with differences 0 and 1: the mean of a draw is 0, 1/2 or 1
    # with probabilities 1/4, 1/2, 1/4, so the 95% interval is the whole of 0 to 100 points.
    result = paired_bootstrap([[[0, 1]]])
    assert (result.mean, result.low, result.high) == (50, 0, 100)
    # The same for two seeds of one clip; clips, or seeds, in folds of their own are not drawn.
    result = paired_bootstrap([[[0], [1]]])
    assert (result.mean, result.low, result.high) == (50, 0, 100)
    result = paired_bootstrap([[[0]], [[1]]])
    assert (result.mean, result.low, result.high) == (50, 50, 50)
    # Every clip counts once, whatever the number of its seeds.
    assert paired_bootstrap([[[0, 0, 0]], [[1], [3]]]).mean == 50


def test_bootstrap_draws_seeds_and_clips_crossed() -> None:
    # All pairs of drawn seeds and clips, enumerated: 2 seeds and 2 clips have 4 x 4 draws.
    differences = np.array([[0.0, 1.0], [2.0, 7.0]])
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1)]
    means = [differences[np.ix_(s, c)].mean() for s in pairs for c in pairs]
    result = paired_bootstrap([differences], n=20_000)
    assert result.mean == 250
    assert (result.low, result.high) == (100 * min(means), 100 * max(means))  # 1/16 each


def test_bootstrap_with_one_seed_equals_the_normal_interval_on_many_clips() -> None:
    rng = np.random.default_rng(1)
    folds = [rng.normal(0.1 * fold, 1, (1, 2000)) for fold in range(5)]
    result = paired_bootstrap(folds, seed=3)
    half = 1.96 * np.sqrt(np.mean([fold.var() for fold in folds]))  # of 10,000 clips, in points
    assert result.mean == pytest.approx(100 * np.mean(folds), abs=1e-13)
    assert result.high - result.mean == pytest.approx(half, rel=0.08)
    assert result.mean - result.low == pytest.approx(half, rel=0.08)
    assert result == paired_bootstrap(folds, seed=3)
    assert result != paired_bootstrap(folds, seed=4)


def test_bootstrap_holds_the_variation_between_seeds() -> None:
    # A difference between seeds that all clips share: the interval is that of the seeds' means.
    rng = np.random.default_rng(2)
    seeds = rng.normal(size=(30, 1)) + 0.01 * rng.normal(size=(30, 500))
    result = paired_bootstrap([seeds], n=4000)
    half = 100 * 1.96 * seeds.mean(axis=1).std() / np.sqrt(30)
    assert (result.high - result.low) / 2 == pytest.approx(half, rel=0.08)


@pytest.mark.parametrize(
    ("seeds", "varied", "covered"), [(1, 0, 0.95), (5, 0.1, 0.97), (1, 0.1, 0.68)]
)
def test_bootstrap_covers_the_truth(seeds: int, varied: float, covered: float) -> None:
    # Two models whose true accuracies differ by about 0.1, on 50 clips in each of 3 folds, over and
    # over. Seeds shift a model's bar: 95% is meant, with five seeds it is more, with one less.
    rng, truth = np.random.default_rng(5), _true_difference(varied)
    found = []
    for draw in range(300):
        folds = []
        for _ in range(3):
            difficulty = rng.random(50)
            hit = [
                difficulty + 0.3 * rng.normal(size=(seeds, 50))
                < bar + varied * rng.normal(size=(seeds, 1))
                for bar in (0.6, 0.7)
            ]
            folds.append(hit[1].astype(float) - hit[0])
        interval = paired_bootstrap(folds, seed=draw, n=500)
        found.append(interval.low <= 100 * truth <= interval.high)
    assert np.mean(found) == pytest.approx(covered, abs=0.04)


def _true_difference(varied: float) -> float:
    """P(difficulty + 0.3 z < 0.7 + varied z') - P(... < 0.6 + ...), by summing over a fine grid."""
    from scipy.stats import norm

    difficulty = (np.arange(10_000) + 0.5) / 10_000
    spread = np.hypot(0.3, varied)
    chance = [norm.cdf((bar - difficulty) / spread).mean() for bar in (0.6, 0.7)]
    return float(chance[1] - chance[0])


@pytest.mark.parametrize(
    "differences", [[], [[]], [[[]]], [[1.0, 2.0]], [[[1.0, np.nan]]], [[[1.0]], [[np.inf]]]]
)
def test_bootstrap_refuses(differences: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|finite"):
        paired_bootstrap(differences)
