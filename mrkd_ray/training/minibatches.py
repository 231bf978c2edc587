"""Minibatches of training windows with their hard labels and the teacher's rows.

All randomness is derived: the order of clips, their windows and mixup come from a generator keyed
by (seed, fold, cycle, epoch), so there is no random state to store, a resumed run continues
bit for bit, and an independent branch sees the very batches that its distilled twin sees (with
`soft_labels: window` and d > 1: the same clips, but not the same windows; with `virtual`: the same
windows, in another order and with other partners; with unlabelled clips: as many batches, the same
ones outside of distillation).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.features.window_sources import Index, split
from mrkd_ray.features.windows import Windows
from mrkd_ray.method import losses
from mrkd_ray.method.label_kinds import outputs_of
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.training.augmentation import Augmentation
from mrkd_ray.training.branch_task import BranchTask


class Minibatch(NamedTuple):
    """Windows to train on; where mixed, each row with the next one, in a circle."""

    rows: Tensor  # [B] int64, of the task's `taught` clips
    inputs: Tensor  # [B, 3, bins, 150]
    targets: Tensor  # [B, M], hard labels, weighted and mixed; multi-label [B, M, 2]
    teacher: Tensor | None  # [B, M]
    weights: Tensor | None  # [B], of L_kl


class Teacher(NamedTuple):
    """What a branch learns from in a distillation epoch, a row for each `taught` clip."""

    rows: Tensor  # [N, M], probabilities
    belief: Tensor | None  # [N, M], what is remembered of the rows: trust in hard labels is from it
    temperature: float


class Minibatches:
    """Epochs over the training clips of one branch, and the unlabelled ones in distillation.

    Args:
        task: the branch's.
        windows: of all its clips.
        clips: places in `windows` of the task's `taught` clips.
        statistics: what the windows are normalised with.
    """

    def __init__(
        self, task: BranchTask, windows: Windows, clips: Index, statistics: Statistics
    ) -> None:
        self._task, self._windows, self._clips = task, windows, clips
        self._device = device = windows.device
        representation = REPRESENTATIONS[task.spec.representation]
        level = torch.from_numpy(representation.levels / statistics.std[0]).to(device)
        self._augmentation = Augmentation(task.training, level, linear=representation.linear)
        training, unverified = task.training, list(task.train.unverified)
        weights = torch.ones(2, len(clips))  # of each clip in L_ce and in L_kl
        weights[0, unverified] = training.unverified_ce
        weights[1, unverified] = training.unverified_kl
        outputs = outputs_of(task.multi_label)
        labels = torch.from_numpy(task.train.labels)
        hot = labels if task.multi_label else F.one_hot(labels, len(task.classes))
        targets = outputs.distributions(hot)
        zeros = targets.new_zeros(len(task.unlabelled), *targets.shape[1:])
        by_clip = (-1, *[1] * (targets.ndim - 1))
        self._labels = torch.cat([targets, zeros]).to(device)
        self._targets = self._labels * weights[0].view(by_clip).to(device)
        self._kl_weights = weights[1].to(device) if training.unverified_kl != 1 else None
        doubted = torch.zeros(len(clips), dtype=torch.bool)
        nobody_says = not unverified and not training.verified_only
        doubted[slice(None) if nobody_says else unverified] = True
        self._doubted = doubted.view(by_clip).to(device)
        self._distributions = outputs.distributions

    def starts(self, cycle: int, window: int, clips: Index) -> Index:
        """One start for each of the clips: the same time span in every branch of the cohort."""
        return self._windows.random_starts(clips, self._task.rng(cycle, "windows", window))

    def epoch(
        self,
        cycle: int,
        epoch: int,
        window: int,
        teacher: Teacher | None = None,
        *,
        virtual: bool = False,
    ) -> Iterator[Minibatch]:
        """Yield an epoch's minibatches, augmented and mixed.

        In distillation it is a pass over training and unlabelled clips; without a teacher it has as
        many windows, of training clips only, pass after pass.

        All that is random is drawn, and copied to the device, before the first one. Virtual samples
        are the same in every branch, and their teacher is of mixed windows as it is; otherwise each
        branch has its own order and pairs.
        """
        task, training = self._task, self._task.training
        alpha, size = training.mixup, training.batch_size
        virtual = virtual or (teacher is not None and training.soft_labels == "virtual")
        rng = task.rng(cycle, "order", "virtual" if virtual else task.name, epoch)
        alone, n = teacher is None and not virtual, len(task.train.clip_ids)
        pool = self._clips[:n] if alone else self._clips
        count = n + task.more_windows
        passes = range(0, count, len(pool))
        drawn = np.concatenate([rng.permutation(len(pool)) + first for first in passes])[:count]
        order, pool = drawn % len(pool), np.tile(pool, len(passes))
        parts = split(order, size)
        shares = rng.beta(alpha, alpha, len(parts)).tolist() if alpha > 0 else []
        if virtual:  # a row is mostly its own clip's, as in MixMatch (Berthelot et al. 2019)
            shares = [max(share, 1 - share) for share in shares]
        clips, starts = pool[drawn], self.starts(cycle, window, pool)[drawn]
        rows, changes = (
            torch.from_numpy(places).to(self._device).tensor_split(len(parts))
            for places in (order, drawn)
        )
        if self._augmentation.on:
            own = task.rng(cycle, "augment", task.name, epoch)
            shared = task.rng(cycle, "shift", window)
            self._augmentation.draw(len(pool), own, shared)
        own_clips, own_starts = split(clips, size), split(starts, size)
        hard = self._targets
        if training.trust and teacher is not None and teacher.belief is not None:
            trust = losses.trust(self._labels, self._distributions(teacher.belief))
            hard = hard * trust.where(self._doubted, 1.0)
        for i, inputs in enumerate(self._windows.batches(clips, starts, size)):
            targets = hard[rows[i]]
            soft = teacher.rows[rows[i]] if teacher is not None else None
            weights = self._kl_weights[rows[i]] if self._kl_weights is not None else None
            if self._augmentation.on:
                inside = self._windows.inside(own_clips[i], own_starts[i])
                inputs = self._augmentation.apply(inputs, changes[i], inside)
            if shares:
                if i == 0:  # the largest batch
                    mixed = torch.empty_like(inputs)
                inputs = losses.mix(inputs, shares[i], out=mixed[: len(inputs)])
                targets = losses.mix(targets, shares[i])
                if soft is not None and not virtual:
                    soft = losses.mix(soft, shares[i])
                weights = losses.mix(weights, shares[i]) if weights is not None else None
            yield Minibatch(rows[i], inputs, targets, soft, weights)
