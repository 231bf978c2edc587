"""`--quorum`: a cohort goes on without a branch that is lost, and the result says so."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells import lost
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid.run import CellsFailed, run
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.report import page
from mrkd_ray.results.compare import compare
from mrkd_ray.training import branch as branches
from mrkd_ray.training import checkpoints
from tests.conftest import FAST, make_cell
from tests.distributed.test_ray_cohort import same_files

THREE = ("logmel64:vgg_small", "cqt:vgg_small", "cqt:resnet_small")
LOST = "cqt-vgg_small"
LEFT = ("logmel64-vgg_small", "cqt-resnet_small")


@pytest.fixture(scope="module")
def asked(clips: Path, cache: Path) -> dict[str, Any]:
    """A cohort of three, on one fold."""
    return {
        **FAST,
        "cycles": 3,
        "data": str(clips),
        "cache": cache,
        "cohorts": ["+".join(THREE)],
        "folds": [1],
        "independent": False,
        "name": "g",
        "runner": "local",
    }


@pytest.fixture(scope="module")
def diverges() -> Iterator[None]:
    """One of the branches does so, in cycle 1, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        break_branch(patch)
        yield


def break_branch(patch: pytest.MonkeyPatch) -> None:
    train = branches.Branch.train

    def broken(self: branches.Branch, epochs: int) -> None:
        train(self, epochs)
        if self.task.name == LOST and self.cycle == 1:
            for parameter in self.network.parameters():
                parameter.data.fill_(float("nan"))

    patch.setattr(branches.Branch, "train", broken)


def trained(asked: dict[str, Any], output: Path, *, resume: bool = False, **more: Any) -> str:
    """Run; return what is printed."""
    console = Console(file=io.StringIO(), width=1000)
    values = {**asked, "output": output, **more}
    run(parse(GridConfig, values, "test"), resume=resume, console=console).show(console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def cell_in(output: Path) -> Path:
    (cell,) = (output / "g" / "cells").iterdir()
    return cell


@pytest.fixture(scope="module")
def whole(
    asked: dict[str, Any], diverges: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A grid that lost a branch, and what it printed."""
    output = tmp_path_factory.mktemp("out")
    return output / "g", trained(asked, output, quorum=2)


def test_without_a_quorum_a_branch_that_diverges_fails_the_cell(
    asked: dict[str, Any], diverges: None, tmp_path: Path
) -> None:
    with pytest.raises(CellsFailed, match=f"branch {LOST} diverged in cycle 1"):
        trained(asked, tmp_path)


def test_a_cohort_goes_on_without_it_and_everything_says_so(whole: tuple[Path, str]) -> None:
    folder, printed = whole
    told = f"goes on without {LOST} (--quorum): branch {LOST} diverged in cycle 1"
    assert f"warning: T 1: {'+'.join(THREE)}, fold 1, seed 0: {told}" in printed
    assert f"without {LOST} from cycle 1 on" in printed
    cell = cell_in(folder.parent)
    result = json.loads((cell / "result.json").read_text())
    assert list(result["lost"]) == [LOST]
    assert result["lost"][LOST]["cycle"] == 1
    assert [each["model"] for each in result["models"]] == [*LEFT, "ensemble"]
    assert sorted(path.name for path in (cell / "branches").iterdir()) == sorted(LEFT)
    history = pd.read_csv(cell / "history.csv")
    assert list(history["branch"]) == [*LEFT] * 3
    assert [len(each) for each in cell_files.read_figures(cell)[1]] == [2, 2, 2]
    tidy, table = (pd.read_csv(folder / name) for name in ("results.csv", "table.csv"))
    assert set(tidy["lost"]) == {LOST}
    assert set(table["lost_runs"]) == {1}
    assert LOST not in set(table["model"])
    (row,) = pd.read_csv(folder / "lost.csv").to_dict("records")
    assert (row["branch"], row["cycle"], row["cell"]) == (LOST, 1, cell.name)


def test_what_reads_a_folder_reads_one_with_a_lost_branch(
    whole: tuple[Path, str], clips: Path
) -> None:
    folder, _ = whole
    found = compare(folder)
    assert {row.kind.title.partition(",")[0] for row in found.rows} == {
        "ensemble of logmel64:vgg_small + cqt:resnet_small",
        "logmel64:vgg_small",
        "cqt:resnet_small",
    }
    text = page.write(folder).read_text()
    assert "Branches that were lost" in text
    assert f"Without {LOST} from cycle 1 on" in text
    assert len(Classifier.load(cell_in(folder.parent)).branches) == 2
    assert Classifier.load(folder / "best").predict(
        clips / "00.wav"
    ).probabilities.sum() == pytest.approx(1)


def test_those_that_are_left_are_a_cohort_of_their_own_from_the_last_checkpoint_on(
    asked: dict[str, Any], whole: tuple[Path, str], tmp_path: Path
) -> None:
    """The same bits as of two branches that go on from the checkpoint before the loss."""
    from mrkd_ray.cells.run import run_cell
    from mrkd_ray.cells.tasks import branch_tasks
    from mrkd_ray.training.local_cohort import LocalCohort
    from tests.conftest import prepare_clips

    prepared = prepare_clips(data=asked["data"], cache=asked["cache"])
    cell = make_cell(*THREE, temperature=1.0, cycles=3)
    tasks = branch_tasks(cell, prepared)
    assert lost.left(tasks, tmp_path) == tasks
    own = tmp_path / "own"
    first = run_cell(cell, tasks, LocalCohort(tasks, own), own)
    next(first)
    left = [task for task in tasks if task.name != LOST]
    list(run_cell(cell, left, LocalCohort(left, own), own))
    same_files(own, cell_in(whole[0].parent), LEFT)


def test_a_run_that_is_resumed_keeps_to_it(
    asked: dict[str, Any],
    whole: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit, calls = checkpoints.commit, []

    def stop(begun: Path, rows: list[dict[str, Any]]) -> None:
        commit(begun, rows)
        calls.append(rows)
        if len(calls) == 2:  # the first after the loss
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "commit", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(asked, tmp_path / "cut", quorum=2)
    monkeypatch.setattr(checkpoints, "commit", commit)
    assert list(lost.read(cell_in(tmp_path / "cut"))) == [LOST]
    printed = trained(asked, tmp_path / "cut", quorum=2, resume=True)
    assert "goes on without" not in printed  # it was decided
    same_files(cell_in(whole[0].parent), cell_in(tmp_path / "cut"), LEFT)
    assert "lost" in json.loads((cell_in(tmp_path / "cut") / "result.json").read_text())


def test_a_run_that_asks_for_all_branches_does_not_take_it(
    asked: dict[str, Any], whole: tuple[Path, str], tmp_path: Path
) -> None:
    folder = tmp_path / "g"
    shutil.copytree(whole[0], folder)
    assert "taken over" in trained({**asked, "name": "other"}, tmp_path, quorum=2)
    with pytest.raises(CellsFailed, match=f"branch {LOST} diverged"):  # trained again
        trained({**asked, "name": "third"}, tmp_path)
    console = Console(file=io.StringIO(), width=1000)
    with pytest.raises(CellsFailed, match=f"branch {LOST} diverged"):
        run(parse(GridConfig, {**asked, "output": tmp_path}, "t"), resume=True, console=console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"went on without {LOST}; this run asks for more branches" in printed
    assert (folder / "damaged").is_dir()
    assert not (folder / "lost.csv").exists()


def test_fewer_than_the_quorum_fail_the_cell(
    asked: dict[str, Any], diverges: None, tmp_path: Path
) -> None:
    cohort = [f"{THREE[0]}+{THREE[1]}"]
    with pytest.raises(UserError, match="quorum 2: no cohort has more branches than that"):
        trained({**asked, "cohorts": cohort}, tmp_path, quorum=2)
    printed = trained({**asked, "cohorts": cohort}, tmp_path, quorum=1)
    assert f"without {LOST} from cycle 1 on" in printed  # a cohort of one goes on


@pytest.mark.cluster
def test_with_ray_a_branch_whose_process_dies_is_lost_when_it_is_not_tried_again(
    prepared: Prepared, ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mrkd_ray.distributed import tune_trials
    from tests.distributed.test_tune_trials import branch_actors

    for name in ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "TUNE_DISABLE_SIGINT_HANDLER"):
        monkeypatch.setenv(name, "1")  # what `run_cells` sets ends with the test
    monkeypatch.setattr(tune_trials, "MAX_FAILURES", 0)
    cell = replace(make_cell(*THREE, cycles=12), quorum=2)
    told: list[str] = []

    def kill_it(key: str, rows: list[dict[str, Any]]) -> None:
        if rows[0]["cycle"] == 0:
            (actor,) = (
                actor
                for actor in branch_actors().values()
                if actor["State"] == "ALIVE" and actor["Name"].startswith(f"{LOST}, cohort")
            )
            os.kill(actor["Pid"], signal.SIGKILL)

    failed = tune_trials.run_cells(
        [cell],
        prepared,
        tmp_path,
        gpus={cell.key: 0.0},
        profile=False,
        on_cycle=kill_it,
        on_end=lambda key: None,
        on_lost=lambda key, line: told.append(line),
    )
    assert not failed
    (line,) = told
    assert line.startswith(f"goes on without {LOST} (--quorum): a process of Ray died")
    result = json.loads((tmp_path / "cells" / cell.key / "result.json").read_text())
    assert list(result["lost"]) == [LOST]
    assert [each["model"] for each in result["models"]] == [*LEFT, "ensemble"]
