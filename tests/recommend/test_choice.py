"""The choice among made candidates, of which it is known who errs where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.recommend import choice as choices
from mrkd_ray.recommend.choice import Probed, choose, hopeless, too_weak
from mrkd_ray.scores.intervals import standard_error

CLIPS, CLASSES = 40, 5


def probed(*wrong: Sequence[int], sure: Sequence[float] = ()) -> Probed:
    """Candidates that are wrong on these clips and as sure as said, by default 0.7, everywhere."""
    labels = np.arange(CLIPS) % CLASSES
    found = []
    for i, own in enumerate(wrong):
        said = labels.copy()
        said[list(own)] = (said[list(own)] + 1 + i) % CLASSES  # each errs to another class
        share = sure[i] if sure else 0.7
        scores = np.full((CLIPS, CLASSES), (1 - share) / (CLASSES - 1), np.float32)
        scores[np.arange(CLIPS), said] = share
        found.append(scores)
    return Probed(
        candidates=tuple(
            BranchSpec(representation=f"r{i}", network="n") for i in range(len(wrong))
        ),
        clip_ids=tuple(map(str, range(CLIPS))),
        classes=tuple(map(str, range(CLASSES))),
        labels=labels,
        probabilities=np.stack(found),
        parts=1,
    )


def test_what_errs_elsewhere_is_better_than_what_is_better_alone() -> None:
    alike, other = range(8), range(20, 29)  # the third is the worst alone
    choice = choose(probed(alike, alike, other), size=2, margin=10)
    assert choice.cohorts[0].members in {(0, 2), (1, 2)}
    assert choice.cohorts[-1].members == (0, 1)
    assert choice.cohorts[0].disagreement == pytest.approx(17 / 40)
    assert choice.cohorts[-1].disagreement == 0
    assert choice.cohorts[-1].correlation == pytest.approx(1)
    assert choice.cohorts[-1].accuracy == pytest.approx(32 / 40)
    losses = [cohort.log_loss for cohort in choice.cohorts]
    assert losses == sorted(losses)


def test_the_log_loss_is_of_the_mean_of_probabilities() -> None:
    both = probed([], [0], sure=[0.7, 0.4])
    right, wrong = -np.log((0.7 + 0.4) / 2), -np.log((0.7 + 0.15) / 2)
    (cohort,) = choose(both, size=2, margin=100).cohorts
    assert cohort.log_loss == pytest.approx((39 * right + wrong) / 40, rel=1e-5)
    assert cohort.accuracy == 1


def test_a_label_held_impossible_costs_much_and_not_everything() -> None:
    losses = probed([0], [0], sure=[1.0, 1.0]).losses([0, 1])
    assert np.isfinite(losses).all()
    assert losses[0] > 15


def test_members_far_below_the_best_are_left_out() -> None:
    candidates = probed([0], [1, 2], range(10, 17))  # 39, 38 and 33 of 40
    assert choose(candidates, size=2, margin=10).admitted == (0, 1)
    assert choose(candidates, size=2, margin=14).admitted == (0, 1)
    assert choose(candidates, size=2, margin=15).admitted == (0, 1, 2)  # 15 points are 6 clips


def test_where_too_few_are_good_the_best_are_taken() -> None:
    choice = choose(probed(range(10, 17), [0], range(20, 25)), size=2, margin=1)
    assert choice.admitted == choice.cohorts[0].members == (1, 2)
    assert choice.tied == 0


def test_larger_cohorts_have_the_means_over_their_pairs() -> None:
    choice = choose(probed([0, 1], [2, 3], [4, 5], range(20)), size=3, margin=10)
    (cohort,) = choice.cohorts
    assert cohort.members == (0, 1, 2)
    assert cohort.disagreement == pytest.approx(4 / 40)
    assert cohort.accuracy == 1


def test_what_few_clips_do_not_tell_apart_is_counted() -> None:
    """One error each, each elsewhere: alike. Then one candidate that errs on half of the clips."""
    choice = choose(probed([0], [1], [2]), size=2, margin=10)
    assert choice.tied == 2
    one_more = choose(probed([0], [1], [2, 3]), size=2, margin=10)  # one clip is no evidence
    assert one_more.cohorts[0].members == (0, 1)
    assert one_more.tied == 2
    sure = choose(probed([], [], range(20)), size=2, margin=50)
    assert sure.cohorts[0].members == (0, 1)
    assert sure.tied == 0


def test_how_sure_an_ensemble_is_counts_and_not_only_whether_it_is_right() -> None:
    choice = choose(probed([0], [0], [], [], sure=[0.9, 0.9, 0.3, 0.3]), size=2, margin=10)
    first, last = choice.cohorts[0], choice.cohorts[-1]
    assert (first.members, first.accuracy) == ((0, 1), 39 / 40)
    assert (last.members, last.accuracy) == ((2, 3), 1)


def test_the_choice_is_that_of_the_probabilities_and_not_of_their_order() -> None:
    forward = probed([0, 1], [2], [3, 4, 5])
    backward = replace(
        forward,
        candidates=forward.candidates[::-1],
        probabilities=forward.probabilities[::-1],
    )

    def chosen(of: Probed) -> set[str]:
        return {str(of.candidates[i]) for i in choose(of, size=2, margin=10).cohorts[0].members}

    assert chosen(forward) == chosen(backward)


def test_more_members_than_candidates() -> None:
    with pytest.raises(ValueError, match="3 of 2"):
        choose(probed([0], [1]), size=3, margin=10)


def test_a_standard_error_is_that_of_the_mean() -> None:
    hits: Any = np.array([1.0, 0.0] * 50)
    assert standard_error(hits) == pytest.approx(0.05, rel=0.01)
    assert np.isnan(standard_error(hits[:1]))


def test_who_is_behind_by_more_than_the_margin_and_its_error_is_too_weak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = probed(range(2), range(3, 5), range(5, 15), range(5, 40))  # 95, 95, 75, 12.5 %
    assert not too_weak(found, 2, 10)  # of 40 clips nothing is concluded
    monkeypatch.setattr(choices, "FEWEST_CLIPS", 40)
    assert too_weak(found, 2, 10) == {found.candidates[3]}  # 20 points may be 10
    assert too_weak(found, 2, 0) == {found.candidates[3], found.candidates[2]}
    assert not too_weak(found, 4, 10)  # all of them are needed
    assert not too_weak(found, 2, 100)


def test_who_is_right_on_less_than_half_as_many_clips_as_the_best_is_hopeless() -> None:
    found = probed(range(2), range(3, 5), range(19, 40), range(5, 40))
    assert [round(100 * a) for a in found.accuracy] == [95, 95, 48, 12]
    assert {str(candidate) for candidate in hopeless(found, 2, 10)} == {"r3:n"}
    assert not hopeless(found, 4, 10)
    assert not hopeless(found, 2, 90)  # who takes anybody drops nobody
