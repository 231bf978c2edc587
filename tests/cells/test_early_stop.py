"""Early stopping: when, which weights are kept, and that a run that is resumed decides alike."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mrkd_ray.cells import early_stop
from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.config.method import Training
from mrkd_ray.datasets.splits import make_splits
from mrkd_ray.training import checkpoints
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.local_cohort import LocalCohort
from tests.conftest import make_cell

TWO = ("logmel64:vgg_small", "cqt:vgg_small")
LOSSES = {  # of each cycle
    "logmel64-vgg_small": [3.0, 2.0, 2.5, 2.0, 2.1, 2.2, 1.0, 1.0],
    "cqt-vgg_small": [3.0, 3.0, 2.9, 4.0, 4.0, 4.0, 4.0, 0.5],
}
# Patience 3: the first is best in cycle 1 and the second in cycle 2, so 5 is the last.
BEST, LAST = {"logmel64-vgg_small": 1, "cqt-vgg_small": 2}, 5


def rows(cycles: int, names: tuple[str, ...] = tuple(LOSSES)) -> list[dict[str, Any]]:
    return [
        {"cycle": i, "branch": name, early_stop.LOSS: str(LOSSES[name][i])}
        for i in range(cycles)
        for name in names
    ]


def test_the_lowest_loss_is_the_best_and_of_equal_ones_the_first() -> None:
    assert early_stop.best_cycles(rows(LAST + 1)) == BEST
    assert early_stop.best_cycles(rows(8)) == {"logmel64-vgg_small": 6, "cqt-vgg_small": 7}


def test_it_is_over_when_no_branch_got_better_for_so_many_cycles() -> None:
    asked = Training(cycles=8, warm_up=0, early_stop=3)
    over = [early_stop.is_over(rows(cycles), asked) for cycles in range(8)]
    assert over == [False] * 6 + [True, False]
    alone = [early_stop.is_over(rows(n, ("logmel64-vgg_small",)), asked) for n in range(6)]
    assert alone == [False] * 5 + [True]
    assert not early_stop.is_over(rows(LAST + 1), Training(cycles=8))


def test_cycles_without_a_teacher_do_not_count() -> None:
    for warm_up, last in ((3, 5), (4, 6), (5, None)):  # after 3 it is as without any
        asked = Training(cycles=8, warm_up=warm_up / 8, early_stop=3)
        alone = (rows(n, ("cqt-vgg_small",)) for n in range(8))
        over = [early_stop.is_over(history, asked) for history in alone]
        assert over == [last is not None and n > last for n in range(8)]


@pytest.fixture
def held_out(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """The small data set with held-out clips; their losses are those of `LOSSES`."""
    monkeypatch.setattr(Branch, "held_out_loss", lambda self: LOSSES[self.task.name][self.cycle])
    return replace(prepared, splits=tuple(make_splits(prepared.dataset, "all", 0, 0.3)))


def run(cell: Cell, prepared: Prepared, folder: Path, stop_after: int | None = None) -> int:
    """Run a cell, or so many of its cycles; return how many that were."""
    tasks = branch_tasks(cell, prepared)
    ran = 0
    for _ in run_cell(cell, tasks, LocalCohort(tasks, folder), folder):
        ran += 1
        if ran == stop_after:
            return ran
    return ran


def files(folder: Path) -> dict[str, str]:
    paths = [*folder.glob("branches/*/*.safetensors"), folder / "predictions.csv"]
    paths.append(folder / "predicted.npy")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def test_each_branch_is_kept_as_its_best_cycle_left_it(held_out: Prepared, tmp_path: Path) -> None:
    cell = make_cell(*TWO, cycles=8, early_stop=3)
    assert run(cell, held_out, tmp_path / "stopped") == LAST + 1
    result = json.loads((tmp_path / "stopped" / "result.json").read_text())
    assert result["epochs"] == 2 * (LAST + 1)  # b = d = 1
    assert result["best_cycles"] == BEST
    assert not (tmp_path / "stopped" / "checkpoint").exists()
    for name, cycle in BEST.items():
        run(cell, held_out, tmp_path / name, stop_after=cycle + 1)
        there = checkpoints.latest(tmp_path / name / "checkpoint")
        assert there is not None
        expected = load_file(there / f"{name}.safetensors")
        found = load_file(tmp_path / "stopped" / "branches" / name / "model.safetensors")
        weights = {key: value for key, value in found.items() if key.startswith("network.")}
        assert weights
        for key, value in weights.items():
            np.testing.assert_array_equal(value, expected[key], err_msg=key)


def test_with_more_patience_than_cycles_all_run_and_the_best_is_kept(
    held_out: Prepared, tmp_path: Path
) -> None:
    cell = make_cell(TWO[0], cycles=6, early_stop=5, temperature=None)
    assert run(cell, held_out, tmp_path / "a") == 6
    whole = make_cell(TWO[0], cycles=6, temperature=None)
    assert run(whole, held_out, tmp_path / "b") == 6
    assert files(tmp_path / "a") != files(tmp_path / "b")
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["epochs"] == 12
    assert "best_cycles" not in json.loads((tmp_path / "b" / "result.json").read_text())


@pytest.mark.parametrize("stop_after", [1, 2, 3, LAST, LAST + 1])
@pytest.mark.parametrize("link", [True, False])
def test_a_run_that_is_stopped_and_resumed_gives_the_same(
    stop_after: int,
    link: bool,
    held_out: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not link:
        monkeypatch.delattr(os, "link")
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError()), raising=False)
    cell = make_cell(*TWO, cycles=8, early_stop=3)
    run(cell, held_out, tmp_path / "whole")
    run(cell, held_out, tmp_path / "resumed", stop_after=stop_after)
    assert run(cell, held_out, tmp_path / "resumed") == LAST + 1 - stop_after
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")


@pytest.mark.parametrize("cycles", [2, 3])
def test_a_crash_right_after_the_checkpoint_of_a_best_cycle(
    cycles: int, held_out: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its figures are in the history yet, nor is it kept."""
    cell = make_cell(*TWO, cycles=8, early_stop=3)
    run(cell, held_out, tmp_path / "whole")
    run(cell, held_out, tmp_path / "crashed", stop_after=cycles - 1)
    before = tmp_path / "before"
    shutil.copytree(tmp_path / "crashed", before)
    tasks = branch_tasks(cell, held_out)
    next(run_cell(cell, tasks, LocalCohort(tasks, tmp_path / "crashed"), tmp_path / "crashed"))
    for name in ("history.csv", "predicted.npy"):
        shutil.copy(before / name, tmp_path / "crashed" / name)
    shutil.rmtree(tmp_path / "crashed" / "checkpoint" / "best")
    shutil.copytree(before / "checkpoint" / "best", tmp_path / "crashed" / "checkpoint" / "best")
    run(cell, held_out, tmp_path / "crashed")
    assert files(tmp_path / "crashed") == files(tmp_path / "whole")


def test_the_loss_is_that_of_the_held_out_clips(prepared: Prepared) -> None:
    splits = tuple(make_splits(prepared.dataset, "all", 0, 0.3))
    cell = make_cell(TWO[0], cycles=2, early_stop=1)
    (task,) = branch_tasks(cell, replace(prepared, splits=splits))
    branch = Branch(task)
    p = branch.probabilities("held_out").astype(np.float64)
    own = p[np.arange(len(p)), task.held_out.labels]
    assert len(p) == len(splits[0].held_out)
    np.testing.assert_allclose(branch.held_out_loss(), -np.log(own).mean(), rtol=1e-5)
