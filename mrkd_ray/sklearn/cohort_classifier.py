"""A cohort as a classifier of scikit-learn: cross-validation, searches and pipelines take it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.inputs import Source, recording_of

SPARE_RATE = 22_050  # Hz; of the seconds of noise that stand for the test side

_ANY_LENGTH = "recordings may be of any length, so no number of features is held against them"
_RANGE = "its numbers are no samples: floats lie in -1..1, integers in their type's range"

EXPECTED_FAILURES = {
    "check_n_features_in_after_fitting": _ANY_LENGTH,
    "check_classifiers_train": _ANY_LENGTH,
    "check_dtype_object": _RANGE,
    "check_classifier_data_not_an_array": _RANGE,
    "check_estimators_dtypes": _RANGE,
    "check_fit_idempotent": _RANGE,
    "check_fit_check_is_fitted": _RANGE,
    "check_n_features_in": _RANGE,
}
"""Checks of `sklearn.utils.estimator_checks.check_estimator` that make no sense for audio, and
why: its argument `expected_failed_checks`. All others pass where silence makes the checks' few
samples 10 ms long: `fit` refuses shorter recordings."""


class CohortClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Trains a cohort on recordings and classifies with all of its branches.

    Every clip that it is given is trained on: scikit-learn measures. It trains in this process,
    without Ray.

    Example:
        `cross_val_score(CohortClassifier(cycles=30), paths, labels, cv=5)`

    Args:
        branches: `REPRESENTATION:NETWORK` of each; several teach each other.
        cycles: rounds of Algorithm 1.
        sample_rate: of samples, in Hz; needed where X is not of paths.
        options: further fields of `TrainConfig`, such as `{"lr": 0.02, "trust": True}`.
        random_state: seed of the training; None is 0.
        cache: folder for representations, shared by all fits; None: a temporary one for each.

    Attributes:
        classes_: the labels, sorted.
        classifier_: the trained `Classifier`.
    """

    def __init__(
        self,
        branches: Sequence[str] = ("logmel64:resnet_small", "cqt:vgg_small"),
        *,
        cycles: int = 30,
        sample_rate: int | None = None,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
        cache: str | Path | None = None,
    ) -> None:
        self.branches = branches
        self.cycles = cycles
        self.sample_rate = sample_rate
        self.options = options
        self.random_state = random_state
        self.cache = cache

    def fit(self, X: Any, y: Any) -> CohortClassifier:
        """Train on recordings.

        Args:
            X: paths, or samples as `Classifier.predict` takes them: [n, samples], or a list of
                arrays of any length.
            y: their labels [n].

        Raises:
            ValueError: fewer than two classes, lengths that differ, or a recording that cannot be
                used (`UserError`, which names it).
        """
        from mrkd_ray.grid.run import train
        from mrkd_ray.inference.calibration import UNCALIBRATED
        from mrkd_ray.inference.classifier import Classifier

        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        given, labels = _recordings(X), column_or_1d(y, warn=True)
        check_classification_targets(labels)
        if len(given) != len(labels):
            raise ValueError(f"{len(given)} recordings and {len(labels)} labels")
        self.classes_ = unique_labels(labels)
        if len(self.classes_) < 2:
            raise ValueError(f"one class, {self.classes_[0]!r}: at least two are needed")
        alone = len(self.branches) == 1
        seed = check_random_state(self.random_state or 0).randint(2**31 - 1)
        with tempfile.TemporaryDirectory() as folder:
            results = train(
                data=str(self._written(Path(folder) / "clips", given, labels)),
                branches=list(self.branches),
                cycles=self.cycles,
                runner="local",
                seed=int(seed),
                cache=Path(self.cache or Path(folder) / "cache"),
                output=Path(folder) / "results",
                alone=alone,
                group_by="none",
                **(self.options or {}),
            )
            (cell,) = (results.folder / "cells").glob("independent_*" if alone else "distilled_*")
            self.classifier_ = Classifier.load(cell)
            if self.classifier_.calibration.part == "test":  # which is noise
                self.classifier_.calibration = UNCALIBRATED
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities [n, M] of recordings, columns as `classes_`; X as of `fit`."""
        check_is_fitted(self)
        sources = [self._source(*each) for each in enumerate(_recordings(X), 1)]
        found = self.classifier_.classify(sources)
        order = [self.classifier_.classes.index(name) for name in self._names]
        scores = np.stack([each.probabilities for each in found]).astype(np.float64)[:, order]
        sums: NDArray[np.float64] = scores / scores.sum(axis=1, keepdims=True)
        return sums

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable labels [n]; X as of `fit`."""
        places = self.predict_proba(X).argmax(axis=1)
        most: NDArray[Any] = self.classes_[places]
        return most

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True  # [n, channels, samples]
        tags.classifier_tags.poor_score = True  # of features that are no sound
        return tags

    @property
    def _names(self) -> list[str]:
        return [f"{place:06d}" for place in range(len(self.classes_))]

    def _source(self, number: int, each: Any) -> Source:
        """Return a recording; a path that is there twice is classified twice."""
        if isinstance(each, str | Path):
            return Source(str(each), Path(each).expanduser())
        return Source(f"input {number}", self._recording(each))

    def _recording(self, samples: Any) -> Recording:
        if self.sample_rate is None:
            raise UserError("sample_rate: samples are not taken without their rate in Hz")
        return recording_of(np.asarray(samples), self.sample_rate)

    def _written(self, folder: Path, given: list[Any], labels: NDArray[Any]) -> Path:
        """Write a data set of all recordings; return its CSV file."""
        import soundfile

        folder.mkdir()
        places = np.searchsorted(self.classes_, labels)
        rows = ["filename,label,split"]
        for number, (each, place) in enumerate(zip(given, places, strict=True)):
            if isinstance(each, str | Path):
                path = Path(each).expanduser().absolute()
                file = folder / f"{number:06d}{path.suffix}"
                file.symlink_to(path)
            else:
                file = folder / f"{number:06d}.wav"
                recording = self._recording(each)
                rate = recording.sample_rate
                soundfile.write(file, recording.at(rate), rate, subtype="FLOAT")
            rows.append(f"{file.name},{self._names[place]},train")
        for place, name in enumerate(self._names):  # a test side is asked for; nobody looks at it
            noise = np.random.default_rng(place).normal(0, 0.1, SPARE_RATE)
            soundfile.write(folder / f"spare{place}.wav", noise, SPARE_RATE)
            rows.append(f"spare{place}.wav,{name},test")
        (folder / "meta.csv").write_text("\n".join(rows) + "\n")
        return folder / "meta.csv"


def _recordings(X: Any) -> list[Any]:
    """Return them one by one. Raises ValueError where there are none."""
    if sparse.issparse(X):
        raise ValueError("sparse samples are not supported: give dense ones")
    given = list(X if isinstance(X, Sequence) else np.asarray(X))
    if not given:
        raise ValueError("Found array with 0 sample(s): at least one recording is needed")
    if np.isscalar(given[0]) and not isinstance(given[0], str):
        raise ValueError(
            "Reshape your data: X is of several recordings, [n, samples]; one is [1, samples]"
        )
    if np.ndim(given[0]) and np.size(given[0]) == 0:
        shape = (len(given), *np.shape(given[0]))
        raise ValueError(f"0 feature(s) (shape={shape}) while a minimum of 1 is required.")
    return given
