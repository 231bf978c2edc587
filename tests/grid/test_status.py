"""How far a run is: cells that are finished, running, stopped and waiting."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import Damaged
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.grid import status
from mrkd_ray.training.local_cohort import LocalCohort
from tests.conftest import FAST, make_cell

FIRST, SECOND = "logmel64:vgg_small", "cqt:vgg_small"


def run(cell: Cell, prepared: Prepared, folder: Path, cycles: int) -> None:
    """Run some of a cell's cycles; all, and what follows, where there are fewer."""
    tasks = branch_tasks(cell, prepared)
    own = folder / "cells" / cell.key
    steps = run_cell(cell, tasks, LocalCohort(tasks, own), own)
    for _ in range(cycles):
        if next(steps, None) is None:
            break


@pytest.fixture
def folder(prepared: Prepared, tmp_path: Path) -> Path:
    """A finished cell, one after a cycle of two, and one that waits."""
    cells = [make_cell(FIRST, seed=seed, **FAST) for seed in range(3)]
    config = parse(GridConfig, {"data": "x", "cohorts": [FIRST]}, "test")
    grid_folder.write_request(tmp_path, config, [], cells)
    run(cells[0], prepared, tmp_path, 9)
    run(cells[1], prepared, tmp_path, 1)
    return tmp_path


def test_cells_that_are_finished_running_and_waiting(folder: Path) -> None:
    with grid_folder.locked(folder):
        found = status.read(folder)
    assert found.running
    assert [cell.state for cell in found.cells] == ["finished", "running", "waiting"]
    assert [(cell.cycles_done, cell.cycles) for cell in found.cells] == [(2, 2), (1, 2), (0, 2)]
    first, second, third = found.cells
    assert first.figures.startswith("accuracy ")
    assert "loss" in second.figures
    assert (third.figures, third.idle) == ("", None)
    each = (first.seconds + second.seconds) / 3
    assert found.seconds_left == pytest.approx(3 * each)
    for width in (40, 60, 80, 100):
        out = io.StringIO()
        status.show(found, Console(file=out, width=width))
        sentence, *table = out.getvalue().splitlines()
        assert "is running. Cells: 1 finished, 1 running, 1 waiting; about " in sentence
        assert max(map(len, table)) <= width
        running = next(line for line in table if "1/2" in line)
        assert second.figures.split()[1] in running  # its score, whole
        assert ("running" in running) == (width >= 80)
    assert json.loads(json.dumps(status.as_json(found)))["cells"][1]["cycles_done"] == 1


def test_a_run_that_has_ended_has_stopped_cells(folder: Path) -> None:
    found = status.read(folder)
    assert not found.running
    assert [cell.state for cell in found.cells] == ["finished", "stopped", "waiting"]
    assert found.seconds_left is None
    with grid_folder.locked(folder):
        pass  # reading it holds no lock


@pytest.mark.parametrize(
    "cells",
    [
        {"a": 5},
        {"a": {"title": "x", "cycles": "y"}},
        {"../../a": {"title": "x", "cycles": 1}},
        {"a\x1b[2J": {"title": "x", "cycles": 1}},
    ],
)
def test_a_list_of_cells_that_is_another_is_damaged(tmp_path: Path, cells: object) -> None:
    (tmp_path / grid_folder.CELLS).write_text(json.dumps(cells))
    with pytest.raises(Damaged, match=r"cells\.json: damaged: .* is no cell"):
        status.read(tmp_path)


def test_another_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no cells\.json there"):
        status.read(tmp_path)
