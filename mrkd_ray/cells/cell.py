"""One cell of a grid: what it is, its key, and the baselines of its branches.

A cell's folder is complete when `result.json` is there; until then `checkpoint/` holds the last
finished cycle and `history.csv` the figures up to it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import DISTILLATION, Training
from mrkd_ray.training.branch_task import FrozenTeacher

NAME_BYTES = 240
"""Longest key: file systems take 255 bytes, and temporary folders have some more than it."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One experiment: a cohort that is distilled, or one branch that is trained alone."""

    condition: Literal["independent", "distilled"]
    branches: tuple[BranchSpec, ...]
    names: tuple[str, ...]  # of the branches: see `branch_names`
    temperature: float | None  # None where nothing is distilled
    fold: int
    seed: int
    training: Training  # with what changes nothing at its default: see `effective`
    asked: Training | None = None  # as it was asked for, where that is known; in no key
    device: str  # "cpu" or "cuda"
    cpus: int = 1  # of each branch's actor
    ranks: int = 1  # processes of each branch, which divide its minibatches
    overlap: bool = False  # branches compute with the threads of the whole cohort
    content: str  # hash of clips, labels, representations' versions, files of weights, teachers
    window_memory: str = "auto"  # `config.Run.window_memory`; changes no result
    quorum: int | None = None  # `config.Run.quorum`; in no key: see `lost`
    variant: str = ""  # a name for people, in no key: renamed, a variant keeps its results
    baselines: tuple[str, ...] = ()  # keys of its branches' independent cells, in order; in no key
    teachers: tuple[FrozenTeacher, ...] = ()  # that teach in place of its branches

    @property
    def title(self) -> str:
        """One line for people: how it is trained comes first, since a terminal cuts the end."""
        how = "alone" if self.temperature is None else f"T {self.temperature:g}"
        variant = self.variant and f", {self.variant}"
        return f"{how}: {self.cohort}{variant}, fold {self.fold}, seed {self.seed}"

    @property
    def threads(self) -> int:
        """CPU threads of each branch: their number changes the order of sums."""
        return self.cpus * (len(self.branches) if self.overlap else 1)

    @property
    def branch_cpus(self) -> int:
        """CPUs of all actors of a branch."""
        return self.cpus * self.ranks

    @property
    def cohort(self) -> str:
        """Its branches, written as on the command line: `a:b+c:d`."""
        return "+".join(str(branch) for branch in self.branches)

    @cached_property
    def key(self) -> str:
        """A readable name that ends in a hash of everything that changes the result.

        The names of its branches are cut where it would be longer than `NAME_BYTES`.
        Where files of weights and models to go on from lie is not in it: `content` has what is in
        them.
        """
        return self._key(self.training.model_copy(update={"weights": None, "init": None}))

    @cached_property
    def former_key(self) -> str:
        """The key that earlier versions gave it, which hashed options as they were asked for."""
        if self.asked is None:
            return self.key
        return self._key(self.asked)

    def _key(self, training: Training) -> str:
        hashed = {
            "condition": self.condition,
            "branches": [str(branch) for branch in self.branches],
            "names": self.names,
            "temperature": self.temperature,
            "fold": self.fold,
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
            "training": training.model_dump(mode="json", exclude=_younger(training)),
            "content": self.content,
            **({"ranks": self.ranks} if self.ranks > 1 else {}),
        }
        digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:8]
        temperature = "" if self.temperature is None else f"_T{self.temperature:g}"
        where = f"{temperature}_fold{self.fold}_seed{self.seed}_{digest}"
        named = f"{self.condition}_{'+'.join(self.names)}".encode()[: NAME_BYTES - len(where)]
        return named.decode(errors="ignore") + where


YOUNGER = (
    "early_stop",
    "window",
    "class_weights",
    "embedding_weight",
    "neighbours",
    "gce",
    "label_noise_kind",
    "ema",
    "init",
    "cross_fit",
)


def _younger(training: Training) -> set[str]:
    """Return the options that keys are older than, where they say what was done before them."""
    return {
        name for name in YOUNGER if getattr(training, name) == Training.model_fields[name].default
    }


def branch_names(branches: Sequence[BranchSpec]) -> tuple[str, ...]:
    """Return a distinct name for each branch; equal ones are numbered from the second on."""
    seen: Counter[str] = Counter()
    names = []
    for spec in branches:
        name = f"{spec.representation}-{spec.network}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return tuple(names)


def named(cohort: str) -> dict[str, str]:
    """Return the branches `a:b` of a cohort `a:b+c:d` by the names that they have in it."""
    branches = cohort.split("+")
    fields = ("representation", "network")
    specs = [BranchSpec(**dict(zip(fields, b.split(":"), strict=True))) for b in branches]
    return dict(zip(branch_names(specs), branches, strict=True))


def without_teacher(training: Training) -> Training:
    """Return the options of the baselines: those of distillation do not tell them apart.

    So cohorts and variants share baselines. Neither does it tell them apart how the epochs of a
    cycle are divided: all are on the hard labels.
    """
    epochs = training.b + training.d
    b = min(1, epochs - 1)  # 0 and 1 by default, 1 and 1 in the paper
    return training.at_default(DISTILLATION).model_copy(update={"b": b, "d": epochs - b})


def independent_cell(
    name: str, like: Cell, *, device: str, content: str, training: Training | None = None
) -> Cell:
    """Return the baseline of one branch of a cohort: its twin, by name, without a teacher.

    Args:
        training: its options; by default those of `like` without a teacher.
    """
    return replace(
        like,
        condition="independent",
        branches=(like.branches[like.names.index(name)],),
        names=(name,),
        temperature=None,
        overlap=False,
        training=training or without_teacher(like.training),
        asked=like.asked and like.asked.at_default(DISTILLATION),
        device=device,
        content=content,
        quorum=None,
        variant="",
        baselines=(),
        teachers=(),
    )


def with_baselines(cell: Cell, alone: Sequence[Cell]) -> Cell:
    """Return a cohort's cell that names the independent cells of its branches, in order."""
    return replace(cell, baselines=tuple(each.key for each in alone))
