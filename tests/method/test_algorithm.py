"""Algorithm 1: what it asks of a cohort, in which order, and with what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mrkd_ray.config.method import published
from mrkd_ray.method.algorithm import distilled, independent, learning_rate


class Recorder:
    """A cohort that writes down what it is told; its handles can be told apart."""

    def __init__(self, cycle: int = 0) -> None:
        self.cycle = cycle
        self.calls: list[tuple[Any, ...]] = []

    def train(self, epochs: int) -> None:
        self.calls.append(("train", epochs))

    def soft_labels(self, temperature: float) -> str:
        self.calls.append(("soft_labels", temperature))
        return f"soft labels of cycle {self.cycle}"

    def average(self, soft_labels: str) -> str:
        self.calls.append(("average", soft_labels))
        return f"average of {soft_labels}"

    def distil(self, teacher: str, temperature: float, epochs: int) -> None:
        self.calls.append(("distil", teacher, temperature, epochs))

    def end_cycle(self) -> list[dict[str, Any]]:
        self.calls.append(("end_cycle",))
        self.cycle += 1
        return [{"cycle": self.cycle - 1}]


def cycle_of(number: int, b: int, d: int, temperature: float) -> list[tuple[Any, ...]]:
    soft_labels = f"soft labels of cycle {number}"
    return [
        ("train", b),
        ("soft_labels", temperature),
        ("average", soft_labels),
        ("distil", f"average of {soft_labels}", temperature, d),
        ("end_cycle",),
    ]


def test_distilled_is_algorithm_1() -> None:
    cohort = Recorder()
    rows = list(distilled(cohort, published(cycles=3, b=2, d=5), 4.0))
    assert cohort.calls == [call for q in range(3) for call in cycle_of(q, 2, 5, 4.0)]
    assert rows == [[{"cycle": 0}], [{"cycle": 1}], [{"cycle": 2}]]


def test_warm_up_cycles_have_all_their_epochs_on_hard_labels() -> None:
    cohort = Recorder()
    list(distilled(cohort, published(cycles=3, b=2, d=5, warm_up=0.6), 4.0))
    assert cohort.calls == [("train", 7), ("end_cycle",)] * 2 + cycle_of(2, 2, 5, 4.0)
    resumed = Recorder(cycle=2)
    list(distilled(resumed, published(cycles=3, b=2, d=5, warm_up=0.6), 4.0))
    assert resumed.calls == cycle_of(2, 2, 5, 4.0)


def test_independent_gets_the_epochs_of_both_and_no_teacher() -> None:
    cohort = Recorder()
    rows = list(independent(cohort, published(cycles=3, b=2, d=5)))
    assert cohort.calls == [("train", 7), ("end_cycle",)] * 3
    assert [row["cycle"] for (row,) in rows] == [0, 1, 2]


def test_both_go_on_from_the_cycle_that_the_cohort_stands_at() -> None:
    training = published(cycles=3, b=1, d=1)
    resumed = Recorder(cycle=2)
    assert list(distilled(resumed, training, 2.0)) == [[{"cycle": 2}]]
    assert resumed.calls == cycle_of(2, 1, 1, 2.0)
    alone = Recorder(cycle=1)
    assert list(independent(alone, training)) == [[{"cycle": 1}], [{"cycle": 2}]]
    done = Recorder(cycle=3)
    assert list(distilled(done, training, 2.0)) == []
    assert done.calls == []


def test_a_cycle_is_run_only_when_it_is_asked_for() -> None:
    cohort = Recorder()
    cycles = distilled(cohort, published(cycles=3), 2.0)
    next(cycles)
    assert cohort.calls == cycle_of(0, 1, 1, 2.0)  # the caller's files are written in between


@pytest.mark.parametrize("cycles", [1, 2, 75])
def test_learning_rate_is_torchs_cosine_annealing(cycles: int) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=cycles)
    for cycle in range(cycles):
        rate = learning_rate(0.03, cycle, cycles)
        assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        schedule.step()
    assert learning_rate(0.03, 0, cycles) == 0.03


def test_learning_rate_by_hand() -> None:
    assert [learning_rate(0.8, cycle, 4) for cycle in (0, 2)] == [0.8, pytest.approx(0.4)]
    assert learning_rate(0.8, 1, 3) == pytest.approx(0.6)  # cos 60 degrees is 1/2
