import numpy as np
import pytest
from sklearn.metrics import accuracy_score, label_ranking_average_precision_score

from mrkd_ray.metrics import (
    accuracy,
    hits,
    map_at_3,
    paired_bootstrap,
    reciprocal_rank_at_3,
)


def random_scores(n: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, m, n)
    scores = rng.random((n, m)).astype(np.float32)
    scores[np.arange(n), labels] += rng.random(n).astype(np.float32)
    return scores / scores.sum(axis=1, keepdims=True), labels


def slow_map_at_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """From the definition: average precision of the k best guesses, averaged over clips."""
    total = 0.0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]
        found, precisions = 0, []
        for position, guess in enumerate(best, start=1):
            if guess == label:
                found += 1
                precisions.append(found / position)
        total += sum(precisions) / 1  # one relevant label
    return total / len(labels)


@pytest.mark.parametrize("m", [2, 3, 12, 50])
def test_equal_independent_implementations(m: int) -> None:
    scores, labels = random_scores(400, m, seed=m)
    assert accuracy(scores, labels) == accuracy_score(labels, scores.argmax(axis=1))
    assert map_at_3(scores, labels) == pytest.approx(slow_map_at_k(scores, labels, 3), abs=1e-14)
    if m <= 3:  # the three best are all: scikit-learn's measure without a cut
        one_hot = np.eye(m)[labels]
        expected = label_ranking_average_precision_score(one_hot, scores)
        assert map_at_3(scores, labels) == pytest.approx(expected, abs=1e-14)


def test_by_hand() -> None:
    scores = [[0.1, 0.2, 0.3, 0.4]] * 4
    np.testing.assert_array_equal(hits(scores, [3, 2, 1, 0]), [1, 0, 0, 0])
    np.testing.assert_array_equal(reciprocal_rank_at_3(scores, [3, 2, 1, 0]), [1, 1 / 2, 1 / 3, 0])
    assert accuracy(scores, [3, 2, 1, 0]) == 0.25
    assert map_at_3(scores, [3, 2, 1, 0]) == pytest.approx(11 / 24)
    assert hits(scores, [3, 2, 1, 0]).dtype == np.float64


def test_ties_go_to_the_lower_class_index() -> None:
    scores, labels = np.zeros((4, 4)), np.arange(4)
    np.testing.assert_array_equal(hits(scores, labels), [1, 0, 0, 0])
    np.testing.assert_array_equal(reciprocal_rank_at_3(scores, labels), [1, 1 / 2, 1 / 3, 0])


def test_infinite_scores_rank_like_others() -> None:
    np.testing.assert_array_equal(hits([[-np.inf, 0.0], [np.inf, 0.0]], [1, 0]), [1, 1])


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([[0.5, np.nan]], [0], "NaN"),
        ([[0.5, 0.5]], [2], r"0\.\.1"),
        ([[0.5, 0.5]], [-1], r"0\.\.1"),
        ([[0.5, 0.5]], [0.0], "integers"),
        ([[0.5, 0.5]], [0, 1], "expected"),
        ([0.5, 0.5], [0, 1], "expected"),
        (np.zeros((0, 3)), np.zeros(0, int), "no clips"),
    ],
)
def test_refuses(scores: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy(scores, labels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        map_at_3(scores, labels)  # type: ignore[arg-type]


def test_bootstrap_by_hand() -> None:
    # One stratum of two clips with differences 0 and 1: the mean of a draw is 0, 1/2 or 1 with
    # probabilities 1/4, 1/2, 1/4, so the 95% interval is the whole of [0, 1].
    result = paired_bootstrap([0, 0], [0, 1], [0, 0])
    assert (result.mean, result.low, result.high) == (0.5, 0.0, 1.0)
    # The same clips in strata of their own: nothing is left to draw.
    result = paired_bootstrap([0, 0], [0, 1], ["x", "y"])
    assert (result.mean, result.low, result.high) == (0.5, 0.5, 0.5)
    # Paired: equal models never differ, however much the clips do. And b - a, not a - b.
    values = np.random.default_rng(0).random(50)
    result = paired_bootstrap(values, values, np.zeros(50))
    assert (result.mean, result.low, result.high) == (0, 0, 0)
    assert paired_bootstrap(values, values + 1, np.zeros(50)).low == pytest.approx(1)


def test_bootstrap_equals_the_normal_interval_on_many_clips() -> None:
    rng = np.random.default_rng(1)
    strata = np.repeat(np.arange(5), 2000)
    a, b = rng.random((2, 10_000)) + 0.1 * strata
    result = paired_bootstrap(a, b, strata, seed=3)
    within = np.concatenate([(b - a)[strata == s] - (b - a)[strata == s].mean() for s in range(5)])
    half = 1.96 * within.std() / 100
    assert result.mean == pytest.approx((b - a).mean(), abs=1e-15)
    assert result.high - result.mean == pytest.approx(half, rel=0.08)
    assert result.mean - result.low == pytest.approx(half, rel=0.08)
    assert result == paired_bootstrap(a, b, strata, seed=3)
    assert result != paired_bootstrap(a, b, strata, seed=4)


def test_bootstrap_covers_the_truth() -> None:
    # Two models whose true accuracies differ by 0.1, on 150 clips in 3 folds, 300 times over.
    rng = np.random.default_rng(2)
    strata = np.repeat([1, 2, 3], 50)
    covered = 0
    for seed in range(300):
        difficulty = rng.random(150)
        a = (difficulty + 0.3 * rng.standard_normal(150) < 0.6).astype(float)
        b = (difficulty + 0.3 * rng.standard_normal(150) < 0.7).astype(float)
        interval = paired_bootstrap(a, b, strata, seed=seed, n=500)
        covered += interval.low <= TRUE_DIFFERENCE <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def _true_difference() -> float:
    """P(difficulty + 0.3 z < 0.7) - P(... < 0.6), z normal, by summing over a fine grid."""
    from scipy.stats import norm

    difficulty = (np.arange(10_000) + 0.5) / 10_000
    chance = [norm.cdf((bar - difficulty) / 0.3).mean() for bar in (0.6, 0.7)]
    return float(chance[1] - chance[0])


TRUE_DIFFERENCE = _true_difference()


@pytest.mark.parametrize(
    ("a", "b", "strata"),
    [([], [], []), ([1, 2], [1], [0, 0]), ([1.0, np.nan], [1, 1], [0, 0]), ([1, 2], [1, 2], [0])],
)
def test_bootstrap_refuses(a: list[float], b: list[float], strata: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected|finite"):
        paired_bootstrap(a, b, strata)
