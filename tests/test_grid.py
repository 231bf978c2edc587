"""Which cells a grid has, where it writes, and what it refuses before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mrkd_ray import grid
from mrkd_ray.cells import Prepared
from mrkd_ray.config import GridConfig, parse
from mrkd_ray.errors import UserError

FIRST, SECOND = "logmel64:resnet_small", "cqt:vgg_small"


def config(**fields: object) -> GridConfig:
    return parse(GridConfig, {"pairings": [f"{FIRST}+{SECOND}"], **fields}, "test")


def test_a_grid_is_pairings_x_temperatures_x_folds_x_seeds(prepared: Prepared) -> None:
    asked = config(
        pairings=[f"{FIRST}+{SECOND}", f"{FIRST}+{FIRST}"], temperatures="1,4", seeds="0..2"
    )
    made = grid.expand(asked, prepared)
    distilled = [cell for cell in made if cell.condition == "distilled"]
    assert len(distilled) == 2 * 2 * 2 * 3
    assert len({cell.key for cell in made}) == len(made)
    alone = [(c.cohort, c.fold, c.seed) for c in made if c.condition == "independent"]
    assert sorted(alone) == sorted(
        (branch, fold, seed) for branch in (FIRST, SECOND) for fold in (1, 2) for seed in (0, 1, 2)
    )
    assert not [c for c in grid.expand(config(independent=False), prepared) if not c.temperature]


def test_new_data_is_a_new_cell_and_another_pairing_in_the_grid_is_not(prepared: Prepared) -> None:
    keys = {cell.key for cell in grid.expand(config(), prepared)}
    wider = grid.expand(config(pairings=[f"{FIRST}+{SECOND}", SECOND]), prepared)
    assert keys < {cell.key for cell in wider}
    changed = grid.expand(config(), replace(prepared, content="other bytes"))
    assert not keys & {cell.key for cell in changed}


def test_a_taken_name_gets_a_number_and_resume_takes_the_newest(tmp_path: Path) -> None:
    asked = config(name="g", output=tmp_path)
    assert grid._folder(asked, resume=False) == tmp_path / "g"
    assert grid._folder(asked, resume=True) == tmp_path / "g"
    for name in ("g", "g-2", "g-10", "g-other", "gg-99"):
        (tmp_path / name).mkdir()
    assert grid._folder(asked, resume=False) == tmp_path / "g-11"
    assert grid._folder(asked, resume=True) == tmp_path / "g-10"


def test_names_are_checked_before_anything_else() -> None:
    with pytest.raises(UserError, match="'cqt'"):
        grid.run(config(pairings=["cqtt:vgg_small"], data="nowhere"), console=Console(quiet=True))
    with pytest.raises(UserError, match=r"unknown average 'median'.*leave_one_out"):
        grid.check_names(config(average="median"))
    with pytest.raises(UserError, match="held_out"):
        grid.check_names(config(average="weighted"))
    grid.check_names(config(average="weighted", held_out=0.1))
