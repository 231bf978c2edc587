"""What `experiments/studies/searched.py` prints of a search beside a grid."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.studies import searched
from tests.report.fakes import fake_grid

ONE, OTHER = "logmel64:resnet_small+cqt:vgg_small", "logmel64:resnet_small+mfcc:vgg_small"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A grid of four settings, and a search that stopped one sample and confirmed the other."""
    asked = {"folds": (1, 2, 3), "independent": False}
    grid = fake_grid(tmp_path / "grid", pairings=(ONE, OTHER), temperatures=(2, 4), **asked)
    search = fake_grid(tmp_path / "search", pairings=(OTHER,), temperatures=(4,), gain=0.3, **asked)
    for folder in (grid, search):
        asked_of_cells(folder)
    (stopped, *_) = grid.glob("cells/*_T2_fold1*")
    there = shutil.copytree(stopped, search / "cells" / "stopped")
    (there / "result.json").unlink()
    return grid, search


def asked_of_cells(folder: Path) -> None:
    """Write into each cell's result what a run writes there and a fake does not."""
    columns = ["cell", "condition", "cohort", "temperature", "fold", "seed"]
    rows = pd.read_csv(folder / "results.csv")[columns].drop_duplicates("cell")
    for row in rows.to_dict("records"):
        file = folder / "cells" / row["cell"] / "result.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | row))


def test_models_are_chosen_on_one_fold_and_compared_on_the_others(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["searched.py", *map(str, folders)])
    monkeypatch.setenv("COLUMNS", "160")
    grid, search = (searched.found(folder, 1) for folder in folders)
    assert grid.epochs == 12 * 2 * 3 * 2  # cells, branches, cycles, b + d
    assert search.epochs == 4 * 2 * 3 * 2  # the one that was stopped cost something too
    assert (search.finished, search.cells) == (3, 4)
    assert set(grid.models[grid.name]) == {(2, 0), (3, 0)}
    searched.main()
    printed = capsys.readouterr().out
    assert f"in {OTHER} at T = 4" in printed
    assert "The search had 0.33 of the grid's epochs." in printed
    assert "Folds 2, 3: 60 clips." in printed
    (row,) = [line for line in printed.splitlines() if "best branch" in line]
    assert "+" in row


def test_of_each_setting_there_is_one_cell_a_fold(folders: tuple[Path, Path]) -> None:
    _, search = folders
    (cell,) = search.glob("cells/*fold2*")
    shutil.copytree(cell, search / "cells" / "again")
    with pytest.raises(searched.UserError, match="several cells"):
        searched.found(search, 1)
