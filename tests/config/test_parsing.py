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
