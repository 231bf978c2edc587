"""Which candidates to make a cohort of, from their probabilities on the clips that decide.

The cohort whose ensemble has the lowest log-loss. Not the highest accuracy: of a few hundred clips
that moves in steps of one, so many cohorts are equal or apart by chance, while log-loss takes from
every clip how probable its label was; it is a proper score, and a teacher is a probability. Members
far below the best candidate are left out all the same: any one of the cohort may be used alone.
NumPy only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrkd_ray.common.arrays import Float32, Float64, Int64
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.recommend.costs import Cost
from mrkd_ray.scores import diversity, doubtful_labels, metrics
from mrkd_ray.scores.ensemble import mean_probabilities
from mrkd_ray.scores.intervals import standard_error

ERRORS = 2
"""Standard errors within which a difference does not count."""
FEWEST_CLIPS = 50
"""Of one part, by which a candidate may be left out of the others."""
LEARNT, HALF = 2 / 3, 0.5
"""The part of the right labels in front below which, and the estimated part of wrong labels above
which, probes are not asked about labels: docs/explanation/recommend.md."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What the probes predict for the clips that decide.

    Attributes:
        candidates: C of them.
        clip_ids: N of them.
        classes: M names.
        labels: class indices [N].
        probabilities: [C, N, M], by networks that were trained on other clips.
        parts: how many parts of the training clips these are.
        all_verified: whether each label that is trained on was verified.
        costs: of each candidate; empty where they were not measured.
        left_out: what the first part alone told of candidates that were `too_weak` there.
        hopeless: what short probes told of candidates that were `hopeless` in them.
    """

    candidates: tuple[BranchSpec, ...]
    clip_ids: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Int64
    probabilities: Float32
    parts: int
    all_verified: bool = True
    costs: tuple[Cost, ...] = ()
    left_out: Probed | None = None
    hopeless: Probed | None = None

    @cached_property
    def hits(self) -> Float64:
        """Where each candidate is right, [C, N]: 1 or 0."""
        return np.array([metrics.hits(p, self.labels) for p in self.probabilities])

    @cached_property
    def accuracy(self) -> Float64:
        """Of each candidate, [C], in [0, 1]."""
        found: Float64 = self.hits.mean(axis=1)
        return found

    def pairwise(self, measure: Callable[[ArrayLike, ArrayLike], float]) -> Float64:
        """Return a measure of `diversity` for each pair, [C, C], symmetric; NaN on the diagonal."""
        found = np.full((len(self.candidates),) * 2, np.nan)
        for i, j in itertools.combinations(range(len(self.candidates)), 2):
            found[i, j] = found[j, i] = measure(self.hits[i], self.hits[j])
        return found

    def ensemble(self, members: Sequence[int]) -> Float64:
        """Return the mean of the members' probabilities, [N, M]."""
        return mean_probabilities(self.probabilities[list(members)])

    def losses(self, members: Sequence[int]) -> Float64:
        """Return the log-loss of the members' ensemble on each clip, [N], in nats."""
        places = np.arange(len(self.labels))
        own = mean_probabilities(self.probabilities[list(members)][:, places, self.labels])
        loss: Float64 = -np.log(np.maximum(own, np.finfo(np.float32).eps))
        return loss


@dataclass(frozen=True, kw_only=True)
class RankedCohort:
    """Some of the candidates and their ensemble; diversity is the mean over their pairs."""

    members: tuple[int, ...]  # places among the candidates
    log_loss: float  # nats
    accuracy: float  # in [0, 1]
    disagreement: float
    correlation: float
    yule_q: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """All cohorts of the size asked for.

    Attributes:
        admitted: places of the candidates that may be members.
        cohorts: of admitted candidates, the best first: the chosen one.
        tied: how many of the others are not told apart from it: the mean difference of their
            log-loss, paired by clip, is within two standard errors.
    """

    probed: Probed
    admitted: tuple[int, ...]
    cohorts: tuple[RankedCohort, ...]
    tied: int

    @cached_property
    def ensemble(self) -> Float64:
        """The probabilities of the chosen cohort's ensemble, [N, M]."""
        return self.probed.ensemble(self.cohorts[0].members)

    @cached_property
    def doubts(self) -> NDArray[np.bool_]:
        """Which labels look wrong to the chosen ensemble, [N]: see `labels`."""
        return doubtful_labels.doubted(self.ensemble, self.probed.labels)

    @property
    def wrong_share(self) -> float:
        """About which part of the labels is wrong; NaN where classes are too few."""
        return doubtful_labels.wrong_share(float(self.doubts.mean()), len(self.probed.classes))

    @property
    def wrong_share_error(self) -> float:
        """The standard error of `wrong_share`: of so many clips."""
        error = standard_error(self.doubts.astype(float))
        return doubtful_labels.wrong_share(error, len(self.probed.classes))

    @property
    def underfit(self) -> bool:
        """Whether the chosen ensemble has learnt too little to tell wrong labels from hard clips.

        Or more labels look wrong than not. False where classes are too few to say.
        """
        in_front = doubtful_labels.in_front(self.ensemble, self.probed.labels)
        return in_front < LEARNT or self.wrong_share > HALF


def too_weak(probed: Probed, size: int, margin: float) -> set[BranchSpec]:
    """Return candidates that are not worth more probes: `choose` would not admit them.

    They lack more than `margin` points to the best candidate, by `ERRORS` standard errors of the
    difference over the same clips. Of fewer than `FEWEST_CLIPS` clips nothing is concluded, and
    the best `size` candidates always stay.
    """
    if len(probed.labels) < FEWEST_CLIPS:
        return set()
    best, *others = np.argsort(-probed.accuracy, kind="stable").tolist()
    lacking = (probed.hits[best] - probed.hits[i] - margin / 100 for i in others[size - 1 :])
    return {
        probed.candidates[i]
        for i, each in zip(others[size - 1 :], lacking, strict=True)
        if each.mean() > ERRORS * standard_error(each)
    }


def hopeless(probed: Probed, size: int, margin: float) -> set[BranchSpec]:
    """Return candidates that short probes are enough for.

    They are right on less than half as many clips as the best candidate, by `ERRORS` standard
    errors over the same clips, and lack more than `margin` points. The best `size` candidates
    always stay.
    """
    best, *others = np.argsort(-probed.accuracy, kind="stable").tolist()
    lacking = {i: probed.hits[best] / 2 - probed.hits[i] for i in others[size - 1 :]}
    return {
        probed.candidates[i]
        for i, each in lacking.items()
        if each.mean() > ERRORS * standard_error(each)
        and probed.accuracy[best] - probed.accuracy[i] > margin / 100
    }


def choose(probed: Probed, size: int, margin: float) -> Choice:
    """Rank all cohorts of `size` candidates.

    Args:
        margin: points of accuracy that a member may lack to the best candidate. Where fewer than
            `size` candidates are that good, the best `size` are the members.

    Raises:
        ValueError: fewer candidates than `size`.
    """
    if size > len(probed.candidates):
        raise ValueError(f"{size} of {len(probed.candidates)} candidates")
    right = probed.hits.sum(axis=1)
    by_accuracy = np.argsort(-right, kind="stable")
    least = right.max() - margin / 100 * len(probed.labels)
    good = [int(i) for i in by_accuracy if right[i] >= least - 1e-9]
    admitted = sorted(good if len(good) >= size else map(int, by_accuracy[:size]))
    measures = [
        probed.pairwise(measure)
        for measure in (diversity.disagreement, diversity.correlation, diversity.yule_q)
    ]
    cohorts = []
    for members in itertools.combinations(admitted, size):
        pairs = tuple(np.array(list(itertools.combinations(members, 2))).T)
        disagreement, correlation, yule_q = (float(each[pairs].mean()) for each in measures)
        cohorts.append(
            RankedCohort(
                members=members,
                log_loss=float(probed.losses(members).mean()),
                accuracy=metrics.accuracy(probed.ensemble(members), probed.labels),
                disagreement=disagreement,
                correlation=correlation,
                yule_q=yule_q,
            )
        )
    cohorts.sort(key=lambda cohort: cohort.log_loss)
    best = probed.losses(cohorts[0].members)
    worse = (probed.losses(cohort.members) - best for cohort in cohorts[1:])
    tied = sum(not loss.mean() > ERRORS * standard_error(loss) for loss in worse)
    return Choice(probed=probed, admitted=tuple(admitted), cohorts=tuple(cohorts), tied=tied)
