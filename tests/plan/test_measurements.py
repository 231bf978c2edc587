"""Timelines of shortened cells, written by hand: which seconds are read from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrkd_ray.common.timeline import Span
from mrkd_ray.datasets.splits import Split
from mrkd_ray.plan import measurements
from mrkd_ray.plan.measurements import ProbedKind, Ran, Sizes, Turn
from tests.conftest import make_cell

X, Y = "logmel64:vgg_small", "cqt:vgg_small"
NOWHERE = Path("nowhere")


def spans(begin: float, cycle: float, wait: float, *, warm_up: float = 0.0) -> list[list[Span]]:
    """Three cycles that each train, wait, and evaluate; the first takes longer."""
    made = []
    for more in (warm_up, 0.0, 0.0):
        half = (cycle + more) / 2
        made.append([Span("train", begin, half), Span("evaluate", begin + half + wait, half)])
        begin += 2 * half + wait
    return made


def ran(begin: float, cycle: float, *branches: str, wait: float = 0.0, warm_up: float = 0) -> Ran:
    rows = [spans(begin, cycle, wait, warm_up=warm_up) for _ in branches]
    return Ran(make_cell(*branches), NOWHERE, rows, one_by_one=False)


def test_sizes_count_windows_as_clips_are_scored() -> None:
    split = Split(1, train=("a", "b"), held_out=(), test=("c",))
    frames = {"a": 20, "b": 301, "c": 300, "d": 151}
    assert Sizes.of(split, (), frames, 150) == Sizes(2, 1 + 3, 0, 1, 2)
    assert Sizes.of(split, ("d", "a"), frames, 150) == Sizes(4, 1 + 3 + 2 + 1, 0, 1, 2)
    assert Sizes.of(split, ("d", "a"), frames, 301) == Sizes(4, 1 + 1 + 1 + 1, 0, 1, 1)


def test_a_cycle_is_the_slowest_branchs_once_it_is_warm() -> None:
    slow, fast = spans(0.0, 8.0, 1.0, warm_up=30.0), spans(5.0, 2.0, 7.0)
    cell = Ran(make_cell(X, Y), NOWHERE, [fast, slow], one_by_one=False)
    assert cell.cycle == pytest.approx((2 * 8 + 2 * 1) / 2)  # with what it waits for
    assert cell.phases[1] == pytest.approx({"train": 4.0, "evaluate": 4.0})
    assert measurements.cycle_seconds(cell.phases, 1.0, one_by_one=False) == pytest.approx(
        cell.cycle
    )


def test_branches_that_take_turns_add_up() -> None:
    rows = [spans(0.0, 2.0, 3.0), spans(2.0, 3.0, 2.0)]  # a cycle of 5 s: 2 s of one, 3 s of other
    cell = Ran(make_cell(X, Y), NOWHERE, rows, one_by_one=True)
    assert cell.cycle == pytest.approx((2 + 3 * 5 - 5) / 2)
    assert measurements.cycle_seconds(cell.phases, 0.0, one_by_one=True) == pytest.approx(5.0)


def test_turns_are_told_by_who_was_there_before() -> None:
    first = ran(100.0, 2.0, X, Y, warm_up=4.0)  # ends at 110
    again = ran(111.0, 2.0, X, Y)  # ends at 117
    other = ran(120.0, 2.0, X, X)  # ends at 126
    larger = ran(133.0, 2.0, X, X, X)
    found = measurements.turns_of([first, again, other, larger], began=90.0)
    new = pytest.approx(((100 + 4 - 90) + (133 - 126)) / 2)  # warming up is part of it
    assert found[first.cell.branches] == Turn(new=14.0, cold=3.0, warm=1.0)
    assert found[other.cell.branches] == Turn(new=new, cold=3.0, warm=1.0)
    assert found[larger.cell.branches] == Turn(new=7.0, cold=3.0, warm=1.0)


def test_copies_side_by_side_take_each_others_places_once() -> None:
    copies = [ran(10.0, 2.0, X), ran(10.0, 3.0, X), ran(20.0, 2.0, X), ran(21.0, 2.0, X)]
    (found,) = measurements.turns_of(copies, began=0.0).values()
    assert found == Turn(new=10.0, cold=10.0, warm=((20 - 19) + (21 - 16)) / 2)


def test_a_branch_of_a_cohort_stands_for_a_cell_of_its_own() -> None:
    cell = make_cell(X, Y, temperature=None)
    one, other = cell.names
    files = {
        "history.csv": 60,
        "predictions.csv": 90,  # of two branches and their ensemble
        "result.json": 5,
        f"branches/{one}/model.safetensors": 1000,
        f"branches/{other}/model.safetensors": 2000,
    }
    cohort = ProbedKind(({"train": 1.0}, {"train": 2.0}), 0.1, (10, 20), (3, 4), files)
    found = measurements.alone(cohort, cell.branches, 1)
    assert found == ProbedKind(
        ({"train": 2.0},),
        0.1,
        (20,),
        (4,),
        {
            "history.csv": 30,
            "predictions.csv": 30,
            "result.json": 5,
            f"branches/{other}/model.safetensors": 2000,
        },
    )
