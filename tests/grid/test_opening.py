"""What is checked before a grid runs, and that Ray is left alone where nothing is left to run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.progress import Display
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.grid import run as grid
from mrkd_ray.grid.network_checks import check_networks
from mrkd_ray.grid.workers import Start
from tests.conftest import FAST

COHORT = ["logmel64:vgg_small+cqt:vgg_small"]


def specs(*networks: str) -> list[BranchSpec]:
    return [BranchSpec(representation="logmel64", network=name) for name in networks]


@pytest.fixture
def asked(clips: Path, cache: Path, tmp_path: Path) -> dict[str, object]:
    small = {**FAST, "cohorts": COHORT, "folds": "1", "independent": False, "cycles": 2}
    where = {"data": str(clips), "cache": cache, "output": tmp_path}
    return {**small, **where, "runner": "local"}


def run(fields: dict[str, object], *, resume: bool = False) -> None:
    grid.run(parse(GridConfig, fields, "test"), resume=resume, console=Console(quiet=True))


def test_networks_are_checked_alike_in_this_process_and_in_one_of_its_own() -> None:
    wanted = specs("vgg_small", "resnet_small")
    found = check_networks(wanted, None, local=False)
    assert found == check_networks(wanted, None, local=True)
    assert found.networks["vgg_small"].digest == "none"


@pytest.mark.parametrize("local", [True, False])
def test_a_network_or_weights_that_cannot_be_had_are_refused(local: bool) -> None:
    with pytest.raises(UserError, match=r"vgg_smal'.*vgg_small"):
        check_networks(specs("vgg_small", "vgg_smal"), None, local=local)
    with pytest.raises(UserError, match=r"lost\.pth"):
        check_networks(specs("vgg_small"), "lost.pth", local=local)
    with pytest.raises(UserError, match="windows of 64 x 9 "):
        check_networks(specs("vgg_small"), None, [150, 9], local=local)


def test_a_finished_grid_is_resumed_without_ray(
    asked: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(asked)
    begun: list[str] = []

    def begin(self: Start) -> None:
        begun.append("")
        raise UserError("Ray would be started")

    monkeypatch.setattr(Start, "begin", begin)
    monkeypatch.delitem(sys.modules, "ray", raising=False)  # as where nobody has imported it
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run({**asked, "runner": "ray"}, resume=True)
    assert begun == []
    (cell,) = (tmp_path / "grid" / "cells").iterdir()
    for fields, resume in (
        ({}, False),  # a run of its own
        ({"temperatures": "1,2"}, True),  # more cells
        ({"address": "host:1"}, True),  # whose devices are others
    ):
        with pytest.raises(UserError, match="Ray would be started"):
            run({**asked, "runner": "ray", **fields}, resume=resume)
    assert not grid_folder.begun(tmp_path, "grid")
    (cell / "result.json").unlink()
    assert grid_folder.begun(tmp_path, "grid")
    assert not grid_folder.begun(tmp_path, "other")

    def opened(config: object, console: object, finished: object, *, resume: bool) -> None:
        begun.append(finished)  # type: ignore[arg-type]

    monkeypatch.setattr(grid, "open_grid", opened)
    with pytest.raises((TypeError, AttributeError)):
        run({**asked, "runner": "ray"}, resume=True)
    assert begun[-1] is None  # what was begun is known to be unfinished: Ray starts at once


@pytest.mark.parametrize(
    ("fields", "after", "message"),
    [
        ({"cycles": 3}, 2, "Stopped after cycle 2 of 3; nothing up to there is lost."),
        (
            {"cycles": 1, "temperatures": "1,2"},
            2,
            "Stopped with 1 of 2 cells finished; of the others every finished cycle is kept.",
        ),
    ],
)
def test_ctrl_c_says_how_far_a_run_had_come_and_that_is_true(
    asked: dict[str, object],
    fields: dict[str, object],
    after: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[tuple[str, int]] = []
    cycle = Display.cycle

    def interrupted(self: Display, key: str, title: str, done: int, *others: object) -> None:
        cycle(self, key, title, done, *others)  # type: ignore[arg-type]
        shown.append((key, done))
        if len(shown) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Display, "cycle", interrupted)
    with pytest.raises(grid.Stopped) as stopped:
        run({**asked, **fields})
    assert str(stopped.value) == message
    before = list(shown)
    run({**asked, **fields}, resume=True)
    assert set(shown[len(before) :]).isdisjoint(before)  # no finished cycle is run again
    assert all(
        json.loads(path.read_text())["cell"] for path in tmp_path.glob("grid/cells/*/result.json")
    )
