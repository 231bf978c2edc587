"""What a grid file's run is called, and where its data comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.grid_files import read_grid
from tests.conftest import ROOT

GRIDS = ROOT / "experiments" / "grids"
DEMO = GRIDS / "demo.yaml"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("my_clips", "my_clips"),
        ("../some/clips.v2/", "clips.v2"),
        ("data/esc50#esc10", "esc10"),
        ("lists/My birds.csv", "My_birds"),
        ("_.-", "demo"),  # nothing to call a folder
        ("synthetic", "demo"),
    ],
)
def test_the_demonstration_on_other_data_is_called_after_it(data: str, name: str) -> None:
    grid = read_grid(DEMO, {"data": data})
    assert (grid.data, grid.name) == (data, name)


def test_a_name_that_is_asked_for_stays() -> None:
    assert read_grid(DEMO, {}).name == "demo"
    assert read_grid(DEMO, {"data": "my_clips", "name": "mine"}).name == "mine"
    assert read_grid(GRIDS / "table6.yaml", {"data": "elsewhere/fsdkaggle2018"}).name == "table6"


def test_a_scaled_grid_takes_the_data_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("cohorts: ['logmel64:resnet101']\n")
    with pytest.raises(UserError, match=r"data: missing.* --data my_clips"):
        read_grid(file, {}, "cpu")
    grid = read_grid(file, {"data": "my_clips"}, "cpu")
    assert (grid.data, grid.name) == ("my_clips", "mine-cpu")


@pytest.mark.parametrize("file", sorted(GRIDS.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_grid_of_the_experiments_has_data_or_asks_for_it(file: Path) -> None:
    text = file.read_text()
    if "\ndata: " in text:
        assert read_grid(file, {}).data.startswith("data/") or file == DEMO
    else:
        assert "--data FOLDER" in text  # how its first lines say that it is run
        with pytest.raises(UserError, match="data: missing"):
            read_grid(file, {})
