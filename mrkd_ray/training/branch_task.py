"""What a branch is given to start with: small, picklable, and free of PyTorch."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import Training
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.features.window_extents import window_ticks


class BranchFailed(UserError):
    """A branch cannot go on, and would not if it were tried again.

    Attributes:
        branch: its name.
    """

    def __init__(self, branch: str, message: str) -> None:
        super().__init__(message)
        self.branch = branch

    def __reduce__(self) -> tuple[Any, ...]:  # Ray sends errors between processes
        return BranchFailed, (self.branch, str(self))


@dataclass(frozen=True, kw_only=True)
class Part:
    """Clips of one side of a split: clip_ids, and their labels as in `datasets.base.encode`.

    Those are class indices int64 [n], or multi-hot int64 [n, M].
    """

    clip_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    unverified: tuple[int, ...] = ()  # places of the clips whose label nobody verified


@dataclass(frozen=True, kw_only=True)
class FrozenTeacher:
    """A trained branch that teaches and learns no more.

    Attributes:
        folder: of its model.
        representation: name.
        fold: that its cell tested.
        classes: names, in the order of its logits.
        multi_label: whether each class has a probability of its own.
        window_ticks: of its windows.
        digest: hash of what is in its folder.
        trained_on: digests of the clips that it has seen.
        cross_fit: the part of the training clips that it was trained without, as `2/4`, if any.
    """

    folder: Path
    representation: str
    fold: int
    classes: tuple[str, ...]
    multi_label: bool
    window_ticks: int
    digest: str
    trained_on: frozenset[str]
    cross_fit: str | None = None

    @property
    def name(self) -> str:
        """Cell and branch."""
        return f"{self.folder.parents[1].name}/{self.folder.name}"


@dataclass(frozen=True, kw_only=True)
class BranchTask:
    """All that a branch needs to start, small enough to send to another process."""

    name: str  # unique in its cohort; keys the initial weights and dropout
    spec: BranchSpec
    training: Training
    store: FeatureStore
    classes: tuple[str, ...]
    train: Part
    held_out: Part
    test: Part
    fold: int
    seed: int
    embeddings: tuple[FeatureStore, ...] = ()  # of frozen mates, which it learns to predict
    neighbourhood: tuple[FeatureStore, ...] = ()  # frozen ones, in which its clips are neighbours
    teachers: tuple[tuple[FrozenTeacher, FeatureStore], ...] = ()  # in place of its cohort
    unlabelled: tuple[str, ...] = ()  # clip_ids, for distillation epochs; a baseline has none
    more_windows: int = 0  # of an epoch beyond one a training clip: the cohort's unlabelled clips
    device: str = "cpu"
    threads: int = 1
    cpus: int = 1  # of its actor: fewer than threads where branches overlap
    cohort_cpus: int = 1  # of all actors of its cohort
    gpus: float = 1.0  # of its actor: a fraction shares a card
    window_memory: str = "auto"  # `config.Run.window_memory`
    provenance: dict[str, Any] = field(default_factory=dict)  # copied into the exported config

    @property
    def stores(self) -> tuple[FeatureStore, ...]:
        """The stores that the branch reads."""
        of_teachers = (store for _, store in self.teachers)
        return (self.store, *self.embeddings, *self.neighbourhood, *of_teachers)

    @property
    def taught(self) -> tuple[str, ...]:
        """The clips that soft labels are of, in their order: training clips, then unlabelled."""
        return self.train.clip_ids + self.unlabelled

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """All clips whose windows the branch needs."""
        return self.taught + self.held_out.clip_ids + self.test.clip_ids

    @property
    def window_ticks(self) -> int:
        """Ticks of a window."""
        return window_ticks(self.training.window)

    def rng(self, cycle: int, *purpose: str | int) -> np.random.Generator:
        """Return the generator of one purpose in one cycle: there is no random state to keep."""
        words = [zlib.crc32(str(word).encode()) for word in purpose]
        return np.random.default_rng([self.seed, self.fold, cycle, *words])

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have several labels, each with a probability of its own."""
        return self.train.labels.ndim == 2
