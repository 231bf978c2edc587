"""Labels that are wrong by chance are told from clips that are hard."""

from __future__ import annotations

import numpy as np
import pytest

from mrkd_ray.scores.doubtful_labels import doubted, in_front, wrong_share


def test_the_less_probable_half_by_hand() -> None:
    five = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    found = [bool(doubted(five[None], np.array([label]))[0]) for label in range(5)]
    assert found == [False, False, False, True, True]
    four = np.array([0.4, 0.3, 0.2, 0.1])
    assert [bool(doubted(four[None], np.array([i]))[0]) for i in range(4)] == [False] * 2 + [
        True
    ] * 2


@pytest.mark.parametrize("classes", [5, 10, 11])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_the_share_of_labels_that_are_wrong_by_chance(classes: int, share: float) -> None:
    rng = np.random.default_rng(0)
    clips = 20_000
    true = rng.integers(classes, size=clips)
    probabilities = rng.dirichlet(np.ones(classes), size=clips)
    # The true class is among the first two of each clip: hard, and never in the lower half.
    order = probabilities.argsort(axis=1)
    place = np.take_along_axis(order, rng.integers(1, 3, size=(clips, 1)) * -1, axis=1)[:, 0]
    rows = np.arange(clips)
    probabilities[rows, true], probabilities[rows, place] = (
        probabilities[rows, place],
        probabilities[rows, true],
    )
    wrong = rng.random(clips) < share
    labels = np.where(wrong, (true + rng.integers(1, classes, size=clips)) % classes, true)
    doubts = doubted(probabilities, labels)
    assert not doubts[~wrong].any()
    assert wrong_share(doubts.mean(), classes) == pytest.approx(share, abs=0.03)


def test_few_classes_say_nothing() -> None:
    assert np.isnan(wrong_share(0.1, 4))
    assert wrong_share(0.1, 5) == pytest.approx(0.2)


def test_classes_that_are_held_impossible_share_their_ranks() -> None:
    sure = np.array([[1.0, 0, 0, 0, 0, 0]])  # five ranks from the second on: their mean is 3
    assert doubted(sure, np.array([5]))[0]
    assert not doubted(np.array([[0.6, 0.4, 0, 0]]), np.array([1]))[0]
    assert not doubted(sure, np.array([0]))[0]


def with_ranks(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of so many clips with the label in each place."""
    classes = len(counts)
    places = np.repeat(np.arange(classes), counts)
    labels = np.arange(len(places)) % classes
    falling = np.arange(classes, 0, -1) / np.arange(classes + 1).sum()
    return falling[(np.arange(classes) - labels[:, None] + places[:, None]) % classes], labels


def test_the_part_of_right_labels_in_front_by_hand() -> None:
    probabilities, labels = with_ranks([60, 10, 5, 5, 5, 5, 5, 5, 0, 0])
    assert wrong_share(doubted(probabilities, labels).mean(), 10) == pytest.approx(0.15 * 9 / 5)
    assert in_front(probabilities, labels) == pytest.approx(0.6 / (1 - 0.27))
    assert in_front(*with_ranks([0, 0, 0, 0, 0, 20, 20, 20, 20, 20])) == 0
    assert np.isnan(in_front(*with_ranks([5, 5, 5, 5])))


@pytest.mark.parametrize("wrong", [0, 10, 40])  # in each place behind the first
def test_wrong_labels_do_not_change_what_is_in_front(wrong: int) -> None:
    few = [800, 200, *[0] * 8]
    many = [500, 200, 100, 200, *[0] * 46]  # three of 50 classes are in front
    for right, expected in ((few, 0.8), (many, 0.8)):
        counts = [n + wrong * (place > 0) for place, n in enumerate(right)]
        assert in_front(*with_ranks(counts)) == pytest.approx(expected)
