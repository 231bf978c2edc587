"""`CohortClassifier` where scikit-learn's classifiers go."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.sklearn import EXPECTED_FAILURES, CohortClassifier

RATE = 16_000
FAST = {"lr": 0.02, "batch_size": 4, "paper": True}


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray]:
    """Eight half seconds: tones and noise in turn, and their labels."""
    rng = np.random.default_rng(0)
    t = np.arange(RATE // 2) / RATE
    sounds = [
        np.sin(2 * np.pi * (300 + 40 * i) * t) / 2 if i % 2 else rng.normal(0, 0.2, len(t))
        for i in range(8)
    ]
    return np.stack(sounds).astype(np.float32), np.array(["z noise", "a tone"] * 4)


def classifier(**changes: object) -> CohortClassifier:
    fields = {"cycles": 6, "sample_rate": RATE, "options": FAST} | changes
    return CohortClassifier(["logmel64:vgg_small"], **fields)  # type: ignore[arg-type]


def test_it_learns_from_samples_and_from_paths_alike(
    samples: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    X, y = samples
    fitted = classifier(cache=tmp_path / "cache").fit(X, y)
    assert list(fitted.classes_) == ["a tone", "z noise"]
    found = fitted.predict_proba(X)
    assert found.shape == (8, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert fitted.score(X, y) == 1
    assert list(fitted.predict(X[:2])) == ["z noise", "a tone"]
    paths = [tmp_path / f"{i}.wav" for i in range(len(X))]
    for path, sound in zip(paths, X, strict=True):
        soundfile.write(path, sound, RATE, subtype="FLOAT")
    of_paths = classifier(cache=tmp_path / "cache", sample_rate=None).fit(list(map(str, paths)), y)
    np.testing.assert_allclose(of_paths.predict_proba(paths), found, atol=1e-6)
    assert len(of_paths.predict([paths[0], paths[0]])) == 2
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), found)


def test_scikit_learn_clones_crosses_and_pipes_it(
    samples: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    X, y = samples
    plain = classifier(cycles=1, cache=str(tmp_path))
    assert clone(plain).get_params() == plain.get_params()
    louder = FunctionTransformer(lambda sounds: sounds * 1.5)
    scores = cross_val_score(make_pipeline(louder, plain), X, y, cv=2)
    assert len(scores) == 2
    assert np.isfinite(scores).all()
    assert not hasattr(plain, "classes_")


def test_what_cannot_be_learnt_from_is_refused(samples: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = samples
    for given, labels, message in (
        (X, y[:3], "8 recordings and 3 labels"),
        (X, y[:1].repeat(8), "at least two are needed"),
        (X, np.linspace(0, 1, 8), "Unknown label type"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier().fit(given, labels)
    with pytest.raises(ValueError, match="not taken without their rate"):
        classifier(sample_rate=None).fit(X, y)


class Lengthened(CohortClassifier):
    """Silence follows: scikit-learn's recordings have 1 to 20 samples, which `fit` refuses."""

    def _recording(self, samples: Any) -> Recording:
        samples = np.asarray(samples)
        short = max(0, RATE // 100 - samples.shape[-1]) if samples.ndim else 0
        return super()._recording(np.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(0, short)]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn_pass_but_for_those_named() -> None:
    options = {"paper": True, "batch_size": 8}
    plain = Lengthened(["logmel64:vgg_small"], cycles=1, sample_rate=RATE, options=options)
    checks = check_estimator(plain, expected_failed_checks=EXPECTED_FAILURES, on_skip=None)
    failed = {check["check_name"] for check in checks if check["status"] == "xfail"}
    assert failed == set(EXPECTED_FAILURES)
