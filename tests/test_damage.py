"""Damage to files between two runs: it is named, and never taken for a result."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mrkd_ray.cells import intact
from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import Damaged
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.grid.run import CellsFailed, run
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.report.grid_results import read_results
from mrkd_ray.results.compare import compare, read_kinds
from mrkd_ray.results.gather import gather
from mrkd_ray.results.models import size
from mrkd_ray.training import checkpoints
from mrkd_ray.training.branch_task import BranchTask
from mrkd_ray.training.local_cohort import LocalCohort
from tests.conftest import FAST, make_cell

TWO = ("logmel64:vgg_small", "cqt:vgg_small")


def flip(path: Path) -> None:
    """Turn one bit in the middle of a file. Others may have a hard link to it: a new file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Lose the second half of a file."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def zeros(path: Path) -> None:
    """Lose what is in a file, as after a crash of the machine, and keep its size."""
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(bytes(size))


def pipe(path: Path) -> None:
    """Put a pipe in a file's place: whoever opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a bit": flip,
    "cut": cut,
    "zeros": zeros,
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "a pipe": pipe,
}


@pytest.fixture(scope="module")
def asked(clips: Path, cache: Path) -> dict[str, Any]:
    """Two branches alone and together, on one fold."""
    return {
        **FAST,
        "data": str(clips),
        "cache": cache,
        "cohorts": ["+".join(TWO)],
        "folds": [1],
        "name": "g",
        "runner": "local",
    }


@pytest.fixture(scope="module")
def whole(asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole")
    return run(parse(GridConfig, {**asked, "output": output}, "test")).folder


@pytest.fixture
def results(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(whole, tmp_path / "results" / "g")
    return tmp_path / "results" / "g"


def resume(asked: dict[str, Any], folder: Path) -> str:
    """Run again with --resume; returns what is printed."""
    console = Console(file=io.StringIO(), width=1000)
    run(parse(GridConfig, {**asked, "output": folder.parent}, "test"), resume=True, console=console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def taught(folder: Path) -> Path:
    """The cell of the cohort."""
    return next((folder / "cells").glob("distilled_*"))


def files(cell: Path) -> list[str]:
    """The files of a finished cell."""
    return sorted(str(p.relative_to(cell)) for p in cell.rglob("*") if p.is_file())


def assert_same_results(folder: Path, whole: Path) -> None:
    """The same predictions and weights in every cell, to the bit."""
    for cell in (whole / "cells").iterdir():
        for name in files(cell):
            if name.endswith(("predictions.csv", "predicted.npy", ".safetensors")):
                again = folder / "cells" / cell.name / name
                assert again.read_bytes() == (cell / name).read_bytes(), name


@pytest.mark.parametrize("more", [False, True])
def test_an_ensemble_of_other_branches_than_were_written_is_not_loaded(
    more: bool, whole: Path, tmp_path: Path
) -> None:
    for number, written in enumerate((taught(whole), whole / "best")):
        model = tmp_path / str(number)
        shutil.copytree(written, model)
        assert Classifier.load(model).branches
        branch = next((model / "branches").iterdir())
        branch.rename(model / "moved")
        for place in ("one", "two") if more else ():
            shutil.copytree(model / "moved", model / "branches" / place)
        with pytest.raises(UserError, match=r"not the ensemble|no model there"):
            Classifier.load(model)


def test_folders_of_two_cells_that_were_swapped_are_found(
    asked: dict[str, Any], results: Path, whole: Path
) -> None:
    one, other = sorted((results / "cells").glob("independent_*"))
    place = one.rename(results / "place")
    other.rename(one)
    place.rename(other)
    with pytest.raises(Damaged, match="another cell's"):
        compare(results)
    printed = resume(asked, results)
    assert printed.count("result.json: damaged: it is of cohort") == 2
    assert_same_results(results, whole)


# Finished cells ----------------------------------------------------------------------------------


def test_every_file_of_a_cell_is_in_its_manifest(whole: Path) -> None:
    cell = taught(whole)
    assert set(manifest.read(cell) or ()) == {*files(cell)} - {manifest.NAME}
    for branch in (cell / "branches").iterdir():
        assert set(manifest.read(branch) or ()) == {*files(branch)} - {manifest.NAME}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_any_file_of_a_cell_is_found_and_named(
    damage: str, whole: Path, tmp_path: Path
) -> None:
    cell = taught(whole)
    for name in files(cell):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(cell, copy)
        DAMAGE[damage](copy / name)
        if (name, damage) == (manifest.NAME, "gone"):
            intact.check(copy)  # as a cell of an earlier version, which has none
            continue
        if (name, damage) == ("result.json", "gone"):
            assert intact.result_of(copy) is None  # not finished
            continue
        with pytest.raises(Damaged, match="damaged") as error:
            intact.check(copy)
        assert name in str(error.value)


@pytest.mark.parametrize(
    "name", ["result.json", "history.csv", "predictions.csv", "branches", manifest.NAME]
)
def test_a_damaged_cell_is_set_aside_and_trained_again(
    name: str, asked: dict[str, Any], results: Path, whole: Path
) -> None:
    cell = taught(results)
    if name == "branches":
        shutil.rmtree(cell / "branches" / "cqt-vgg_small")
    else:
        flip(cell / name)
    printed = resume(asked, results)
    assert f"{cell}/{name}" in printed
    assert "damaged" in printed
    assert (results / "damaged" / cell.name).is_dir()
    assert_same_results(results, whole)
    assert "warning" not in resume(asked, results)


def test_a_damaged_cell_is_not_taken_over(asked: dict[str, Any], results: Path) -> None:
    cell = taught(results)
    flip(cell / "branches" / "cqt-vgg_small" / "model.safetensors")
    printed = resume({**asked, "name": "other"}, results)
    assert "2 of 3 cells are finished" in printed
    assert f"{cell}/branches/cqt-vgg_small/model.safetensors: damaged" in printed


def test_a_neighbour_that_says_half_of_what_it_was_made_with_stops_no_run(
    asked: dict[str, Any], results: Path
) -> None:
    cut(results / "environment.json")
    printed = resume({**asked, "name": "other", "cohorts": [TWO[0]]}, results)
    assert "taken over" not in printed
    # And its own run goes on, and knows that it does not know.
    resume(asked, results)
    assert not grid_folder.same_versions(results)


def test_what_is_damaged_while_cells_run_is_a_cell_that_failed(
    asked: dict[str, Any], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = taught(results)

    def with_damage(*arguments: Any, **keywords: Any) -> list[tuple[str, str]]:
        flip(cell / "predictions.csv")
        return []

    monkeypatch.setattr("mrkd_ray.grid.run.run_cells", with_damage)
    with pytest.raises(CellsFailed, match=r"1 of 3 cells .*\n.*predictions\.csv: damaged"):
        resume(asked, results)


def test_one_cell_that_fails_does_not_end_the_others(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run_cell

    def failing(cell: Cell, *arguments: Any, **keywords: Any) -> Any:
        if cell.names == ("logmel64-vgg_small",):
            raise OSError("")
        return real(cell, *arguments, **keywords)

    monkeypatch.setattr("mrkd_ray.grid.run.run_cell", failing)
    config = parse(GridConfig, {**asked, "output": tmp_path}, "test")
    with pytest.raises(CellsFailed, match=r"1 of 3 cells did not finish.*\n.*OSError"):
        run(config, console=Console(quiet=True))
    assert len(list(tmp_path.glob("g/cells/*/result.json"))) == 2


# Tables and reports ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["results.csv", "table.csv", "environment.json", "grid.yaml"])
@pytest.mark.parametrize("damage", ["cut", "zeros", "gone", "empty", "a pipe"])
def test_a_report_of_damaged_files_is_refused(name: str, damage: str, results: Path) -> None:
    DAMAGE[damage](results / name)
    with pytest.raises(UserError, match=rf"{name}|not finished a cohort"):
        read_results(results)


@pytest.mark.parametrize("name", intact.FILES)
def test_a_report_of_damaged_cells_is_refused(name: str, results: Path) -> None:
    flip(taught(results) / name)
    with pytest.raises(UserError, match=rf"{name}: damaged.*--resume"):
        read_results(results)


def test_models_of_a_damaged_table_are_not_compared(results: Path) -> None:
    text = (results / "results.csv").read_text()
    (results / "results.csv").write_text(text.replace("0.", "0.9", 1))
    with pytest.raises(UserError, match=r"results\.csv: damaged.*--resume"):
        read_kinds(results)


def test_a_damaged_cell_is_in_no_table(
    asked: dict[str, Any], results: Path, prepared: Prepared
) -> None:
    flip(taught(results) / "predictions.csv")
    found = gather(results, "g", [])
    assert len(found.tidy) == 0


def test_best_json_is_not_believed(results: Path) -> None:
    path = results / "best" / "best.json"
    kinds = read_kinds(results)
    from mrkd_ray.results import best

    before = best.current(results, kinds)
    text = path.read_text()
    path.write_text(text.replace('"accuracy": 0', '"accuracy": 7'))
    assert best.current(results, kinds) == before


# Models ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "trained_on.txt", "calibration.safetensors"]
)
def test_a_damaged_model_is_not_loaded(name: str, damage: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(taught(whole) / "branches" / "cqt-vgg_small", folder)
    Classifier.load(folder)
    DAMAGE[damage](folder / name)
    no_file = name == "config.json" and damage in ("gone", "a pipe")
    with pytest.raises(UserError, match="no model there" if no_file else f"{name}: damaged"):
        Classifier.load(folder)


# Cells under way ---------------------------------------------------------------------------------

CYCLES = 4
CELL = make_cell(*TWO, cycles=CYCLES, early_stop=None)


@pytest.fixture(scope="module")
def tasks(prepared: Prepared) -> list[BranchTask]:
    return branch_tasks(CELL, prepared)


def train(tasks: list[BranchTask], folder: Path, cycles: int = CYCLES + 1) -> None:
    """Run a cell until it has so many cycles more, or has ended."""
    steps = run_cell(CELL, tasks, LocalCohort(tasks, folder), folder)
    for _, _ in zip(range(cycles), steps, strict=False):
        pass


@pytest.fixture(scope="module")
def undisturbed(tasks: list[BranchTask], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(tasks, folder)
    return folder


@pytest.fixture(scope="module")
def begun(tasks: list[BranchTask], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell of which three of four cycles are done."""
    folder = tmp_path_factory.mktemp("begun")
    train(tasks, folder, 3)
    return folder


@pytest.fixture
def cell(begun: Path, tmp_path: Path) -> Path:
    shutil.copytree(begun, tmp_path / "cell")
    return tmp_path / "cell"


def bits(folder: Path) -> dict[str, bytes]:
    names = ["predictions.csv", "predicted.npy"]
    names += [f"branches/{name}/model.safetensors" for name in CELL.names]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_not_gone_on_from(damage: str, cell: Path, tmp_path: Path) -> None:
    root = cell / "checkpoint"
    last = checkpoints.latest(root)
    assert last is not None
    assert checkpoints.cycle_of(last) == 3
    for name in files(last):
        if (name, damage) == (manifest.NAME, "gone"):
            continue  # as one of an earlier version, which has none
        copy = tmp_path / "copy"
        shutil.copytree(root, copy)
        DAMAGE[damage](copy / last.name / name)
        (found,) = checkpoints.discard_damaged(copy)
        assert "damaged" in found
        assert str(copy / last.name / name) in found
        before = checkpoints.latest(copy)
        assert before is not None
        assert checkpoints.cycle_of(before) == 2
        assert checkpoints.discard_damaged(copy) == []
        shutil.rmtree(copy)


def test_from_the_checkpoint_before_it_ends_in_the_same_bits(
    cell: Path, tasks: list[BranchTask], undisturbed: Path
) -> None:
    last = checkpoints.latest(cell / "checkpoint")
    assert last is not None
    flip(last / "cqt-vgg_small.safetensors")
    train(tasks, cell)
    assert bits(cell) == bits(undisturbed)
    assert len((cell / "history.csv").read_text().splitlines()) == 1 + 2 * CYCLES


def test_without_a_whole_checkpoint_it_begins_anew(
    cell: Path, tasks: list[BranchTask], undisturbed: Path
) -> None:
    for folder in (cell / "checkpoint").glob("cycle-*"):
        flip(folder / "cqt-vgg_small.safetensors")
    text = (cell / "history.csv").read_text()
    (cell / "history.csv").write_text(text.replace("\n0,", "\n7,"))
    train(tasks, cell)
    assert bits(cell) == bits(undisturbed)
    assert len((cell / "history.csv").read_text().splitlines()) == 1 + 2 * CYCLES


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", checkpoints.HISTORY)
def test_a_damaged_history_of_a_cell_under_way_is_written_again(
    name: str, damage: str, cell: Path, tasks: list[BranchTask], begun: Path
) -> None:
    DAMAGE[damage](cell / name)
    train(tasks, cell, 1)
    before, after = ((x / "history.csv").read_text().splitlines() for x in (begun, cell))
    assert len(after) == 1 + 2 * CYCLES
    assert after[: len(before) - 2] == before[:-2]  # the last cycle's seconds may be lost


def test_the_resumed_grid_says_where_it_goes_on(cell: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grid"
    shutil.copytree(cell, folder / "cells" / CELL.key)
    last = checkpoints.latest(folder / "cells" / CELL.key / "checkpoint")
    assert last is not None
    zeros(last / "rows.json")
    (line,) = grid_folder.set_aside([CELL], folder)
    assert line.startswith(f"{last / 'rows.json'}: damaged")
    assert line.endswith("goes on from its checkpoint after cycle 2")
    assert list(grid_folder.set_aside([CELL], folder)) == []


def test_the_size_of_a_model_that_is_no_file_is_not_waited_for(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(taught(whole) / "branches" / "cqt-vgg_small", folder)
    assert size([folder]) is not None
    pipe(folder / "model.safetensors")
    assert size([folder]) is None
