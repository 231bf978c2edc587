"""Which shortened cells stand for a grid's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mrkd_ray.cells.cell import Cell, independent_cell
from mrkd_ray.datasets.splits import Split
from mrkd_ray.plan import probe
from mrkd_ray.plan.measurements import kind_of
from mrkd_ray.plan.window_memory import WindowMemory
from tests.conftest import make_cell

X, Y, Z = "logmel64:vgg_small", "cqt:vgg_small", "mfcc:vgg_small"
SINGLES = [make_cell(spec, temperature=None) for spec in (X, Y, Z)]
COHORTS = [make_cell(*pair, temperature=t) for pair in ((X, Y), (X, Z)) for t in (1.0, 2.0)]


def chosen(
    todo: list[Cell], gpus: Callable[[int], float] = lambda branches: 0.0, places: int = 2
) -> list[tuple[str, str, int]]:
    """What is run first and then, as condition and cohort, and in how many copies."""
    windows = {
        kind_of(cell): WindowMemory((1,) * len(cell.branches), (True,) * len(cell.branches), "cpu")
        for cell in todo
    }
    at_once = [places // len(cell.branches) for cell in todo]
    return [
        (pair.first.condition, f"{pair.second.condition} {pair.second.cohort}", pair.copies)
        for pair in probe._pairs(todo, at_once, windows, gpus)
    ]


def test_cohorts_cover_their_independent_branches() -> None:
    assert chosen([*SINGLES, *COHORTS]) == [
        ("independent", f"distilled {X}+{Y}", 1),
        ("independent", f"distilled {X}+{Z}", 1),
    ]


def test_copies_fill_the_workers_as_the_grid_does() -> None:
    assert [copies for *_, copies in chosen([*SINGLES, *COHORTS], places=16)] == [4, 4]
    assert [copies for *_, copies in chosen([*SINGLES, *COHORTS], places=6)] == [3, 3]


def test_a_branch_that_has_more_alone_is_measured_alone() -> None:
    on_one_card = chosen([SINGLES[0], COHORTS[0]], gpus=lambda branches: 1 / branches)
    assert on_one_card == [
        ("distilled", f"distilled {X}+{Y}", 1),
        ("independent", f"independent {X}", 1),
    ]


def test_what_no_cohort_covers_is_measured_too() -> None:
    assert chosen(SINGLES[1:]) == [
        ("independent", f"independent {Y}", 2),
        ("independent", f"independent {Z}", 2),
    ]
    assert chosen(COHORTS[:1]) == [("distilled", f"distilled {X}+{Y}", 1)]  # no baselines


def test_variants_are_measured_apart_where_a_cycle_may_cost_another_time() -> None:
    def grid(**options: Any) -> list[Cell]:
        cohort = make_cell(X, Y, **options)
        alone = [independent_cell(n, cohort, device="cpu", content="") for n in cohort.names]
        return [*alone, cohort]

    plain = chosen(grid())
    assert chosen([*grid(), *grid(kl_weight=2.0, cycles=9, lr=0.5, warm_up=0.3)]) == plain
    stopping = chosen([*grid(early_stop=4), *grid(early_stop=7)])
    assert stopping == plain
    assert chosen([*grid(), *grid(early_stop=4)]) == [*plain, *plain]  # held-out clips are scored
    windows = chosen([*grid(), *grid(soft_labels="window")])  # with the baselines of the first
    assert windows == [*plain, ("distilled", f"distilled {X}+{Y}", 1)]
    assert chosen([*grid(), *grid(batch_size=4)]) == [*plain, *plain]


def test_shortened_cells_follow_each_other_in_the_same_processes() -> None:
    pair = probe._Pair(SINGLES[0], COHORTS[0], copies=2)
    made = list(probe._copies(pair, fold=3))
    assert [cell.condition for cell in made] == ["independent"] * 2 + ["distilled"] * 2
    assert len({cell.key for cell in made}) == 4
    later = make_cell(X, Y, warm_up=0.5)
    assert {c.training.warm_up for c in probe._copies(probe._Pair(later, later, 1), 3)} == {0}
    twice = probe._Pair(SINGLES[0], SINGLES[0], copies=2)
    assert len({cell.key for cell in probe._copies(twice, fold=3)}) == 4
    assert {cell.training.cycles for cell in made} == {3}
    stops = make_cell(X, Y, early_stop=1, cycles=9)
    (cell, _) = probe._copies(probe._Pair(stops, stops, 1), 3)
    assert cell.training.early_stop == cell.training.cycles == 3  # all of them run
    assert kind_of(cell) == kind_of(stops)
    assert {cell.fold for cell in made} == {3}


def test_a_sample_is_of_whole_batches_from_all_over_the_split() -> None:
    train, test = tuple(f"train {i}" for i in range(1000)), tuple(f"test {i}" for i in range(100))
    frames = dict.fromkeys([*train, *test], 300)
    few = probe.sample(Split(2, train, (), test), frames, batch_size=10, window=150)
    assert len(few.train) == 20
    assert (few.train[0], few.train[-1]) == ("train 0", "train 999")
    assert len(few.test) == 32  # a batch of 64 windows
    assert few.held_out == ()
    assert probe.sample(few, frames, batch_size=100, window=150) == few
