import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    label_ranking_average_precision_score,
)

from mrkd_ray.scores.metrics import (
    MULTI_LABEL,
    Metric,
    accuracy,
    hits,
    measure,
    reciprocal_rank_at_3,
    shown,
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
    assert measure(scores, labels)["map3"] == pytest.approx(
        slow_map_at_k(scores, labels, 3), abs=1e-14
    )
    if m <= 3:  # the three best are all: scikit-learn's measure without a cut
        one_hot = np.eye(m)[labels]
        expected = label_ranking_average_precision_score(one_hot, scores)
        assert measure(scores, labels)["map3"] == pytest.approx(expected, abs=1e-14)


def test_by_hand() -> None:
    scores = [[0.1, 0.2, 0.3, 0.4]] * 4
    np.testing.assert_array_equal(hits(scores, [3, 2, 1, 0]), [1, 0, 0, 0])
    np.testing.assert_array_equal(reciprocal_rank_at_3(scores, [3, 2, 1, 0]), [1, 1 / 2, 1 / 3, 0])
    assert accuracy(scores, [3, 2, 1, 0]) == 0.25
    assert measure(scores, [3, 2, 1, 0])["map3"] == pytest.approx(11 / 24)
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
        measure(scores, labels)  # type: ignore[arg-type]


def tagged(seed: int, n: int = 50, m: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many equal ones, and multi-hot labels, some clips without; a class without."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, m)) < 0.25).astype(np.int64)
    labels[:, 3] = 0
    return (rng.random((n, m)) + 0.3 * labels).round(1), labels


@pytest.mark.parametrize("seed", range(5))
def test_multi_label_figures_equal_scikit_learn(seed: int) -> None:
    scores, labels = tagged(seed)
    tested = labels.any(axis=0)
    found = measure(scores, labels)
    mean = average_precision_score(labels[:, tested], scores[:, tested], average="macro")
    assert found["map"] == pytest.approx(mean, abs=1e-12)
    weighted = label_ranking_average_precision_score(
        labels, scores, sample_weight=labels.sum(axis=1)
    )
    assert found["lwlrap"] == pytest.approx(weighted, abs=1e-12)
    assert list(found) == ["map", "lwlrap"]


@pytest.mark.parametrize("metric", MULTI_LABEL, ids=lambda metric: metric.name)
def test_a_term_says_how_the_figure_changes_with_the_weight_of_its_clip(metric: Metric) -> None:
    scores, labels = tagged(0, n=20)
    tested = labels.any(axis=0)

    def figure(weights: np.ndarray) -> float:
        if metric.name == "map":
            return float(
                average_precision_score(
                    labels[:, tested], scores[:, tested], average="macro", sample_weight=weights
                )
            )
        weights = weights * labels.sum(axis=1)
        return float(label_ranking_average_precision_score(labels, scores, sample_weight=weights))

    step = 1e-6
    slopes = [(figure(1 + step * row) - figure(1 - step * row)) / (2 * step) for row in np.eye(20)]
    expected = figure(np.ones(20)) + 20 * np.array(slopes)
    np.testing.assert_allclose(metric.terms(scores, labels), expected, atol=1e-6)


def test_terms_drawn_again_spread_like_figures_of_clips_drawn_again() -> None:
    scores, labels = tagged(1, n=300)
    for metric in MULTI_LABEL:
        terms = metric.terms(scores, labels)
        rng = np.random.default_rng(0)
        draws = [rng.integers(0, 300, 300) for _ in range(200)]
        whole = [measure(scores[draw], labels[draw])[metric.name] for draw in draws]
        assert np.std([terms[draw].mean() for draw in draws]) == pytest.approx(
            np.std(whole), rel=0.15
        )


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([[0.5, np.nan]], [[0, 1]], "NaN"),
        ([[0.5, 0.5]], [[0, 2]], "0 or 1"),
        ([[0.5, 0.5]], [[0, 0]], "all 0"),
        ([[0.5, 0.5]], [[0, 1, 0]], "expected"),
    ],
)
def test_multi_label_refuses(scores: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(scores, labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
def test_balanced_accuracy_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(5, 60, p=[0.6, 0.3, 0.05, 0.05, 0.0])
    scores = rng.random((60, 5))
    found = measure(scores, labels)["balanced_accuracy"]
    assert found == pytest.approx(balanced_accuracy_score(labels, scores.argmax(axis=1)))


def test_a_class_that_is_never_found_shows_in_the_balanced_accuracy() -> None:
    labels = np.array([0] * 99 + [1])
    found = measure(np.tile([0.9, 0.1], (100, 1)), labels)
    assert (found["accuracy"], found["balanced_accuracy"]) == pytest.approx((0.99, 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_macro_f1_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(5, 60, p=[0.6, 0.3, 0.05, 0.05, 0.0])
    scores = rng.random((60, 5))
    expected = f1_score(labels, scores.argmax(1), labels=np.unique(labels), average="macro")
    assert measure(scores, labels)["macro_f1"] == pytest.approx(expected)


def test_where_classes_have_as_many_clips_the_balanced_accuracy_is_not_shown() -> None:
    row = {"accuracy": 0.75, "map3": 0.8, "balanced_accuracy": 0.75, "macro_f1": 0.7}
    assert [metric.name for metric in shown(row)] == ["accuracy", "map3"]
    assert [metric.name for metric in shown(row | {"balanced_accuracy": 0.5})] == [*row]
    old = {"accuracy_distilled": 1.0, "map3_distilled": 1.0}
    assert [metric.name for metric in shown(old)] == ["accuracy", "map3"]
