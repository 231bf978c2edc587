"""Eq. 3: every rule against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.method.averaging import AVERAGES

A = np.array([[0.8, 0.1, 0.1], [0.2, 0.2, 0.6]], np.float32)
B = np.array([[0.4, 0.4, 0.2], [0.0, 1.0, 0.0]], np.float32)
C = np.array([[0.3, 0.4, 0.3], [0.1, 0.6, 0.3]], np.float32)
EQUAL = [1.0, 1.0, 1.0]

BY_HAND = {
    "mean": [[[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]],
    "leave_one_out": [
        [[0.35, 0.4, 0.25], [0.05, 0.8, 0.15]],
        [[0.55, 0.25, 0.2], [0.15, 0.4, 0.45]],
        [[0.6, 0.25, 0.15], [0.1, 0.6, 0.3]],
    ],
}


def soft_labels(branches: int, clips: int = 7, classes: int = 5) -> list[Float32]:
    rng = np.random.default_rng(branches)
    shape = (branches, clips)
    return list(rng.dirichlet(np.ones(classes), size=shape).astype(np.float32))


@pytest.mark.parametrize("name", ["mean", "leave_one_out"])
def test_by_hand(name: str) -> None:
    np.testing.assert_allclose(
        AVERAGES[name].combine([A, B, C], EQUAL), BY_HAND[name], rtol=0, atol=1e-6
    )


def test_weighted_by_hand() -> None:
    # Shares 3/8, 2/8 and 3/8.
    expected = (3 * A + 2 * B + 3 * C) / 8
    (teacher,) = AVERAGES["weighted"].combine([A, B, C], [0.6, 0.4, 0.6])
    np.testing.assert_allclose(teacher, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(teacher[0], [0.5125, 0.2875, 0.2], rtol=0, atol=1e-6)
    (one,) = AVERAGES["weighted"].combine([A, B, C], [0.0, 0.7, 0.0])
    np.testing.assert_allclose(one, B, rtol=0, atol=1e-6)


def test_weighted_counts_all_the_same_where_every_accuracy_is_zero() -> None:
    (teacher,) = AVERAGES["weighted"].combine([A, B, C], [0.0, 0.0, 0.0])
    np.testing.assert_allclose(teacher, BY_HAND["mean"][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_logits_is_the_softmax_of_the_mean_logits_at_that_temperature(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(scale=4, size=(3, 9, 5))
    parts = [scipy.special.softmax(z / temperature, axis=1).astype(np.float32) for z in logits]
    (teacher,) = AVERAGES["logits"].combine(parts, EQUAL)
    expected = scipy.special.softmax(logits.mean(axis=0) / temperature, axis=1)
    np.testing.assert_allclose(teacher, expected, rtol=1e-4, atol=1e-7)


def test_logits_by_hand_and_with_classes_that_a_branch_rules_out() -> None:
    one = np.array([[0.8, 0.2], [1.0, 0.0], [1.0, 0.0]], np.float32)
    other = np.array([[0.5, 0.5], [0.5, 0.5], [0.0, 1.0]], np.float32)
    (teacher,) = AVERAGES["logits"].combine([one, other], [1.0, 1.0])
    # sqrt(0.8 * 0.5) to sqrt(0.2 * 0.5) is 2 to 1.
    np.testing.assert_allclose(teacher, [[2 / 3, 1 / 3], [1, 0], [0.5, 0.5]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("branches", [1, 2, 5])
@pytest.mark.parametrize("name", list(AVERAGES))
def test_a_teacher_for_all_or_one_for_each_and_all_of_probabilities(
    name: str, branches: int
) -> None:
    rule = AVERAGES[name]
    teachers = rule.combine(soft_labels(branches), [0.5] * branches)
    assert len(teachers) == (1 if rule.shared else branches)
    for teacher in teachers:
        assert teacher.dtype == np.float32
        assert teacher.shape == (7, 5)
        assert (teacher >= 0).all()
        np.testing.assert_allclose(teacher.sum(axis=1), 1, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", list(AVERAGES))
def test_a_branch_alone_teaches_itself(name: str) -> None:
    (part,) = soft_labels(1)
    (teacher,) = AVERAGES[name].combine([part], [0.7])
    np.testing.assert_allclose(teacher, part, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", list(AVERAGES))
def test_rows_are_treated_one_by_one(name: str) -> None:
    rule, parts, weights = AVERAGES[name], soft_labels(3), [0.2, 0.9, 0.4]
    whole = rule.combine(parts, weights)
    shards = [
        rule.combine([part[a:b] for part in parts], weights) for a, b in ((0, 1), (1, 5), (5, 7))
    ]
    for i, teacher in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([shard[i] for shard in shards]), teacher)


@pytest.mark.parametrize("branches", [1, 3])
@pytest.mark.parametrize("name", list(AVERAGES))
def test_soft_labels_are_not_written_to(name: str, branches: int) -> None:
    parts = soft_labels(branches)
    before = [part.copy() for part in parts]
    for part in parts:
        part.flags.writeable = False  # as arrays in Ray's object store
    AVERAGES[name].combine(parts, [1.0] * branches)
    for part, copy in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_multi_label_logits_by_hand_and_with_a_branch_that_is_certain() -> None:
    one = np.array([[0.8, 0.5, 1.0, 1.0, 0.0]], np.float32)
    other = np.array([[0.5, 0.5, 0.5, 0.0, 0.0]], np.float32)
    (teacher,) = AVERAGES["logits"].teachers([one, other], [1.0, 1.0], multi_label=True)
    # Odds of sqrt(4 * 1) to 1; then half of the highest logit that float32 can tell, 25 ln 2.
    half = 1 / (1 + 2**-12.5)
    np.testing.assert_allclose(teacher, [[2 / 3, 0.5, half, 0.5, 0]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", list(AVERAGES))
def test_multi_label_teachers_are_probabilities_of_each_class(name: str) -> None:
    parts = [part * 3 % 1 for part in soft_labels(3)]
    rule = AVERAGES[name]
    teachers = rule.teachers(parts, [0.5] * 3, multi_label=True)
    assert len(teachers) == (1 if rule.shared else 3)
    for teacher in teachers:
        assert teacher.dtype == np.float32
        assert (np.min(parts, axis=0) - 1e-6 <= teacher).all()
        assert (teacher <= np.max(parts, axis=0) + 1e-6).all()
    one_label = rule.teachers(parts, [0.5] * 3, multi_label=False)
    np.testing.assert_array_equal(one_label, rule.combine(parts, [0.5] * 3))


def test_a_block_that_is_not_whole_is_summed_as_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = soft_labels(3)
    expected = {name: rule.combine(parts, [0.5] * 3) for name, rule in AVERAGES.items()}
    monkeypatch.setattr("mrkd_ray.method.averaging.BLOCK_BYTES", 3 * parts[0].strides[0])
    for name, rule in AVERAGES.items():
        np.testing.assert_array_equal(rule.combine(parts, [0.5] * 3), expected[name])


def test_only_the_weighted_rule_asks_for_accuracies() -> None:
    # What is not asked for is not measured: the others get 1 for each branch.
    assert [name for name, rule in AVERAGES.items() if rule.weighted] == ["weighted"]


def test_an_unknown_rule_is_answered_with_the_nearest_and_all_names() -> None:
    with pytest.raises(UserError) as caught:
        AVERAGES["leave_out"]
    message = str(caught.value)
    assert "unknown average 'leave_out'" in message
    assert "Did you mean 'leave_one_out'?" in message
    assert message.endswith("Known: leave_one_out, logits, mean, weighted.")
