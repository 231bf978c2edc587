"""Labels that are wrong by chance are told from clips that are hard."""

from __future__ import annotations

import numpy as np
import pytest

from mrkd_ray.scores.doubtful_labels import doubted, wrong_share


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
