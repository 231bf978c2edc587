"""Values from files and the command line: what is wrong with them is said in one error."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import COMMAND_LINE, PYTHON, parse
from mrkd_ray.config.run import Data, Preparation
from mrkd_ray.config.schema import GridConfig, RecommendConfig, TrainConfig
from mrkd_ray.config.yaml_files import read_yaml


def test_all_errors_come_at_once() -> None:
    values = {
        "data": "x",
        "cohorts": [["cqt:vgg_small"]],
        "cycles": 0,
        "lr": "fast",
        "divergence": "up",
    }
    with pytest.raises(UserError) as caught:
        parse(GridConfig, values, "some/grid.yaml")
    first, *lines = str(caught.value).splitlines()
    assert "3 problem(s)" in first
    assert [line.split(":")[0].strip() for line in lines] == ["cycles", "lr", "divergence"]


@pytest.mark.parametrize(
    ("source", "data"),
    [
        (COMMAND_LINE, "--data my_clips"),
        (PYTHON, 'data="my_clips"'),
        ("mine.yaml", 'data: "my_clips" in the file, or --data my_clips'),
    ],
)
def test_a_missing_field_says_what_it_takes_with_an_example(source: str, data: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(TrainConfig, {}, source)
    _, recordings = str(caught.value).splitlines()
    assert recordings.startswith("  data: missing. Your labelled recordings: a folder with one")
    assert "To try without recordings: synthetic" in recordings
    assert recordings.endswith(f" Example: {data}")


def test_an_example_in_an_error_is_taken_as_it_stands() -> None:
    with pytest.raises(UserError) as caught:
        parse(GridConfig, {}, "grid.yaml")
    lines = str(caught.value).splitlines()[1:]
    examples = (line.partition("Example: ")[2].partition(" in the file")[0] for line in lines)
    asked = yaml.safe_load("\n".join(examples))
    assert parse(GridConfig, asked, "grid.yaml").data == "my_clips"


@pytest.mark.parametrize("model", [Data, Preparation, RecommendConfig, TrainConfig, GridConfig])
def test_data_is_asked_for_everywhere(model: type[BaseModel]) -> None:
    with pytest.raises(UserError, match="data: missing"):
        parse(model, {}, COMMAND_LINE)


def test_a_grid_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    with pytest.raises(UserError, match=r"missing\.yaml: cannot read .*No such file"):
        read_yaml(missing)
    broken = tmp_path / "broken.yaml"
    broken.write_text("cohorts: [a\n")
    with pytest.raises(UserError, match=r"broken\.yaml: not valid YAML"):
        read_yaml(broken)
    listed = tmp_path / "listed.yaml"
    listed.write_text(yaml.safe_dump([1, 2]))
    with pytest.raises(UserError, match=r"listed\.yaml: expected fields such as 'cohorts:'"):
        read_yaml(listed)


def test_names_are_what_is_written(tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    file.write_text("variants: {off: {}, 1: {}, null: {}, 1.5: {}}\nname: 2024-01-01\nseeds: 010\n")
    assert read_yaml(file) == {
        "variants": {"off": {}, "1": {}, "null": {}, "1.5": {}},
        "name": "2024-01-01",
        "seeds": "010",
    }
    file.write_text("paper: yes\ncycles: 10\nlr: 0.1\nfolds: [1, 2]\nweights: null\n")
    expected = {"paper": True, "cycles": 10, "lr": 0.1, "folds": [1, 2], "weights": None}
    assert read_yaml(file) == expected


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    file.write_text("variants:\n  a: {cycles: 1}\n  a: {cycles: 2}\n")
    with pytest.raises(UserError, match=r"g\.yaml: not valid YAML: line 3: a is there twice"):
        read_yaml(file)


def test_a_text_that_yaml_reads_as_something_else_says_so() -> None:
    with pytest.raises(UserError, match=r"name: .*\(got False\): YAML reads it so; write it in"):
        parse(GridConfig, {"cohorts": ["mfcc:vgg_small"], "name": False}, "g.yaml")
