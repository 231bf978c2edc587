"""Files that survive a crash, and runs that go on from them bit for bit."""

from __future__ import annotations

import csv
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.intact import result_of
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common import files
from mrkd_ray.common.errors import UserError
from mrkd_ray.distributed.ray_cohort import RayCohort
from mrkd_ray.method import algorithm
from mrkd_ray.scores import metrics
from mrkd_ray.training import checkpoints
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.branch_task import BranchTask
from mrkd_ray.training.local_cohort import LocalCohort
from tests.conftest import TaskMaker, make_cell
from tests.distributed.test_ray_cohort import actors_of, same_files

TWO = ("logmel64:resnet_small", "cqt:vgg_small")


class Killed(BaseException):
    """Stands for the end of the process."""


# Files -----------------------------------------------------------------------------------------


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")

    def write(text: str) -> None:
        with files.replacing(file) as temporary:
            temporary.write_text(text)
            assert file.read_text() == "old"  # until the block is over
            if text == "half":
                raise Killed

    with pytest.raises(Killed):
        write("half")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]
    write("new")
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    opened: dict[int, str] = {}
    open_, fsync, replace = os.open, os.fsync, Path.replace

    def note(path: Path, flags: int) -> int:
        descriptor = open_(path, flags)
        opened[descriptor] = path.name
        return descriptor

    def sync(descriptor: int) -> None:
        events.append(("sync", opened[descriptor]))
        fsync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        events.append(("rename", target.name))
        return replace(self, target)

    monkeypatch.setattr(os, "open", note)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    files.write_text(tmp_path / "new" / "a.txt", "text")
    temporary = events[0][1]
    assert temporary not in ("a.txt", "new")
    assert events == [("sync", temporary), ("rename", "a.txt"), ("sync", "new")]


def test_json_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.json"
    files.write_json(file, {"x": [1.5, None]})
    assert json.loads(file.read_text()) == {"x": [1.5, None]}
    with pytest.raises(TypeError):
        files.write_json(file, {"x": object()})
    assert json.loads(file.read_text()) == {"x": [1.5, None]}
    assert os.listdir(file.parent) == ["b.json"]


# Folders ---------------------------------------------------------------------------------------


def test_only_a_committed_folder_is_the_latest(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path / "not there") is None
    assert checkpoints.latest(tmp_path) is None
    begun = checkpoints.begin(tmp_path, 9)
    (begun / "one").write_text("9")
    assert checkpoints.latest(tmp_path) is None
    checkpoints.commit(begun, [])
    ninth = checkpoints.latest(tmp_path)
    assert ninth is not None
    assert (ninth / "one").read_text() == "9"
    assert not begun.exists()

    torn = checkpoints.begin(tmp_path, 10)
    (torn / "half").write_text("10")
    assert checkpoints.latest(tmp_path) == ninth  # the process ended here
    begun = checkpoints.begin(tmp_path, 10)
    assert os.listdir(begun) == []  # what the torn one left is not mistaken for new
    (torn / "late").write_text("10")  # nor what its branches, which may still live, write now
    assert os.listdir(begun) == []
    (begun / "one").write_text("10")
    rows = [
        {"cycle": 9, "branch": "a", "lr": 0.1, "predicted": []},
        {"cycle": 9, "branch": "b", "lr": 1e-17, "predicted": [1]},
    ]
    checkpoints.commit(begun, rows)
    tenth = checkpoints.latest(tmp_path)
    assert tenth is not None
    assert checkpoints.read_rows(tenth) == rows
    assert (tenth / "one").read_text() == "10"
    assert sorted(os.listdir(tenth)) == ["SHA256SUMS", "one", "rows.json"]
    # The one before is kept, to fall back to; older ones and other attempts are gone.
    assert sorted(os.listdir(tmp_path)) == [ninth.name, tenth.name]


def test_the_latest_is_the_one_of_the_highest_cycle(tmp_path: Path) -> None:
    for cycle in (2, 10, 9, 1000):  # as after a crash between a rename and the removal of others
        (tmp_path / f"cycle-{cycle:06d}").mkdir()
        checkpoints.begin(tmp_path, cycle + 1)
    latest = checkpoints.latest(tmp_path)
    assert latest is not None
    assert latest.name == "cycle-001000"


def test_a_commit_removes_what_crashes_left(tmp_path: Path) -> None:
    names = ("cycle-000001", ".cycle-000002.0a", ".cycle-000003.0b", "cycle-000003")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("left over")
    begun, ahead = (checkpoints.begin(tmp_path, cycle) for cycle in (3, 4))
    checkpoints.commit(begun, [])
    assert sorted(os.listdir(tmp_path)) == [ahead.name, "cycle-000001", "cycle-000003"]
    assert not (tmp_path / "cycle-000003" / "file").exists()


# One branch ------------------------------------------------------------------------------------


def cycle_of(branch: Branch, folder: Path) -> None:
    branch.train(1)
    branch.distil(branch.soft_labels(2.0), 2.0, 1)
    branch.end_cycle(folder)


def state(branch: Branch) -> dict[str, torch.Tensor]:
    """Weights, BatchNorm's statistics and momentum, and the average of both of the first."""
    found = {f"network.{k}": v.clone() for k, v in branch.network.state_dict().items()}
    if branch.average is not None:
        found |= {f"average.{k}": v.clone() for k, v in branch.average.state_dict().items()}
    for name, parameter in branch.network.named_parameters():
        momentum = branch.optimiser.state[parameter]["momentum_buffer"]
        found[f"momentum.{name}"] = momentum.clone()
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("spec", "ema"), [(TWO[0], 0.0), (TWO[1], 0.9)])
def test_a_branch_goes_on_bit_for_bit(
    make_tasks: TaskMaker, tmp_path: Path, spec: str, ema: float
) -> None:
    (task,) = make_tasks(spec, ema=ema)
    undisturbed = Branch(task)
    cycle_of(undisturbed, tmp_path / "cycle-000001")
    after_one = state(undisturbed)
    cycle_of(undisturbed, tmp_path / "second")

    resumed = Branch(task)
    resumed.train(1)  # whatever it was before
    assert resumed.resume(tmp_path / "cycle-000001") == 1
    assert resumed.cycle == 1
    assert same(state(resumed), after_one)
    cycle_of(resumed, tmp_path / "again")
    assert same(state(resumed), state(undisturbed))

    without_momentum = Branch(task)
    without_momentum.resume(tmp_path / "cycle-000001")
    without_momentum.optimiser.state.clear()
    cycle_of(without_momentum, tmp_path / "other")
    assert not same(state(without_momentum), state(undisturbed))


def test_a_checkpoint_before_the_first_step_has_no_momentum(
    make_tasks: TaskMaker, tmp_path: Path
) -> None:
    (task,) = make_tasks("cqt:vgg_small")
    fresh = Branch(task)
    start = tmp_path / "cycle-000000"
    checkpoints.save_branch(
        start, task.name, {"network": fresh.network}, fresh.optimiser, 0, "fp32"
    )
    resumed = Branch(task)
    assert resumed.resume(start) == 0
    for branch in (fresh, resumed):
        cycle_of(branch, tmp_path / "next")
    assert same(state(resumed), state(fresh))


def test_a_checkpoint_of_another_network_is_refused(make_tasks: TaskMaker, tmp_path: Path) -> None:
    one, other = make_tasks("cqt:vgg_small", "cqt:resnet_small")
    branch = Branch(one)
    folder = tmp_path / "cycle-000001"
    modules = {"network": branch.network}
    checkpoints.save_branch(folder, other.name, modules, branch.optimiser, 1, "fp32")
    with pytest.raises(RuntimeError, match="Missing key"):
        Branch(other).resume(folder)


def test_a_checkpoint_of_another_precision_or_cycle_is_refused_before_it_changes_the_branch(
    make_tasks: TaskMaker, tmp_path: Path
) -> None:
    (task,) = make_tasks("cqt:vgg_small")
    branch = Branch(task)
    cycle_of(branch, tmp_path / "cycle-000001")
    before = state(branch)
    branch.train(1)
    after = state(branch)
    branch.compute.precision = "bf16"  # as `auto` decides on another machine
    with pytest.raises(UserError, match="was computed in fp32, and this machine computes in bf16"):
        branch.resume(tmp_path / "cycle-000001")
    branch.compute.precision = "fp32"
    (tmp_path / "cycle-000001").rename(tmp_path / "cycle-000002")
    with pytest.raises(UserError, match="precedes cycle 1 and not the folder's"):
        branch.resume(tmp_path / "cycle-000002")
    assert same(state(branch), after)
    assert not same(before, after)


# A cell ----------------------------------------------------------------------------------------


def timeless(folder: Path) -> list[dict[str, str]]:
    """The history without times."""
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["seconds"]) > 0 for row in rows)
    for row in rows:
        assert int(row.pop("peak_bytes")) > 0
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def assert_same_files(one: Path, other: Path, names: tuple[str, ...]) -> None:
    listed = [{str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()} for f in (one, other)]
    assert listed[0] == listed[1]
    same_files(one, other, names)
    assert timeless(one) == timeless(other)
    if (one / "soft_labels.npz").exists():
        with np.load(one / "soft_labels.npz") as a, np.load(other / "soft_labels.npz") as b:
            assert {*a} == {*b} == {"clip_id", "teacher"}  # whose values `same_files` compares
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    for result in results:
        assert result.pop("seconds") > 0
    assert results[0] == results[1]


CELL = make_cell(*TWO)


def start(tasks: list[BranchTask], folder: Path, cell: Cell = CELL) -> LocalCohort:
    """Run a cell to its end, from where its folder stands."""
    cohort = LocalCohort(tasks, folder)
    list(run_cell(cell, tasks, cohort, folder))
    return cohort


@pytest.fixture(scope="module")
def tasks(prepared: Prepared) -> list[BranchTask]:
    return branch_tasks(CELL, prepared)


@pytest.fixture(scope="module")
def undisturbed(tasks: list[BranchTask], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cell that ran to its end at one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    start(tasks, folder)
    return folder


def kill(
    owner: Any, name: str, number: int, tasks: list[BranchTask], folder: Path, cell: Cell = CELL
) -> None:
    """Run a cell whose process ends at the call of this number (from 1) of a function."""
    real, calls = getattr(owner, name), 0

    def function(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise Killed
        return real(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, function)
        with pytest.raises(Killed):
            start(tasks, folder, cell)


# (owner, function, which call of it kills): 2 cycles of 2 branches.
CRASHES = {
    "in the first cycle": (Branch, "distil", 2, 0),
    "in the middle of the second cycle": (Branch, "distil", 4, 1),
    "between two branches' checkpoints": (checkpoints, "save_branch", 4, 1),
    "before the second commit": (checkpoints, "commit", 2, 1),
    "before the models are exported": (LocalCohort, "export", 1, 2),
    "before the result is written": (cell_files, "write_predictions", 1, 2),
    "after the teacher was moved": (metrics, "measure", 5, 2),
}


@pytest.mark.parametrize("where", CRASHES)
def test_a_cell_that_was_killed_ends_as_the_undisturbed_one(
    where: str, tasks: list[BranchTask], undisturbed: Path, tmp_path: Path
) -> None:
    owner, name, number, stands_at = CRASHES[where]
    kill(owner, name, number, tasks, tmp_path)
    (tmp_path / ".847cea1b.tmp").write_text("half")  # which a process that is killed leaves
    assert result_of(tmp_path) is None
    kept = tmp_path / "history.csv"
    rows = kept.read_text().splitlines() if kept.exists() else []
    resumed = LocalCohort(tasks, tmp_path)
    assert resumed.cycle == stands_at
    assert [branch.cycle for branch in resumed.branches] == [stands_at] * 2
    list(run_cell(CELL, tasks, resumed, tmp_path))
    assert_same_files(tmp_path, undisturbed, CELL.names)
    assert not list(tmp_path.rglob(".*"))
    assert result_of(tmp_path) is not None
    # Rows from before, with their times, are kept as they were.
    assert kept.read_text().splitlines()[: len(rows)] == rows
    assert [(int(row["cycle"]), row["branch"]) for row in timeless(tmp_path)] == [
        (cycle, branch) for cycle in range(2) for branch in CELL.names
    ]


def test_a_cell_killed_between_checkpoint_and_history_keeps_its_rows(
    tasks: list[BranchTask], undisturbed: Path, tmp_path: Path
) -> None:
    for cycle in (1, 2):  # after the last there is no other that would write its rows
        folder = tmp_path / str(cycle)
        kill(cell_files, "write_history", cycle, tasks, folder)
        start(tasks, folder)
        assert_same_files(folder, undisturbed, CELL.names)


def test_rows_of_a_cycle_that_is_run_again_are_replaced(
    tasks: list[BranchTask], undisturbed: Path, tmp_path: Path
) -> None:
    # A history that is ahead of its checkpoint, as where the folder was copied while it ran.
    for name in ("history.csv", "predicted.npy"):
        (tmp_path / name).write_bytes((undisturbed / name).read_bytes())
    start(tasks, tmp_path)
    assert_same_files(tmp_path, undisturbed, CELL.names)


def test_nothing_is_left_over_and_nothing_is_unpickled(
    tasks: list[BranchTask], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {path.name for path in undisturbed.iterdir()}
    assert names == {
        "SHA256SUMS",
        "branches",
        "history.csv",
        "predicted.npy",
        "predictions.csv",
        "result.json",
        "soft_labels.npz",
    }
    assert not [path for path in undisturbed.rglob("*") if path.name.startswith(".")]
    cohort = LocalCohort(tasks, tmp_path)
    next(algorithm.distilled(cohort, CELL.training, 2.0))

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was unpickled")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert LocalCohort(tasks, tmp_path).cycle == 1
    with np.load(undisturbed / "soft_labels.npz", allow_pickle=False) as arrays:
        assert arrays["clip_id"].tolist() == list(tasks[0].train.clip_ids)
        assert arrays["teacher"].dtype == np.float32


@pytest.mark.parametrize(("rule", "teachers"), [("mean", 1), ("leave_one_out", 2)])
def test_soft_labels_are_the_last_teachers(
    make_tasks: TaskMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
    teachers: int,
) -> None:
    tasks = make_tasks(*TWO, average=rule)
    taught: list[np.ndarray] = []
    distil = Branch.distil

    def spy(self: Branch, teacher: np.ndarray, temperature: float, epochs: int) -> None:
        taught.append(teacher)
        distil(self, teacher, temperature, epochs)

    monkeypatch.setattr(Branch, "distil", spy)
    start(tasks, tmp_path, make_cell(*TWO, average=rule))
    with np.load(tmp_path / "soft_labels.npz", allow_pickle=False) as arrays:
        stored = arrays["teacher"]
    assert stored.shape == (teachers, len(tasks[0].train.clip_ids), 3)
    np.testing.assert_array_equal(stored[0], taught[-2])
    np.testing.assert_array_equal(stored[-1], taught[-1])
    assert np.abs(stored[0] - taught[0]).max() > 1e-4  # the first cycle's was another


@pytest.mark.parametrize(
    "options",
    [{"teacher_momentum": 0.5}, {"trust": True, "soft_labels": "virtual"}],
)
@pytest.mark.parametrize("runner", ["local", pytest.param("ray", marks=pytest.mark.cluster)])
def test_a_resumed_cell_remembers_its_teachers(
    prepared: Prepared,
    tmp_path: Path,
    options: dict[str, Any],
    runner: str,
    request: pytest.FixtureRequest,
) -> None:
    cell = make_cell(*TWO, cycles=3, **options)
    tasks = branch_tasks(cell, prepared)
    start(tasks, tmp_path / "undisturbed", cell)
    killed = tmp_path / "killed"
    kill(Branch, "train", 5, tasks, killed, cell)  # in the third cycle
    if runner == "local":
        assert start(tasks, killed, cell).cycle == 3
    else:
        request.getfixturevalue("ray_cluster")
        with actors_of(*TWO) as processes:
            cohort = RayCohort(processes, tasks, killed)
            assert cohort.cycle == 2
            list(run_cell(cell, tasks, cohort, killed))
    assert_same_files(killed, tmp_path / "undisturbed", cell.names)


def test_an_independent_cell_resumes_without_a_teacher(prepared: Prepared, tmp_path: Path) -> None:
    cell = make_cell("cqt:vgg_small", temperature=None)
    tasks = branch_tasks(cell, prepared)
    start(tasks, tmp_path / "undisturbed", cell)
    kill(Branch, "train", 2, tasks, tmp_path / "killed", cell)
    assert start(tasks, tmp_path / "killed", cell).cycle == 2
    assert_same_files(tmp_path / "killed", tmp_path / "undisturbed", cell.names)
    assert not (tmp_path / "killed" / "soft_labels.npz").exists()


def test_soft_labels_of_unlabelled_clips_are_kept_and_a_killed_cell_goes_on_from_them(
    with_sounds: Prepared, tmp_path: Path
) -> None:
    cell = make_cell(*TWO, labelled=0.5)
    tasks = branch_tasks(cell, with_sounds)
    start(tasks, tmp_path / "undisturbed", cell)
    kill(Branch, "distil", 3, tasks, tmp_path / "killed", cell)
    start(tasks, tmp_path / "killed", cell)
    assert_same_files(tmp_path / "killed", tmp_path / "undisturbed", cell.names)
    with np.load(tmp_path / "killed" / "soft_labels.npz", allow_pickle=False) as arrays:
        assert arrays["clip_id"].tolist() == [*tasks[0].train.clip_ids, *tasks[0].unlabelled]
        assert arrays["teacher"].shape == (1, 12 + 5, 3)
