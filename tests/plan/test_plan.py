"""A plan beside the run that it is made for: all that can be counted is what it said."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse, to_yaml
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import run as grid
from mrkd_ray.grid.workers import Start
from mrkd_ray.plan.plan import KindPlan, Plan, make
from mrkd_ray.plan.show import show
from tests.conftest import FAST

FIRST, SECOND, THIRD = "logmel64:vgg_small", "cqt:vgg_small", "logmel64:resnet_small"
QUIET = Console(quiet=True)
MRKD = Path(sys.executable).with_name("mrkd")


def config(clips: Path, folder: Path, **fields: Any) -> GridConfig:
    values = {
        **FAST,
        "cycles": 5,
        "data": str(clips),
        "cache": folder / "cache",
        "output": folder / "results",
        "cohorts": [f"{FIRST}+{SECOND}"],
        "temperatures": "1,2",
        "folds": "1,2",
        "runner": "local",
    }
    return parse(GridConfig, values | fields, "test")


def size(*files: Path) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())


def counted_as(plan: Plan, folder: Path) -> None:
    """The files and the memory of the grid that ran are those of the plan."""
    (results,) = (folder / "results").iterdir()
    frames = list((folder / "cache").glob("features/*/*/frames.f32"))
    assert plan.features == plan.features_missing == size(*frames)
    cells = list((results / "cells").iterdir())
    assert plan.left == plan.distilled + plan.independent == len(cells)
    written = size(*(results / "cells").rglob("*"))
    assert plan.results == pytest.approx(written, rel=0.05)
    soft_labels = size(*(results / "cells").glob("*/soft_labels.npz"))
    assert plan.soft_labels == pytest.approx(soft_labels, rel=0.1)
    peaks = [
        int(row["peak_bytes"])
        for file in (results / "cells").glob("*/history.csv")
        for row in csv.DictReader(file.open())
    ]
    assert max(kind.memory for kind in plan.kinds) == pytest.approx(max(peaks), rel=0.2)


@pytest.mark.slow
def test_a_plan_counts_unlabelled_clips(clips: Path, sounds: Path, tmp_path: Path) -> None:
    asked = config(clips, tmp_path, unlabelled=sounds, labelled=0.5, temperatures="1", folds="1")
    plan = make(asked, console=QUIET)
    assert (plan.clips, plan.unlabelled, plan.left) == (24, 5, 3)
    grid.run(asked, console=QUIET)
    counted_as(plan, tmp_path)


@pytest.mark.slow
def test_a_plan_without_a_cluster(clips: Path, tmp_path: Path) -> None:
    variants = {"plain": {}, "strong": {"trust": True}, "longer": {"cycles": 8}}
    asked = config(clips, tmp_path, temperatures="1", variants=variants)
    plan = make(asked, console=QUIET)
    assert (plan.distilled, plan.independent, plan.compared) == (6, 8, 12)
    assert (plan.clips, plan.classes, plan.folds, plan.nodes) == (24, 3, 2, 0)
    assert {(kind.condition, kind.cohort): kind.cells for kind in plan.kinds} == {
        ("independent", FIRST): 4,
        ("independent", SECOND): 4,
        ("distilled", f"{FIRST}+{SECOND}"): 6,
    }
    assert [kind.variants for kind in plan.kinds] == [[], [], sorted(variants)]
    assert [kind.at_once for kind in plan.kinds] == [1, 1, 1]
    *alone, together = [kind.checkpoints for kind in plan.kinds]
    assert together > sum(alone)  # what is remembered of the teachers, of one variant
    parts = plan.startup_seconds + plan.features_seconds + plan.training_seconds
    assert plan.seconds == pytest.approx(parts)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path(path).parent for path in left} == {Path("cache/scans")}
    grid.run(asked, console=QUIET)
    counted_as(plan, tmp_path)


@pytest.mark.slow
def test_what_is_finished_or_computed_costs_nothing_more(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(clips, tmp_path, temperatures="1", folds="1")
    grid.run(asked, console=QUIET)

    def begin(self: Start) -> None:
        raise AssertionError("nothing is left to run, and Ray is started")

    with monkeypatch.context() as patched:
        patched.setattr(Start, "begin", begin)
        patched.delitem(sys.modules, "ray", raising=False)  # as where nobody has imported it
        patched.delenv("RAY_ADDRESS", raising=False)
        again = make(asked.model_copy(update={"runner": "ray"}), resume=True, console=QUIET)
    assert (again.left, again.results, again.features_missing, again.kinds) == (0, 0, 0, [])
    assert again.seconds == again.startup_seconds
    assert again.features > 0
    anew = make(asked, console=QUIET)  # the same name again: trained again
    assert (anew.left, anew.features_seconds) == (3, 0.0)
    other = make(
        config(clips, tmp_path, name="other", temperatures="1,3", folds="1"), console=QUIET
    )
    assert (other.left, other.distilled, other.independent) == (1, 2, 2)  # taken over from `grid`
    (kind,) = other.kinds
    assert (kind.condition, kind.cells) == ("distilled", 1)


@pytest.mark.slow
@pytest.mark.cluster
def test_a_plan_on_a_cluster(ray_cluster: str, clips: Path, tmp_path: Path) -> None:
    small = {"runner": "ray", "address": ray_cluster, "folds": "1", "cycles": 2}
    cohort = f"{THIRD}+{SECOND}+{FIRST}"
    file = tmp_path / "asked.yaml"
    file.write_text(to_yaml(config(clips, tmp_path, **small, cohorts=[cohort])))

    def mrkd(*command: str) -> str:
        """Called as by users: this process has joined the cluster already."""
        done = subprocess.run([str(MRKD), *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    values = json.loads(mrkd("plan", str(file), "--json"))
    plan = Plan(**values | {"kinds": [KindPlan(**kind) for kind in values["kinds"]]})
    assert (plan.cpus, plan.gpus, plan.nodes) == (4, 0, 1)
    assert (plan.distilled, plan.independent, plan.compared) == (2, 3, 6)
    assert {kind.cohort: kind.at_once for kind in plan.kinds} == {
        FIRST: 3,  # four places, but no more cells
        SECOND: 3,
        THIRD: 3,
        cohort: 1,  # three places each
    }
    assert not list((tmp_path / "cache").glob(".plan-*"))
    mrkd("grid", str(file))
    counted_as(plan, tmp_path)


def test_bad_input_is_refused_as_by_a_run(clips: Path, tmp_path: Path) -> None:
    for fields, word in (
        ({"cohorts": ["cqtt:vgg_small"]}, "'cqt'"),
        ({"cohorts": ["cqt:vgg_smal"]}, "vgg_small"),
        ({"data": str(tmp_path / "nowhere")}, "no such file"),
        ({"folds": "7"}, "folds"),
    ):
        asked = config(clips, tmp_path, **fields)
        for refused in (make, grid.run):
            with pytest.raises(UserError, match=word):
                refused(asked, console=QUIET)


def planned(**fields: Any) -> Plan:
    """A plan of four kinds with long names, all made up."""
    kind: dict[str, Any] = {
        "condition": "distilled",
        "cohort": "logmel128:resnet_small+logmel64:resnet_small",
        "variants": ["momentum", "paper"],
        "cells": 120,
        "at_once": 16,
        "gpus": 0.3333,
        "memory": 12_345_678_901,
        "window_memory": "resident",
        "checkpoints": 1,
        "seconds": 98765.0,
    }
    values: dict[str, Any] = {
        field.name: 123_456_789_012 for field in dataclasses.fields(Plan) if field.type != "str"
    }
    values |= {"grid": "table6-cpu", "data": "fsdkaggle2018", "kinds": [KindPlan(**kind)] * 2}
    return Plan(**values | {"warnings": []} | fields)


def test_the_text_fits_80_columns_and_warns(capsys: pytest.CaptureFixture[str]) -> None:
    show(planned(warnings=["results will need 3 GB, and 2 GB are free there"]), Console(width=80))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "warning: results will need 3 GB" in printed
    assert "1 d 3 h" in printed  # a cell
    assert "0.6666" in printed  # the GPUs of two branches
    assert "streamed" not in printed


def test_a_plan_is_json() -> None:
    assert json.loads(json.dumps(dataclasses.asdict(planned())))["kinds"][0]["cells"] == 120
