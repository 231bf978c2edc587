"""A grid file with options from the command line: what its conclusion is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mrkd_ray.config.grid_files import read_grid
from tests.conftest import ROOT

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
    demo = ROOT / "experiments" / "grids" / "demo.yaml"
    grid = read_grid(demo, {})
    assert grid.conclusion is not None
    assert grid.conclusion.count(". ") == 1  # two sentences
    assert f"{100 * grid.label_noise:g} %" in grid.conclusion
    assert read_grid(demo, {"data": "my_clips"}).conclusion is None
