"""Doubted labels, disagreement and uncertainty take turns."""

import numpy as np

from mrkd_ray.scores.to_review import to_review


def test_each_reason_by_hand_and_in_turns() -> None:
    sure, torn, even = [0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.4, 0.35, 0.25]
    branches = np.array(
        [
            [sure, sure, sure, even, torn, sure],  # of clips 0 to 5
            [sure, torn, sure, even, torn, [0.1, 0.5, 0.4]],
            [sure, sure, sure, even, torn, [0.1, 0.4, 0.5]],
        ]
    )
    labels = np.array([0, 0, 2, 0, 0, 0])  # clips 2 and 4 look wrong
    found = [(d.clip, d.reason, d.disagreement) for d in to_review(branches, labels, 9)]
    assert found == [
        (2, "label doubted", 0.0),
        (5, "branches disagree", 2 / 3),
        (3, "uncertain", 0.0),
        (4, "label doubted", 0.0),
        (1, "branches disagree", 1 / 3),
        (0, "uncertain", 0.0),
    ]
    assert [d.clip for d in to_review(branches, labels, 2)] == [2, 5]


def test_a_hard_clip_of_many_classes_is_not_doubted() -> None:
    probabilities = np.array([[[0.5, 0.3, 0.1, 0.05, 0.05], [0.5, 0.3, 0.1, 0.06, 0.04]]])
    found = to_review(probabilities, np.array([1, 4]), 9)
    assert [(d.clip, d.reason) for d in found] == [(1, "label doubted"), (0, "uncertain")]


def test_of_several_labels_a_class_is_heard_from_one_half_on() -> None:
    right, other, near = [0.9, 0.1], [0.9, 0.9], [0.9, 0.45]
    branches = np.array([[right, right, near, right], [right, other, near, right]])
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])
    found = [(d.clip, d.reason, d.disagreement) for d in to_review(branches, labels, 9)]
    assert found == [
        (3, "label doubted", 0.0),
        (1, "branches disagree", 0.5),
        (2, "uncertain", 0.0),
        (0, "uncertain", 0.0),
    ]
