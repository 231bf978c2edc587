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
from torch import Tensor

from mrkd_ray.features.window_sources import Index, split
from mrkd_ray.features.windows import Windows
from mrkd_ray.method import losses
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.training.augmentation import Augmentation
from mrkd_ray.training.branch_task import BranchTask
from mrkd_ray.training.data_parallel import ALONE, Ranks
from mrkd_ray.training.embeddings import Embeddings
from mrkd_ray.training.targets import HardLabels, Teacher


class Minibatch(NamedTuple):
    """Windows to train on; where mixed, each row with the next one, in a circle."""

    rows: Tensor  # [B] int64, of the task's `taught` clips
    inputs: Tensor  # [B, 3, bins, F]
    targets: Tensor  # [B, M], hard labels, weighted and mixed; multi-label [B, M, 2]
    teacher: Tensor | None  # [B, M]
    weights: Tensor | None  # [B], of L_kl
    embeddings: Tensor | None  # [B, D], of frozen mates, mixed alike
    share: float  # of the whole minibatch: less than 1 where other processes have the rest


def balanced_draw(labels: Index, count: int, rng: np.random.Generator) -> Index:
    """Draw clips, every class as often, in random order.

    Args:
        labels: [n], of the clips.
        count: how many to draw; what is left when it is divided goes to random classes.

    Returns:
        [count], place of the clip plus n times how often it was drawn before.
    """
    clips = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    quotas = np.full(len(clips), count // len(clips))
    quotas[rng.permutation(len(clips))[: count % len(clips)]] += 1
    drawn = [
        np.concatenate([rng.permutation(own) + i * len(labels) for i in range(-(-n // len(own)))])
        for own, n in zip(clips, quotas, strict=True)
    ]
    return rng.permutation(np.concatenate([d[:n] for d, n in zip(drawn, quotas, strict=True)]))


class Minibatches:
    """Epochs over the training clips of one branch, and the unlabelled ones in distillation.

    Args:
        task: the branch's.
        windows: of all its clips.
        clips: places in `windows` of the task's `taught` clips.
        embeddings: of the frozen mates that the branch learns to predict, if any.
        ranks: that share each minibatch.
    """

    def __init__(
        self,
        task: BranchTask,
        windows: Windows,
        clips: Index,
        embeddings: Embeddings | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._task, self._windows, self._clips = task, windows, clips
        self._embeddings, self._ranks = embeddings, ranks
        self._device = device = windows.device
        representation = REPRESENTATIONS[task.spec.representation]
        level = torch.from_numpy(representation.levels / windows.statistics.std[0]).to(device)
        self._augmentation = Augmentation(
            task.training, level, representation.timing, linear=representation.linear
        )
        self._hard_labels = HardLabels(task, device)

    def starts(self, cycle: int, window: int, clips: Index) -> Index:
        """One start, in ticks, for each of the clips: the same in every branch of the cohort."""
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
        """Yield an epoch's minibatches, or this process's share of each, augmented and mixed.

        In distillation it is a pass over training and unlabelled clips; without a teacher it has as
        many windows, of training clips only, pass after pass.

        All that is random is drawn, and copied to the device, before the first one. Virtual samples
        are the same in every branch, and their teacher is of mixed windows as it is; otherwise each
        branch has its own order and pairs.
        """
        task, training = self._task, self._task.training
        alpha, size = training.mixup, training.batch_size
        untaught = virtual  # soft labels are made, nothing is learnt
        virtual = virtual or (teacher is not None and training.soft_labels == "virtual")
        rng = task.rng(cycle, "order", "virtual" if virtual else task.name, epoch)
        alone, n = teacher is None and not virtual, len(task.train.clip_ids)
        pool = self._clips[:n] if alone else self._clips
        count = n + task.more_windows
        if alone and training.class_weights == "sampled":
            drawn = balanced_draw(task.train.labels, count, rng)
        else:
            passes = range(0, count, len(pool))
            drawn = np.concatenate([rng.permutation(len(pool)) + i for i in passes])[:count]
        order, pool = drawn % len(pool), np.tile(pool, 1 + drawn.max() // len(pool))
        whole = [len(part) for part in split(order, size)]
        self._ranks.check(whole, task.name)
        shares = rng.beta(alpha, alpha, len(whole)).tolist() if alpha > 0 else []
        if virtual:  # a row is mostly its own clip's, as in MixMatch (Berthelot et al. 2019)
            shares = [max(share, 1 - share) for share in shares]
        places = self._ranks.places(whole, with_next=bool(shares))  # a row is mixed with the next
        sizes = [len(own) for own in places]
        order, drawn = (every[np.concatenate(places)] for every in (order, drawn))
        clips, starts = pool[drawn], self.starts(cycle, window, pool)[drawn]
        rows, changes = (
            torch.from_numpy(every).to(self._device).split_with_sizes(sizes)
            for every in (order, drawn)
        )
        if self._augmentation.on:
            own = task.rng(cycle, "augment", task.name, epoch)
            shared = task.rng(cycle, "shift", window)
            self._augmentation.draw(len(pool), own, shared)
        own_clips, own_starts = split(clips, sizes), split(starts, sizes)
        hard, kl_weights = self._hard_labels.targets(teacher), self._hard_labels.kl_weights
        known = None
        if self._embeddings and not untaught:
            known = self._embeddings.batches(order, starts, sizes)
        for i, inputs in enumerate(self._windows.batches(clips, starts, sizes)):
            targets = hard[rows[i]]
            soft = teacher.rows[rows[i]] if teacher is not None else None
            weights = kl_weights[rows[i]] if kl_weights is not None else None
            embeddings = next(known) if known is not None else None
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
                if embeddings is not None:
                    embeddings = losses.mix(embeddings, shares[i])
            share = self._ranks.share(whole[i])
            kept = slice(share.stop - share.start)  # the row after them was to mix with
            yield Minibatch(
                rows[i][kept],
                inputs[kept],
                targets[kept],
                soft[kept] if soft is not None else None,
                weights[kept] if weights is not None else None,
                embeddings[kept] if embeddings is not None else None,
                kept.stop / whole[i],
            )
