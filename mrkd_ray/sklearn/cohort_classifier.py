"""A cohort as a classifier of scikit-learn: cross-validation, searches and pipelines take it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.inputs import Source, recording_of

SPARE_RATE = 22_050  # Hz; of the seconds of noise that stand for the test side

EXPECTED_FAILURES = {
    "check_fit2d_1sample": "a class alone teaches nothing: two are needed",
    "check_fit2d_1feature": "a recording of one sample has no sound",
    "check_n_features_in_after_fitting": "recordings may be of any length",
    "check_n_features_in": "recordings may be of any length",
    "check_estimators_nan_inf": "the check of the data set names the recording",
    "check_dtype_object": "objects are paths",
    "check_estimators_dtypes": "integers are samples of their type's range",
    "check_estimator_sparse_tag": "samples are not sparse",
    "check_estimator_sparse_array": "samples are not sparse",
    "check_estimator_sparse_matrix": "samples are not sparse",
    "check_complex_data": "the error names samples",
    "check_fit1d": "a list of one dimension is one of paths",
    "check_classifiers_train": "it is of one test set, of features that are no sound",
    "check_classifiers_classes": "the same",
    "check_methods_subset_invariance": "equal to 1e-5, as all predictions",
}
"""Checks of `sklearn.utils.estimator_checks.check_estimator` that make no sense for audio, and
why: its argument `expected_failed_checks`."""


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
        from mrkd_ray.inference.classifier import Classifier

        given, labels = list(X), np.asarray(y)
        check_classification_targets(labels)
        if labels.ndim != 1 or len(given) != len(labels):
            raise ValueError(f"{len(given)} recordings and labels of shape {labels.shape}")
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
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities [n, M] of recordings, columns as `classes_`; X as of `fit`."""
        check_is_fitted(self)
        found = self.classifier_.classify([self._source(*each) for each in enumerate(X, 1)])
        order = [self.classifier_.classes.index(name) for name in self._names]
        scores = np.stack([each.probabilities for each in found]).astype(np.float64)[:, order]
        sums: NDArray[np.float64] = scores / scores.sum(axis=1, keepdims=True)
        return sums

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable labels [n]; X as of `fit`."""
        most: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
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
