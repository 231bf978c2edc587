"""Models are compared run by run and clip by clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mrkd_ray.scores import comparison, metrics
from mrkd_ray.scores.comparison import Model, Pair
from mrkd_ray.scores.intervals import paired_bootstrap

HITS = comparison.terms(metrics.SINGLE_LABEL[0])


def model(
    probabilities: NDArray[np.float64], labels: list[int], *, fold: int = 1, seed: int = 0
) -> Model:
    return Model(
        name="a",
        condition="independent",
        fold=fold,
        seed=seed,
        cell="",
        clip_ids=tuple(f"clip {i}" for i in range(len(labels))),
        labels=np.array(labels),
        probabilities=np.asarray(probabilities, np.float64),
    )


def sure(predicted: list[int], classes: int = 3, p: float = 0.8) -> NDArray[np.float64]:
    """Probabilities of models that give `p` to one class."""
    rows = np.full((len(predicted), classes), (1 - p) / (classes - 1))
    rows[np.arange(len(predicted)), predicted] = p
    return rows


def test_seeds_of_a_fold_lie_together() -> None:
    runs = [(1, 0, [0, 1]), (1, 1, [0, 0]), (2, 0, [1, 1])]
    models = [model(sure(p), [0, 1], fold=fold, seed=seed) for fold, seed, p in runs]
    first, second = comparison.by_fold(models, HITS)
    assert first.tolist() == [[1, 1], [1, 0]]
    assert second.tolist() == [[0, 1]]
    assert comparison.mean(models, HITS).mean == pytest.approx(100 * (1 + 0.5 + 0 + 1) / 4)


def test_differences_pair_clips_whatever_their_order() -> None:
    labels = [0, 1, 2, 0]
    before, after = model(sure([0, 0, 0, 1]), labels), model(sure([0, 1, 0, 1]), labels)
    turned = Model(
        **{
            **vars(after),
            "clip_ids": after.clip_ids[::-1],
            "labels": after.labels[::-1],
            "probabilities": after.probabilities[::-1],
        }
    )
    found = comparison.difference([Pair(before, turned)], HITS)
    assert found.mean == 25
    assert found == paired_bootstrap([[[0, 1, 0, 0]]])


def test_runs_of_other_clips_are_refused() -> None:
    one = model(sure([0, 1]), [0, 1])
    other = replace(one, clip_ids=("clip 0", "clip 7"))
    with pytest.raises(ValueError, match="fold 1 has not the same test clips"):
        comparison.difference([Pair(one, other)], HITS)


def test_an_ensemble_is_the_mean_in_the_runs_that_all_members_have() -> None:
    first, second = model(sure([0, 0]), [0, 1]), model(sure([1, 0]), [0, 1])
    members = [{(1, 0): first, (1, 1): first}, {(1, 0): second}]
    (found,) = comparison.ensemble(members).items()
    assert found[0] == (1, 0)
    assert found[1].probabilities.tolist() == ((sure([0, 0]) + sure([1, 0])) / 2).tolist()
    assert (found[1].name, found[1].cell, found[1].condition) == ("ensemble", "", "independent")
    assert first.name == "a"


def test_pairs_are_of_the_runs_that_both_have() -> None:
    one, two = model(sure([0]), [0]), model(sure([1]), [0])
    found = comparison.pairs({(2, 0): one, (1, 0): one}, {(1, 0): two, (3, 0): two})
    assert found == [Pair(one, two)]
