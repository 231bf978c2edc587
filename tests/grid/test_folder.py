"""Where a grid writes, and which cells it takes over from other grids instead of training them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.intact import result_of
from mrkd_ray.common import environment, manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import write_json
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.grid import run as grid
from tests.conftest import FAST, make_cell

FIRST, SECOND = "logmel64:vgg_small", "cqt:vgg_small"


def config(**fields: object) -> GridConfig:
    return parse(GridConfig, {"data": "x", "cohorts": [f"{FIRST}+{SECOND}"], **fields}, "test")


def test_a_taken_name_gets_a_number_and_resume_finds_the_cells(tmp_path: Path) -> None:
    asked = config(name="g", output=tmp_path)
    cell = make_cell(FIRST)

    def folder(resume: bool) -> str:
        return grid_folder.choose(asked.output, asked.name, [cell], resume).name

    assert folder(resume=False) == folder(resume=True) == "g"
    for name in ("g", "g-2", "g-10", "g-other", "gg-99", "g-2024"):
        (tmp_path / name).mkdir()
    assert folder(resume=False) == folder(resume=True) == "g-11"
    (tmp_path / "g-2" / "cells" / cell.key).mkdir(parents=True)
    (tmp_path / "g-10" / "cells" / "of_another_grid").mkdir(parents=True)
    assert folder(resume=True) == "g-2"
    assert folder(resume=False) == "g-11"


def test_two_runs_cannot_write_to_one_folder(tmp_path: Path) -> None:
    with (
        grid_folder.locked(tmp_path),
        pytest.raises(UserError, match="another run"),
        grid_folder.locked(tmp_path),
    ):
        pass


@pytest.fixture
def one(tmp_path: Path) -> tuple[Cell, Path]:
    """A finished cell of the grid `one`."""
    cell = make_cell(FIRST)
    write_json(tmp_path / "one" / grid_folder.ENVIRONMENT, environment.describe())
    folder = tmp_path / "one" / "cells" / cell.key
    (folder / "branches").mkdir(parents=True)
    (folder / "branches" / "model.safetensors").write_text("weights")
    (folder / "checkpoint").mkdir()  # of a run that was killed right after its result
    write_result(folder)
    return cell, folder


RESULT = {"dataset": "clips", "epochs": 2, "clips": 3, "seconds": 1.0, "models": []}


def write_result(folder: Path) -> None:
    """Finish a cell: its result, and the sums of all that is there."""
    write_json(folder / "result.json", RESULT)
    manifest.write(folder, without=("checkpoint",))


def found(cell: Cell, output: Path, name: str, resume: bool = False) -> Path | None:
    asked = config(name=name, output=output)
    folder = grid_folder.choose(asked.output, asked.name, [cell], resume)
    return grid_folder.finished([cell], folder, asked.name).get(cell.key)


def test_cells_of_other_grids_count_and_own_ones_when_resumed(
    one: tuple[Cell, Path], tmp_path: Path
) -> None:
    cell, folder = one
    assert found(cell, tmp_path, "two") == folder
    assert found(cell, tmp_path / "elsewhere", "two") is None
    assert found(make_cell(SECOND), tmp_path, "two") is None
    assert found(cell, tmp_path, "one") is None
    (tmp_path / "one-2").mkdir()
    assert found(cell, tmp_path, "one") is None
    assert found(cell, tmp_path, "one", resume=True) == folder
    (folder / "result.json").unlink()
    assert found(cell, tmp_path, "two") is None


def test_a_cell_is_linked_whole_with_what_it_was_made_in(
    one: tuple[Cell, Path], tmp_path: Path
) -> None:
    cell, folder = one
    target = tmp_path / "two" / "cells" / cell.key
    (target / "checkpoint").mkdir(parents=True)  # begun before the other grid finished it
    assert grid_folder.take_over({cell.key: folder}, tmp_path / "two") == {tmp_path / "one": 1}
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert files == {
        "SHA256SUMS",
        "result.json",
        "environment.json",
        "branches/model.safetensors",
    }
    assert (target / "result.json").samefile(folder / "result.json")
    assert not (target / "checkpoint").exists()
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["cells"]
    assert grid_folder.take_over({cell.key: target}, tmp_path / "two") == {}


def test_files_are_copied_where_they_cannot_be_linked(
    one: tuple[Cell, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    cell, folder = one
    grid_folder.take_over({cell.key: folder}, tmp_path / "two")
    copied = tmp_path / "two" / "cells" / cell.key / "branches" / "model.safetensors"
    assert copied.read_text() == "weights"
    assert not copied.samefile(folder / "branches" / "model.safetensors")


def test_a_cell_that_is_half_copied_is_none(
    one: tuple[Cell, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, folder = one
    two = tmp_path / "two"

    def die(temporary: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(grid_folder, "_replace", die)
        with pytest.raises(KeyboardInterrupt):
            grid_folder.take_over({cell.key: folder}, two)
    assert result_of(two / "cells" / cell.key) is None
    grid_folder.take_over({cell.key: folder}, two)  # what is left of it is in nobody's way
    assert result_of(two / "cells" / cell.key) == RESULT


def test_a_cell_of_another_version_or_one_taken_over_itself_is_not_taken_over(
    one: tuple[Cell, Path], tmp_path: Path
) -> None:
    cell, folder = one
    grid_folder.take_over({cell.key: folder}, tmp_path / "two")
    write_json(tmp_path / "two" / grid_folder.ENVIRONMENT, environment.describe())
    assert found(cell, tmp_path, "one") is None  # would get its own cell back
    assert found(cell, tmp_path, "two", resume=True) == tmp_path / "two" / "cells" / cell.key
    made_in = environment.describe()
    made_in["packages"]["torch"] = "1.0"
    write_json(tmp_path / "one" / grid_folder.ENVIRONMENT, made_in)
    assert found(cell, tmp_path, "three") is None
    grid_folder.write_request(tmp_path / "one", config(), [], [])  # resumed with this version
    assert found(cell, tmp_path, "three") is None
    written = json.loads((tmp_path / "one" / grid_folder.ENVIRONMENT).read_text())
    torch = environment.versions(["torch"])["torch"]
    assert written["packages"]["torch"] == f"1.0, {torch}"
    assert environment.joined(written, environment.describe())["packages"] == written["packages"]


def test_a_grid_whose_cells_are_taken_over_has_the_same_table(
    clips: Path, cache: Path, tmp_path: Path
) -> None:
    common = {
        "data": str(clips),
        "cache": cache,
        "output": tmp_path,
        "runner": "local",
        **FAST,
        "cycles": 1,
        "folds": [1],
    }
    trained = grid.run(config(name="one", **common), console=Console(quiet=True))
    said = io.StringIO()
    pairings = [f"{FIRST}+{SECOND}", f"{FIRST}+{FIRST}"]
    wider = config(name="two", cohorts=pairings, **common)
    taken = grid.run(wider, console=Console(file=said, width=200))
    assert f"3 of 5 cells are finished in {tmp_path / 'one'}: taken over" in said.getvalue()
    same = taken.table[taken.table["cohort"] == f"{FIRST}+{SECOND}"]
    pd.testing.assert_frame_equal(same, trained.table)
    shared = taken.tidy[taken.tidy["cell"].isin(trained.tidy["cell"]) & (taken.tidy["cell"] != "")]
    expected = trained.tidy[trained.tidy["cell"] != ""].assign(grid="two")
    pd.testing.assert_frame_equal(shared.reset_index(drop=True), expected.reset_index(drop=True))


def test_cells_that_an_earlier_version_named_otherwise_are_found_and_renamed(
    tmp_path: Path,
) -> None:
    """Their key hashed what was asked for: here a learning rate that is the default's."""
    plain = make_cell("logmel64:vgg_small", lr=None)
    cell = replace(plain, asked=plain.training.model_copy(update={"lr": 0.05}))
    assert cell.former_key != cell.key == plain.key
    folder = tmp_path / "g"
    before = folder / "cells" / cell.former_key
    before.mkdir(parents=True)
    write_result(before)
    assert grid_folder.choose(tmp_path, "g", [cell], resume=True) == folder
    assert grid_folder.finished([cell], folder, "g") == {cell.key: before}
    assert grid_folder.rename_former([cell, cell], folder) == 1
    after = folder / "cells" / cell.key
    assert result_of(after) == RESULT
    assert grid_folder.finished([cell], folder, "g") == {cell.key: after}
    assert grid_folder.rename_former([cell], folder) == 0
    before.mkdir()  # both are there: what is finished under today's name stays
    assert grid_folder.rename_former([cell], folder) == 0
    assert result_of(after) == RESULT


def test_what_a_killed_process_was_writing_is_removed_by_the_next_run(
    one: tuple[Cell, Path], tmp_path: Path
) -> None:
    _, cell = one
    folder = tmp_path / "one"
    before = sorted(folder.rglob("*"))
    (folder / ".two.tmp").mkdir()
    (cell / ".a1b2.tmp").write_text("half")
    (cell / "branches" / "x").mkdir()
    (cell / "branches" / "x" / ".a1b2.tmp").write_text("half")
    with grid_folder.locked(folder):
        left = set(folder.rglob("*")) - set(before)
    assert {path.name for path in left} <= {".lock", "x"}
