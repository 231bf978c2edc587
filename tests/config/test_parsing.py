"""Values from files and the command line: what is wrong with them is said in one error."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse, read_yaml
from mrkd_ray.config.schema import GridConfig, TrainConfig


def test_all_errors_come_at_once() -> None:
    values = {"cohorts": [["cqt:vgg_small"]], "cycles": 0, "lr": "fast", "divergence": "up"}
    with pytest.raises(UserError) as caught:
        parse(GridConfig, values, "some/grid.yaml")
    first, *lines = str(caught.value).splitlines()
    assert "3 problem(s)" in first
    assert [line.split(":")[0].strip() for line in lines] == ["cycles", "lr", "divergence"]


def test_a_missing_field_is_named() -> None:
    with pytest.raises(UserError, match=r"grid\.yaml.*\n  cohorts: Field required$"):
        parse(GridConfig, {}, "grid.yaml")
    with pytest.raises(UserError, match="branches: Field required"):
        parse(TrainConfig, {}, "command line")


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
