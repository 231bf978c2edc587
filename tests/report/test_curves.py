"""The numbers behind the figures, against hand-made values and scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import silhouette_score

from mrkd_ray.report.curves import (
    agreement,
    agreements,
    cycles_of_all,
    learning_curves,
    phase_seconds,
)
from mrkd_ray.report.grid_results import read_results
from mrkd_ray.scores import calibration, classes, logit_space
from mrkd_ray.scores.comparison import Pair
from tests.report.fakes import fake_grid
from tests.scores.test_comparison import model, sure

PAIRING = "logmel64:resnet_small+cqt:vgg_small"


def test_curves_are_of_the_cycles_that_all_runs_had(tmp_path: Path) -> None:
    fields = {"early_stop": 2, "held_out": 0.1, "cycles": 5}
    stopped = read_results(fake_grid(tmp_path / "g", pairings=(PAIRING,), **fields))
    (cohort,) = stopped.cohorts
    assert stopped.stops_early
    both = agreements(stopped, cohort)
    assert both["distilled"].shape == both["independent"].shape == (2, 3)  # 5, 4 and 3 cycles
    models = stopped.conditions(cohort, cohort.branches[0])
    cycles = cycles_of_all(stopped, (model for own in models.values() for model in own))
    for own in models.values():
        assert learning_curves(stopped, own, cycles).accuracy.shape == (2, 4)


def test_ece_of_hand_made_predictions() -> None:
    # 0.8 four times, right in three; 0.5 twice, right in none: 4/6 * 0.05 + 2/6 * 0.5
    probabilities = np.concatenate([sure([0, 0, 0, 1]), sure([2, 2], p=0.5)])
    found = calibration.calibration(probabilities, np.array([0, 0, 0, 2, 1, 1]))
    assert found.ece == pytest.approx(4 / 6 * 0.05 + 2 / 6 * 0.5)
    assert found.clips.sum() == 6
    full = np.flatnonzero(found.clips)
    assert found.clips[full].tolist() == [2, 4]
    assert found.accuracy[full].tolist() == [0, 0.75]
    assert found.confidence[full] == pytest.approx([0.5, 0.8])


def test_bins_are_open_below_and_closed_above() -> None:
    found = calibration.calibration([[0.5, 0.5], [0.51, 0.49], [1.0, 0.0]], [0, 0, 0], bins=2)
    assert found.clips.tolist() == [1, 2]


def test_predictions_as_good_as_their_confidence_have_no_error() -> None:
    found = calibration.calibration(sure([0] * 10), [0] * 8 + [1, 2])
    assert found.ece == pytest.approx(0)


def test_logits_give_the_softmax_back_and_survive_a_zero() -> None:
    p = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
    logits = logit_space.logits(p)
    assert np.allclose(logits.sum(axis=1), 0)
    exp = np.exp(logits)
    assert np.allclose(exp / exp.sum(axis=1, keepdims=True), p)


def test_the_silhouette_is_scikit_learns_and_does_not_see_the_temperature() -> None:
    rng = np.random.default_rng(0)
    labels = [0, 0, 1, 1, 2, 2]
    logits = rng.normal(size=(6, 3)) + 3 * np.eye(3)[labels]

    def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
        e = np.exp(z)
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    sharp = logit_space.silhouette(model(softmax(logits), labels))
    soft = logit_space.silhouette(model(softmax(logits / 4), labels))
    centred = logits - logits.mean(axis=1, keepdims=True)
    assert sharp.mean() == pytest.approx(silhouette_score(centred, labels))
    assert np.allclose(sharp, soft)


def test_a_silhouette_of_one_class_is_0() -> None:
    assert logit_space.silhouette(model(sure([0, 1]), [1, 1])).tolist() == [0, 0]


def test_cka_is_the_normalised_hsic_of_the_logits() -> None:
    rng = np.random.default_rng(0)
    first, second = (model(rng.dirichlet(np.ones(4), 9), [0] * 9) for _ in range(2))
    centre = np.eye(9) - 1 / 9
    k, m = (z @ z.T for z in (logit_space.logits(of.probabilities) for of in (first, second)))

    def hsic(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(np.trace(a @ centre @ b @ centre))

    expected = hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5
    assert 0 < expected < 0.9
    assert logit_space.cka(first, second) == pytest.approx(expected)
    softer = np.sqrt(second.probabilities)[:, ::-1]  # T = 2, and the classes in another order
    softer = replace(second, probabilities=softer / softer.sum(axis=1, keepdims=True))
    assert logit_space.cka(first, softer) == pytest.approx(expected)
    assert logit_space.cka(second, softer) == pytest.approx(1)


def test_cka_is_of_the_same_clips_and_needs_some_that_differ() -> None:
    one = model(sure([0, 1, 2]), [0, 1, 2])
    assert np.isnan(logit_space.cka(one, model(sure([1, 1, 1]), [0, 1, 2])))
    with pytest.raises(ValueError, match="same clips"):
        logit_space.cka(one, replace(one, clip_ids=one.clip_ids[::-1]))


def test_the_change_of_each_class() -> None:
    labels = [0, 0, 1, 1]
    pair = Pair(model(sure([0, 1, 1, 1]), labels), model(sure([0, 0, 0, 0]), labels))
    gain, loss = classes.per_class([pair], ["a", "b", "without clips"])
    assert (gain.name, gain.clips, gain.independent, gain.difference.mean) == ("a", 2, 0.5, 50)
    assert gain.fewest == 2
    assert (loss.name, loss.independent, loss.difference.mean) == ("b", 1, -100)
    assert (loss.difference.low, loss.difference.high) == (-100, -100)
    assert not loss.clear  # of two clips, an interval without width says nothing
    assert replace(loss, fewest=classes.FEWEST).clear


def test_the_confusion_matrix_has_parts_of_rows() -> None:
    matrix = classes.confusion([model(sure([0, 1]), [0, 0]), model(sure([1, 1]), [1, 0])], 3)
    assert matrix == pytest.approx(np.array([[1 / 3, 2 / 3, 0], [0, 1, 0], [0, 0, 0]]))


def test_agreement_of_three_branches_is_the_mean_over_pairs() -> None:
    a, b, c = (
        np.array(rows, np.int16) for rows in ([[0, 0], [0, 1]], [[0, 1], [0, 1]], [[1, 1]] * 2)
    )
    # cycle 0: ab 1/2, ac 0, bc 1/2; cycle 1: ab 1, ac 1/2, bc 1/2
    assert agreement([a, b, c]) == pytest.approx([1 / 3, 2 / 3])


def test_agreement_on_an_unfinished_grid_is_of_the_runs_that_every_branch_has(
    tmp_path: Path,
) -> None:
    folder = fake_grid(tmp_path / "g", pairings=(PAIRING,), temperatures=(2,))
    tidy = (folder / "results.csv").read_text().splitlines(keepends=True)
    whole = read_results(folder)
    expected = agreements(whole, whole.cohorts[0])

    def without(*missing: str) -> dict[str, NDArray[np.float64]]:
        rows = [row for row in tidy if not any(cell in row for cell in missing)]
        (folder / "SHA256SUMS").unlink(missing_ok=True)
        (folder / "results.csv").write_text("".join(rows))
        results = read_results(folder)
        return dict(agreements(results, results.cohorts[0]))

    one = without("independent_cqt-vgg_small_fold1")
    for condition, found in one.items():
        assert np.array_equal(found, expected[condition][1:])
    crossed = ("independent_cqt-vgg_small_fold1", "independent_logmel64-resnet_small_fold2")
    none = without(*crossed)  # one baseline each, of different folds: no run has both
    assert list(none) == ["distilled"]
    assert np.array_equal(none["distilled"], expected["distilled"])


def test_agreement_curves_and_times_of_a_grid(tmp_path: Path) -> None:
    folder = fake_grid(tmp_path / "g", pairings=(PAIRING,), temperatures=(2,), seeds=(0, 1))
    results = read_results(folder)
    (cohort,) = results.cohorts
    both = agreements(results, cohort)
    assert both["independent"].shape == both["distilled"].shape == (4, 3)
    pairs = [results.pairs(cohort, name) for name in cohort.branches]
    for condition, found in both.items():
        top = [[getattr(p, condition).probabilities.argmax(axis=1) for p in ps] for ps in pairs]
        expected = [(a == b).mean() for a, b in zip(*top, strict=True)]
        assert found[:, -1] == pytest.approx(expected)

    curves = learning_curves(results, [pair.distilled for pair in pairs[1]])
    assert curves.loss.tolist() == [[2.0, 1.0, 2 / 3]] * 4
    assert curves.distil_kl is not None
    assert curves.distil_kl.shape == curves.accuracy.shape == (4, 3)
    assert learning_curves(results, [pair.independent for pair in pairs[1]]).distil_ce is None

    phases, wall = phase_seconds(results, [pair.distilled for pair in pairs[0]])
    assert wall == 9.0
    assert phases == pytest.approx(
        {"train": 3, "soft_labels": 1.5, "distil": 3, "evaluate": 0.3, "checkpoint": 0.3}
    )
