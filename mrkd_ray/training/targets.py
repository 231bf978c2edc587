"""What a branch learns from: the hard labels of its clips, its teachers, and its trust in labels.

Rows are those of a task's `taught` clips: N training clips, labelled ones first; M classes. Where
[N, M] is written of distributions, those of a multi-label data set are [N, M, 2] (`label_kinds`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mrkd_ray.config.method import Training
from mrkd_ray.method import losses, neighbours
from mrkd_ray.method.label_kinds import label_kind
from mrkd_ray.training.branch_task import BranchTask, Part
from mrkd_ray.training.embeddings import clip_embeddings


class Teacher(NamedTuple):
    """What a branch learns from in a distillation epoch, besides hard labels."""

    rows: Tensor  # [N, M], probabilities
    belief: Tensor | None  # [N, M], what is remembered of the rows: trust in hard labels is from it
    temperature: float


class TeacherMemory:
    """The exponential average over cycles of a branch's teachers, where its options ask for one.

    Temporal ensembling (Laine and Aila 2017).

    Attributes:
        belief: [N, M], the average; None before the first teacher, and where nothing is remembered.
            It is part of a checkpoint.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        self.belief: Tensor | None = None

    def take(self, rows: Tensor, temperature: float) -> Teacher:
        """Remember a cycle's teacher, and return what the branch learns from in this cycle.

        Args:
            rows: [N, M], probabilities; their memory may be used again by whoever gave them.
            temperature: T that they were made with.
        """
        if not self._training.remembers:
            return Teacher(rows, None, temperature)
        if self.belief is None:
            self.belief = rows.clone()
        else:
            self.belief = rows.lerp(self.belief, self._training.teacher_momentum)
        by_clip = self._training.soft_labels == "clip"  # others are of windows: they do not average
        return Teacher(self.belief if by_clip else rows, self.belief, temperature)


def distributions(part: Part, classes: int) -> Tensor:
    """Return what the labels of a part's clips say, [N, M] of 0 and 1."""
    labels = torch.from_numpy(part.labels)
    if labels.ndim == 2:
        return label_kind(multi_label=True).distributions(labels)
    return F.one_hot(labels, classes)


def balanced(labels: Tensor) -> Tensor:
    """Return a weight for each label [N], by which every class that is there counts the same.

    Their mean is 1: scikit-learn's `class_weight="balanced"`.
    """
    clips = torch.bincount(labels)
    return len(labels) / (clips.count_nonzero() * clips[labels].float())


class HardLabels:
    """The hard labels of a task's `taught` clips as weighted distributions.

    Those of unlabelled clips are 0, or what spreads to them from their neighbours.

    Attributes:
        kl_weights: [N], of each clip in L_kl; None where all are 1.
    """

    def __init__(self, task: BranchTask, device: torch.device) -> None:
        training, unverified = task.training, list(task.train.unverified)
        kind = label_kind(task.multi_label)
        says = distributions(task.train, len(task.classes))
        zeros = says.new_zeros(len(task.unlabelled), *says.shape[1:])
        by_clip = (-1, *[1] * (says.ndim - 1))
        weights = torch.ones(2, len(task.taught))  # of each clip in L_ce and in L_kl
        weights[0, unverified] = training.unverified_ce
        weights[1, unverified] = training.unverified_kl
        doubted = torch.zeros(len(task.taught), dtype=torch.bool)
        nobody_says = not unverified and not training.verified_only
        labelled = len(task.train.clip_ids)
        doubted[slice(labelled) if nobody_says else unverified] = True
        self._trusts = training.trust
        self._distributions = kind.distributions
        says = torch.cat([says, zeros])
        weighted = says * weights[0].view(by_clip)
        drawn = weighted  # what is learnt without a teacher
        if training.class_weights != "none":
            weighted = weighted.clone()
            of_class = balanced(torch.from_numpy(task.train.labels))
            weighted[:labelled] *= of_class.view(by_clip)
            drawn = drawn if training.class_weights == "sampled" else weighted
        agreement = None
        if task.neighbourhood:  # on the CPU, where sums have one order
            embeddings, count = clip_embeddings(task.neighbourhood, task), training.neighbours
            agreement = neighbours.agreement(embeddings, says, count).to(device)
            weighted[labelled:] = neighbours.spread(embeddings, says, count)[labelled:]
        self._says, self._weighted = says.to(device), weighted.to(device)
        self._drawn = self._weighted if drawn is weighted else drawn.to(device)
        self._agreement = agreement
        self._doubted = doubted.view(by_clip).to(device)
        self.kl_weights = weights[1].to(device) if training.unverified_kl != 1 else None

    def targets(self, teacher: Teacher | None) -> Tensor:
        """Return the targets [N, M] of L_ce: weighted by trust where anyone is asked."""
        belief = self._agreement
        weighted = self._drawn if teacher is None else self._weighted
        if teacher is not None and teacher.belief is not None:
            belief = self._distributions(teacher.belief)
            if self._agreement is not None:  # both have to believe it
                belief = belief * self._agreement
        if not self._trusts or belief is None:
            return weighted
        trust = losses.trust(self._says, belief)
        return weighted * trust.where(self._doubted, 1.0)
