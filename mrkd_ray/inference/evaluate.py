"""Score a trained model on labelled audio."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.audio.decoding import AudioError
from mrkd_ray.common.arrays import Float64, Int64
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.progress import Display, say
from mrkd_ray.datasets.base import Clip, encode
from mrkd_ray.datasets.checking.scan import digest
from mrkd_ray.datasets.events import SHORTEST
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.inference.calibration import Calibration
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.inputs import Source
from mrkd_ray.inference.threads import of_sources
from mrkd_ray.scores import class_report, metrics
from mrkd_ray.scores.calibration import calibration
from mrkd_ray.scores.ensemble import mean_probabilities
from mrkd_ray.scores.thresholds import PRESENT


@dataclass(frozen=True)
class Evaluation:
    """What a model's branches, and their ensemble, say of clips whose labels are known.

    Attributes:
        data: as given.
        classes: names of the M classes.
        truth: class indices [N]; multi-label 0 or 1 [N, M].
        uncalibrated: probabilities [N, M] by name, as training's evaluation has them; of several
            branches the ensemble is the last.
        calibrations: of each model, by name.
        silent: places of the clips in which nothing is heard [N].
        trained_on: clips that were left out, since the model has seen them.
        skipped: clips that were left out, since they cannot be read.
    """

    data: str
    classes: tuple[str, ...]
    truth: Int64
    uncalibrated: dict[str, Float64]
    calibrations: dict[str, Calibration]
    silent: NDArray[np.bool_]
    trained_on: int
    skipped: int

    @functools.cached_property
    def models(self) -> dict[str, Float64]:
        """Calibrated probabilities [N, M] by name."""
        return {
            name: self.calibrations[name].together(scores[None]).astype(np.float64)
            for name, scores in self.uncalibrated.items()
        }

    @functools.cached_property
    def report(self) -> dict[str, Any]:
        """All figures, as JSON has them; computed once.

        `data`, `clips` (scored), `trained_on`, `skipped`, and `models`: `model`, each metric in
        [0, 1], and `classes` as of `scores.class_report`; of a model with one label a clip also
        `ece` (expected calibration error) and `confusion`: clips by true and predicted class.
        `ece_uncalibrated` is the error without calibration, `calibration` what that is, `none` the
        part of the clips that no class is named for.
        """
        return {
            "data": self.data,
            "clips": len(self.truth),
            "skipped": self.skipped,
            "trained_on": self.trained_on,
            "models": [self._figures(name) for name in self.models],
        }

    def _figures(self, name: str) -> dict[str, Any]:
        scores, known = self.models[name], self.calibrations[name]
        level = PRESENT if known.thresholds is None else known.thresholds
        before = {}
        if self.truth.ndim == 1:
            before["ece_uncalibrated"] = calibration(self.uncalibrated[name], self.truth).ece
        named = known.named(scores).any(axis=1) & ~self.silent
        return {
            "model": name,
            **metrics.measure(scores, self.truth),
            **class_report.figures(scores, self.truth, self.classes, level),
            **before,
            "calibration": known.as_json(self.classes),
            "none": float(1 - named.mean()),
        }


def evaluate(
    model: Path, data: str, cache: Path, *, skip_bad: bool = False, negatives: str | None = None
) -> Evaluation:
    """Score a branch, or a cell's branches and their ensemble.

    Clips that it was trained on, known by their bytes, are left out: on its own data set that
    leaves the test clips of its fold.

    Raises:
        UserError: no model, unknown labels, a clip that cannot be decoded (unless skip_bad).
    """
    from rich.console import Console

    classifier = Classifier.load(model)
    console = Console(stderr=True)
    window = classifier.config.get("event_seconds", SHORTEST)  # the clips that it was trained on
    dataset = open_dataset(data, cache, window=window, negatives=negatives)
    for note in dataset.notes:
        say(console, f"note: {note}")
    if dataset.multi_label != classifier.multi_label:
        kinds = ("one label", "several labels")
        raise UserError(
            f"{data}: its clips have {kinds[dataset.multi_label]} each, the model's have "
            f"{kinds[classifier.multi_label]}. A column `labels` in a csv says that it is several."
        )
    unknown = sorted(set(dataset.classes) - set(classifier.classes))
    if unknown:
        raise UserError(
            f"{data}: the model does not know the labels {', '.join(unknown[:10])}; "
            f"it was trained on {', '.join(classifier.classes)}."
        )

    skipped: list[str] = []

    def bad(error: Exception) -> None:
        if not skip_bad:
            raise UserError(f"{error} (--skip-bad leaves such clips out)") from None
        skipped.append(str(error))

    sources = [_source(clip) for clip in dataset.clips]
    clips = zip(sources, dataset.clips, strict=True)
    labels_of = {source.name: clip.labels for source, clip in clips}
    new, scores, labels, silent = [], [], [], []
    with Display(console) as display:
        for source, known in zip(sources, of_sources(_digest, sources), strict=True):
            if isinstance(known, Exception):
                bad(known)
            elif known not in classifier.trained_on:
                new.append(source)
        trained_on = len(sources) - len(new) - len(skipped)
        show = display.step("Classifying")
        show(0, len(new))
        for done, found in enumerate(classifier.classify(new, bad), 1):
            scores.append(found.branches)
            silent.append(found.silent)
            labels.append(labels_of[found.file])
            show(done, len(new))
    if not scores:
        raise UserError(
            f"{data}: no clip to score: the model was trained on {trained_on} of them, and "
            f"{len(skipped)} cannot be read."
        )
    branches = np.stack(scores, axis=1).astype(np.float64)  # [branches, clips, classes]
    raw: dict[str, Float64] = dict(zip(classifier.names, branches, strict=True))
    calibrations = {
        branch.model.branch: Calibration.of([branch.model.evidence], classifier.multi_label)
        for branch in classifier.branches
    }
    if len(raw) > 1:
        raw["ensemble"] = mean_probabilities(branches)
        calibrations["ensemble"] = classifier.calibration
    return Evaluation(
        data,
        classifier.classes,
        encode(labels, classifier.classes, classifier.multi_label),
        raw,
        calibrations,
        np.array(silent),
        trained_on,
        len(skipped),
    )


def _source(clip: Clip) -> Source:
    if clip.stretch is None:
        return Source(str(clip.path), clip.path)
    return Source(f"{clip.path}: {clip.clip_id}", clip.path, clip.stretch)


def _digest(source: Source) -> str:
    assert isinstance(source.sound, Path)
    try:
        return digest(source.sound, source.stretch)
    except AudioError as error:
        raise UserError(f"{source.name}: cannot be classified: {error}") from None
