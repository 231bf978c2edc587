"""From what was measured to what cells cost: arithmetic on made-up seconds and bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.audio import decoding
from mrkd_ray.cells.prepared import ticks_of_scan
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.datasets.checking.scan import scan_file
from mrkd_ray.plan import costs
from mrkd_ray.plan.costs import Cost
from mrkd_ray.plan.measurements import Probe, ProbedKind, Sizes, Turn, kind_of
from mrkd_ray.representations.catalogue import compute_clip
from tests.conftest import make_cell

TWO = ("logmel64:resnet_small", "cqt:vgg_small")
CELL = make_cell(*TWO, cycles=30)
WINDOW = make_cell(*TWO, cycles=30, soft_labels="window")
TRUSTING = [
    make_cell(*TWO, cycles=30, trust=True, average=average) for average in ("mean", "leave_one_out")
]
SMALL = Sizes(train=10, train_windows=40, held_out_windows=0, test=4, test_windows=16)
FULL = Sizes(train=100, train_windows=800, held_out_windows=0, test=8, test_windows=64)
FAST = {"train": 1.0, "soft_labels": 1.0, "distil": 1.0, "evaluate": 1.0, "checkpoint": 1.0}
SLOW = {**FAST, "train": 2.0}
FILES = {
    "history.csv": 300,
    "predicted.npy": 300,
    "predictions.csv": 100,
    "soft_labels.npz": 1000,
    "result.json": 7,
    "profile.json": 3000,
    "branches/a/model.safetensors": 5000,
    "branches/a/trained_on.txt": 330,
    "branches/b/model.safetensors": 6000,
}
PROBE = Probe(
    sizes={150: SMALL},
    kinds={
        kind_of(cell): ProbedKind((FAST, SLOW), 0.5, (100, 200), (12, 24), FILES)
        for cell in (CELL, WINDOW, *TRUSTING)
    },
    turns={CELL.branches: Turn(new=9.0, cold=5.0, warm=2.0)},
    end=1.0,
    features=0.0,
)


@pytest.mark.parametrize(
    ("rate", "samples"), [(22050, 12_345), (44100, 43_999), (48000, 31_111), (8000, 1)]
)
def test_ticks_are_the_frames_of_the_features_at_the_papers_hop(
    rate: int, samples: int, tmp_path: Path
) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=samples) / 8, rate)
    frames = compute_clip(("logmel64",), decoding.load(path))["logmel64"]
    assert ticks_of_scan(scan_file(path)) == len(frames)


def test_each_phase_grows_with_its_own_unit_and_the_slowest_branch_counts() -> None:
    cost = costs.cost(CELL, 12, FULL, PROBE, one_by_one=False, profile=False)
    fast = 10 + 20 + 10 + 4 + 1  # train, soft labels, distillation, evaluation, checkpoint
    assert cost.cycle == pytest.approx(fast + 10 + 0.5)
    assert cost.seconds == pytest.approx(12 * cost.cycle)
    assert cost.turn == Turn(9 + 3, 5 + 3, 2 + 3)  # the cell before tests four times as much
    alone = costs.cost(CELL, 12, FULL, PROBE, one_by_one=True, profile=False)
    assert alone.cycle == pytest.approx(2 * fast + 10 + 0.5)


def test_soft_labels_of_a_window_grow_with_clips() -> None:
    by_clip, by_window = (
        costs.cost(cell, 1, FULL, PROBE, one_by_one=False, profile=False).cycle
        for cell in (CELL, WINDOW)
    )
    assert by_clip - by_window == pytest.approx(20 - 10)


def test_each_file_grows_with_its_own_unit() -> None:
    cost = costs.cost(CELL, 12, FULL, PROBE, one_by_one=False, profile=False)
    fixed = 5000 + 6000 + 7
    grown = 300 * 10 + 300 * 10 * 2 + 100 * 2 + 1000 * 10 + 330 * 10  # 30 cycles of 3 probed
    assert cost.disk == fixed + grown
    assert cost.soft_labels == 1000 * 10
    assert cost.checkpoints == 4 * 2 * (5000 + 6000)  # of weights and momentum
    for trusting, teachers in zip(TRUSTING, (1, 2), strict=True):  # leave-one-out: one a branch
        more = costs.cost(trusting, 12, FULL, PROBE, one_by_one=False, profile=False)
        remembered = 1000 * 10 * 2 // teachers  # both branches; the file has all teachers
        assert more.checkpoints - cost.checkpoints == 4 * remembered
    profiled = costs.cost(CELL, 12, FULL, PROBE, one_by_one=False, profile=True)
    assert profiled.disk - cost.disk == 3000 * 10


def test_a_cell_that_may_stop_early_scores_held_out_clips_and_keeps_its_best() -> None:
    phases = {**FAST, "held_out_accuracy": 1.0}
    plain, stopping = (
        make_cell(*TWO, cycles=30, warm_up=0.5, **options) for options in ({}, {"early_stop": 4})
    )
    small, full = (replace(s, held_out_windows=n) for s, n in ((SMALL, 2), (FULL, 6)))
    like = ProbedKind((phases, phases), 0.0, (100, 200), (12, 24), FILES)
    kinds = {kind_of(cell): like for cell in (plain, stopping)}
    found = [
        costs.cost(
            cell,
            30,
            full,
            replace(PROBE, sizes={150: small}, kinds=kinds),
            one_by_one=False,
            profile=False,
        )
        for cell in (plain, stopping)
    ]
    assert found[1].cycle - found[0].cycle == pytest.approx(3 / 2)  # in the warm-up too
    assert found[1].checkpoints / found[0].checkpoints == pytest.approx(5 / 4)


def a(seconds: float, *branches: str) -> Cost:
    specs = tuple(BranchSpec(representation=r, network="n") for r in branches)
    turn = Turn(new=10.0, cold=5.0, warm=1.0)
    return Cost(specs, seconds, 1, turn, disk=0, soft_labels=0, checkpoints=0)


def test_cells_run_as_many_at_once_as_fit_in_order() -> None:
    assert costs.duration([], []) == 0
    assert costs.duration([a(20, "x")], [1]) == 10 + 20
    assert costs.duration([a(20, "x"), a(30, "x")], [2, 2]) == 10 + 30
    one_by_one = costs.duration([a(20, "x"), a(30, "x"), a(1, "y")], [1, 1, 1])
    assert one_by_one == (10 + 20) + (1 + 30) + (5 + 1)
    third_takes_the_first_place_that_is_free = costs.duration(
        [a(20, "x"), a(60, "y"), a(30, "x")], [2, 2, 2]
    )
    assert third_takes_the_first_place_that_is_free == max(10 + 60, (10 + 20) + (1 + 30))


def test_a_cohort_waits_until_all_of_its_places_are_free() -> None:
    singles = [a(20, "x"), a(50, "y")]
    assert costs.duration([*singles, a(7, "x", "y")], [2, 2, 1]) == (10 + 50) + (10 + 7)
    assert costs.duration([*singles, a(7, "x", "y")], [4, 4, 2]) == 10 + 50


def test_a_sample_of_clips_says_what_all_take_with_the_start_counted_once() -> None:
    seen = [(100.0, 0), (110.0, 8), (111.0, 16), (112.0, 24)]
    assert costs.extrapolate(seen, 88) == pytest.approx(10 + 80 / 8)
    assert costs.extrapolate(seen, 24) == pytest.approx(12)
    assert costs.extrapolate(seen[:2], 40) == pytest.approx(50)  # one piece: nothing to compare
