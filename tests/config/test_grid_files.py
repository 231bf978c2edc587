"""What a grid file's run is called, where its data comes from, what its conclusion is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        assert read_grid(file, {}).data.startswith("data/") or file in (DEMO, GRIDS / "small.yaml")
    else:
        assert "--data FOLDER" in text  # how its first lines say that it is run
        with pytest.raises(UserError, match="data: missing"):
            read_grid(file, {})


SAYS = "Wrong labels: taught branches are better. Right ones: they are not."


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "g.yaml"
    path.write_text(f"cohorts: ['logmel64:resnet_small']\ndata: synthetic\nconclusion: '{SAYS}'\n")
    return path


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"seeds": "1..10"},
        {"output": "elsewhere", "cache": "there", "runner": "local", "name": "again"},
    ],
)
def test_a_conclusion_stays_where_the_same_is_trained(file: Path, values: dict[str, Any]) -> None:
    assert read_grid(file, values).conclusion == SAYS


@pytest.mark.parametrize(
    "values",
    [
        *({"data": "my_clips"}, {"folds": "all"}, {"unlabelled": "recordings"}),
        *({"label_noise": "0"}, {"cycles": "3"}, {"cohorts": ["cqt:vgg_small"]}),
        {"temperatures": "2", "output": "elsewhere"},
    ],
)
def test_other_data_or_another_method_have_none(file: Path, values: dict[str, Any]) -> None:
    assert read_grid(file, values).conclusion is None


def test_other_networks_have_none(file: Path) -> None:
    assert read_grid(file, {}, "cpu").conclusion is None


def test_the_demo_says_when_distillation_helps_and_when_not() -> None:
    grid = read_grid(DEMO, {})
    assert grid.conclusion is not None
    assert grid.conclusion.count(". ") == 1  # two sentences
    assert f"{100 * grid.label_noise:g} %" in grid.conclusion
    assert read_grid(DEMO, {"data": "my_clips"}).conclusion is None
