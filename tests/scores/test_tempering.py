"""Temperature scaling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax

from mrkd_ray.scores.calibration import calibration
from mrkd_ray.scores.tempering import crossfitted, fit_temperature, temper

rng = np.random.default_rng(4)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_it_is_the_softmax_and_the_sigmoid_of_logits_over_the_temperature(
    temperature: float,
) -> None:
    logits = rng.normal(0, 6, (50, 7))
    single = softmax(logits, axis=1).astype(np.float32)
    found = temper(single, temperature, multi_label=False)
    np.testing.assert_allclose(found, softmax(logits / temperature, axis=1), atol=1e-6)
    several = temper(expit(logits).astype(np.float32), temperature, multi_label=True)
    within = logits < 8  # float32 has few values next to 1
    np.testing.assert_allclose(several[within], expit(logits / temperature)[within], atol=1e-4)


def test_a_probability_of_0_in_float32_is_no_fault() -> None:
    found = temper(np.array([[1.0, 0.0, 0.0]], np.float32), 2.0, multi_label=False)
    assert np.isfinite(found).all()
    assert found.argmax() == 0
    assert np.isfinite(temper(np.array([[1.0, 0.0]]), 2.0, multi_label=True)).all()


def test_overconfident_logits_are_brought_back() -> None:
    true = rng.normal(0, 2, (4000, 5))
    labels = np.array([rng.choice(5, p=p) for p in softmax(true, axis=1)])
    said = softmax(3 * true, axis=1)
    assert fit_temperature(said, labels) == pytest.approx(3, rel=0.1)
    before, after = (calibration(p, labels).ece for p in (said, crossfitted(said, labels)))
    assert after < 0.03 < 0.1 < before
    hot = (rng.uniform(size=true.shape) < expit(true)).astype(np.int64)
    assert fit_temperature(expit(3 * true), hot) == pytest.approx(3, rel=0.1)


def test_few_clips_that_are_all_told_right_do_not_make_it_certain() -> None:
    labels = np.arange(12) % 3
    said = temper(np.eye(3)[labels] * 0.8 + 0.2 / 3, 1.0, multi_label=False)
    assert temper(said, fit_temperature(said, labels), multi_label=False).max() < 0.97


def test_each_half_is_calibrated_by_the_other_one() -> None:
    labels = np.tile([0, 0, 1, 1], 20)
    said = np.where(labels[:, None] == np.arange(2), 0.9, 0.1)
    said[1::2] = said[1::2, ::-1]  # every second clip is told wrong
    found = crossfitted(said, labels)
    assert found[0].max() < 0.6  # by the half that is wrong
    assert found[1].max() > 0.95
    assert len(crossfitted(said[:1], labels[:1])) == 1
