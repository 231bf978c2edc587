"""The numbers behind the figures. numpy and scikit-learn only; what is drawn lies in `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrkd_ray.report.grid_results import Cohort, Measured
from mrkd_ray.scores import metrics
from mrkd_ray.scores.comparison import Condition, Floats, Model, Pair, by_fold, difference, terms
from mrkd_ray.scores.metrics import Difference

BINS = 15  # of a reliability diagram: Guo et al.'s
FEWEST = 5  # clips of a class in a fold, for its change to be called clear
HITS = terms(metrics.SINGLE_LABEL[0])
PHASES = ("train", "soft_labels", "held_out_accuracy", "distil", "evaluate", "checkpoint")
"""In the order in which a cycle goes through them."""


@dataclass(frozen=True)
class ClassChange:
    """What distillation did to the accuracy on one class, over all its test clips.

    Attributes:
        clips: number of its test clips in all folds.
        fewest: number of them in the fold that has the fewest.
        independent: accuracy (recall), in [0, 1].
        difference: distilled minus independent.
    """

    name: str
    clips: int
    fewest: int
    independent: float
    difference: Difference

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0 and is of enough clips.

        A bootstrap of a few clips of which none changed, or each did, has no width.
        """
        low, high = self.difference.low, self.difference.high
        return self.fewest >= FEWEST and (low > 0 or high < 0)


def per_class(pairs: Sequence[Pair], classes: Sequence[str]) -> list[ClassChange]:
    """Return the change of every class that has test clips, largest gain first."""
    found = []
    for index, name in enumerate(classes):
        parts = [Pair(*(_only(m, index) for m in (p.independent, p.distilled))) for p in pairs]
        folds = [fold for fold in by_fold([p.independent for p in parts], HITS) if fold.size]
        if folds:
            scores = np.concatenate([fold.mean(axis=0) for fold in folds])
            fewest = min(fold.shape[1] for fold in folds)
            change = difference(parts, HITS)
            found.append(ClassChange(name, len(scores), fewest, float(scores.mean()), change))
    return sorted(found, key=lambda change: -change.difference.mean)


def _only(model: Model, label: int) -> Model:
    """Return the model's predictions for the clips of one class."""
    chosen = np.flatnonzero(model.labels == label)
    return replace(
        model,
        clip_ids=tuple(model.clip_ids[i] for i in chosen),
        labels=model.labels[chosen],
        probabilities=model.probabilities[chosen],
    )


def confusion(models: Sequence[Model], classes: int) -> Floats:
    """Return [M, M]: the part of each true class's (row's) clips that went to each class.

    Over the clips of all runs; rows of classes without clips are 0.
    """
    counts = np.zeros((classes, classes))
    for model in models:
        np.add.at(counts, (model.labels, model.probabilities.argmax(axis=1)), 1)
    parts: Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return parts


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram: for each of the bins, [bins]; NaN where a bin has no clips.

    Attributes:
        clips: number of predictions.
        confidence: mean of the highest probability.
        accuracy: part of the predictions that are right.
        ece: expected calibration error, in [0, 1].
    """

    clips: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    ece: float


def calibration(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Calibration:
    """Return how far confidence is from accuracy.

    The confidence of a prediction is its highest probability; bin m of B holds those in
    ((m - 1) / B, m / B]; ECE is the sum over bins of n_m / n * |accuracy_m - confidence_m|.
    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
    equations 2 and 3, with their B = 15.

    Args:
        probabilities: [n, M].
        labels: class indices [n].
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    place = np.digitize(confidence, np.arange(1, bins) / bins, right=True)
    clips = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(place, confidence, bins) / clips
        accuracy = np.bincount(place, right, bins) / clips
    gaps = np.nan_to_num(np.abs(accuracy - mean_confidence))
    ece = float((clips * gaps).sum() / clips.sum())
    return Calibration(clips, mean_confidence, accuracy, ece)


def pooled(models: Sequence[Model]) -> Calibration:
    """Return the calibration over the predictions of all runs together."""
    return calibration(
        np.concatenate([model.probabilities for model in models]),
        np.concatenate([model.labels for model in models]),
    )


def logits(probabilities: ArrayLike) -> Floats:
    """Return logits [n, M] with mean 0 in each row.

    A softmax keeps logits up to a constant per clip; that constant is set by the mean.
    Probabilities under float32's smallest normal number count as that.
    """
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny))
    centred: Floats = logs - logs.mean(axis=1, keepdims=True)
    return centred


def silhouette(model: Model) -> Floats:
    """Return [n]: how compact the true classes are around each clip in logit space, in [-1, 1].

    (b - a) / max(a, b): a is the mean Euclidean distance to the other clips of its class, b that
    to the nearest other class. It does not change when all logits are scaled alike, so a network
    with softer outputs is not worse for it. Source: Rousseeuw, "Silhouettes", 1987; scikit-learn's
    `silhouette_samples`. 0 everywhere where there is just one class, or one clip for each.
    """
    from sklearn.metrics import silhouette_samples

    if not 2 <= len(np.unique(model.labels)) < len(model.labels):
        return np.zeros(len(model.labels))
    scores: Floats = silhouette_samples(logits(model.probabilities), model.labels)
    return scores


def cka(first: Model, second: Model) -> float:
    """Return how alike two models arrange the same clips in logit space, in [0, 1].

    Linear centred kernel alignment, ||Y'X||^2 / (||X'X|| ||Y'Y||) in Frobenius norms, of the logits
    X and Y [n, M] with columns centred: 1 where one is the other scaled, rotated or moved; NaN
    where one is the same for all clips. Source: Kornblith et al., "Similarity of Neural Network
    Representations Revisited", ICML 2019, Section 3.

    Raises:
        ValueError: the models have not the same clips in the same order.
    """
    if first.clip_ids != second.clip_ids:
        raise ValueError("expected two models of the same clips, in the same order")
    x, y = (logits(model.probabilities) for model in (first, second))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norm = np.linalg.norm
    scale = norm(x.T @ x) * norm(y.T @ y)
    return float(norm(y.T @ x) ** 2 / scale) if scale else float("nan")


def agreement(predicted: Sequence[NDArray[np.int16]]) -> Floats:
    """Return [cycles]: the part of the clips on which two branches predict the same class.

    Args:
        predicted: of each branch, [cycles, n]; of more than two, the mean over all pairs of them.
    """
    same = [(a == b).mean(axis=1) for a, b in combinations(predicted, 2)]
    found: Floats = np.mean(same, axis=0)
    return found


def agreements(measured: Measured, cohort: Cohort) -> dict[Condition, Floats]:
    """Return the agreement within the cohort's runs under each condition, [runs, cycles].

    Branches that were trained alone are put together by fold and seed. Both conditions have the
    runs in which every branch was; without such a run, there is only the distilled one.
    """
    branches = measured.branches(cohort)
    found: dict[Condition, Floats] = {}
    if "independent" in branches:
        runs = zip(*branches["independent"], strict=True)
        found["independent"] = np.array(
            [agreement([measured.predicted(model.cell)[:, 0] for model in run]) for run in runs]
        )
    together = [measured.predicted(model.cell) for model in branches["distilled"][0]]
    found["distilled"] = np.array([agreement(list(np.moveaxis(run, 1, 0))) for run in together])
    return found


@dataclass(frozen=True)
class Curves:
    """One branch's figures after every cycle, in all runs: [runs, cycles] each.

    Attributes:
        loss: L_ce of the last epoch of single branch training; trained alone, of the cycle.
        distil_ce, distil_kl: the terms of Eq. 5 of the last epoch of distillation; None alone.
        accuracy: on the test clips, in [0, 1]; multi-label: mAP.
    """

    loss: Floats
    distil_ce: Floats | None
    distil_kl: Floats | None
    accuracy: Floats


def curves(measured: Measured, models: Sequence[Model]) -> Curves:
    """Return the learning curves of a branch's runs."""

    def column(name: str) -> Floats:
        found = []
        for model in models:
            history = measured.history(model.cell)
            found.append(history.loc[history["branch"] == model.name, name].to_numpy(np.float64))
        return np.array(found)

    history = measured.history(models[0].cell)
    distilled = models[0].condition == "distilled"
    # b = 0: no single branch training, so no loss of it
    loss = column("loss_ce") if "loss_ce" in history else np.full_like(column("lr"), np.nan)
    return Curves(
        loss=loss,
        distil_ce=column("loss_distil_ce") if distilled else None,
        distil_kl=column("loss_distil_kl") if distilled else None,
        accuracy=column(measured.metrics[0].name),
    )


def phase_seconds(measured: Measured, models: Sequence[Model]) -> tuple[dict[str, float], float]:
    """Return a branch's seconds in each of `PHASES` and of the whole cell: means over runs."""
    phases: dict[str, list[float]] = {}
    walls = []
    for model in models:
        rows = measured.history(model.cell)
        rows = rows[rows["branch"] == model.name]
        for phase in PHASES:
            if f"seconds_{phase}" in rows:
                phases.setdefault(phase, []).append(float(rows[f"seconds_{phase}"].sum()))
        walls.append(float(rows["seconds"].sum()))
    return {phase: float(np.mean(values)) for phase, values in phases.items()}, float(
        np.mean(walls)
    )
