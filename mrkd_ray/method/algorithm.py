"""Algorithm 1 of the paper, in the paper's order, and the baseline it is compared with.

Nothing here knows whether the branches live in this process (`LocalCohort`) or in Ray actors
(`RayCohort`): soft labels and teachers are handles that only the cohort looks into.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from mrkd_ray.config.method import Training

Handle = Any
"""Arrays and figures in `LocalCohort`, object refs in `RayCohort`."""


class Cohort(Protocol):
    """Γ branches that are trained together."""

    cycle: int  # the next cycle to run, 0 in a fresh cohort

    def train(self, epochs: int) -> None:
        """Single branch training: every branch alone on the hard labels, Eq. 1."""

    def soft_labels(self, temperature: float) -> Handle:
        """Every branch's soft labels for all training clips, Eq. 2."""

    def average(self, soft_labels: Handle) -> Handle:
        """Information fusion: the teacher of each branch, Eq. 3."""

    def distil(self, teacher: Handle, temperature: float, epochs: int) -> None:
        """Distillation training: hard labels and the teacher, Eqs. 4 and 5."""

    def end_cycle(self) -> Handle:
        """Evaluate, checkpoint, go on to the next learning rate; the cycle's figures."""


def distilled(cohort: Cohort, training: Training, temperature: float) -> Iterator[Handle]:
    """Algorithm 1: cyclic distillation, from the cycle that the cohort stands at."""
    for cycle in range(cohort.cycle, training.cycles):
        if cycle < training.warm_up_cycles:  # 0 in the paper
            cohort.train(epochs=training.b + training.d)
        else:
            cohort.train(epochs=training.b)
            soft_labels = cohort.soft_labels(temperature)
            teacher = cohort.average(soft_labels)
            cohort.distil(teacher, temperature, epochs=training.d)
        yield cohort.end_cycle()


def independent(cohort: Cohort, training: Training) -> Iterator[Handle]:
    """The baseline: the same epochs and the same schedule on the hard labels alone."""
    for _ in range(cohort.cycle, training.cycles):
        cohort.train(epochs=training.b + training.d)
        yield cohort.end_cycle()


def learning_rate(initial: float, cycle: int, cycles: int) -> float:
    """Cosine annealing from `initial` to 0, a step a cycle (Algorithm 1, line 17).

    The closed form of torch's CosineAnnealingLR with T_max = cycles.
    """
    from math import cos, pi

    return initial * (1 + cos(pi * cycle / cycles)) / 2
