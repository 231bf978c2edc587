"""A disk that fills while a grid runs: other cells go on, and nothing that is finished is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mrkd_ray.common import files
from mrkd_ray.common.reading import read_rows
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid.run import CellsFailed, run
from mrkd_ray.report import page
from tests.conftest import FAST

ALONE = "independent_cqt-vgg_small"


def test_a_cell_that_has_no_room_fails_alone_and_is_named_until_it_is_finished(
    clips: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {**FAST, "cohorts": ["logmel64:vgg_small+cqt:vgg_small"]}
    fields |= {"data": str(clips), "cache": cache, "folds": (1,), "name": "g"}
    asked = parse(GridConfig, {**fields, "runner": "local", "output": tmp_path}, "test")
    sync = files.sync

    def full(path: Path) -> None:
        if ALONE in str(path) and "checkpoint" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(CellsFailed, match=r"1 of 3 cells .*\n.*: no space left on dev") as caught:
        run(asked, console=Console(quiet=True))
    folder = tmp_path / "g"
    assert len(list(folder.glob("cells/*/result.json"))) == 2
    assert not list(folder.rglob("*.tmp"))
    (row,) = read_rows(folder / "failed.csv", ("title", "error", "cell"))
    assert row["title"] == "alone: cqt:vgg_small, fold 1, seed 0"
    assert row["error"].endswith(
        "/cqt-vgg_small.safetensors: no space left on device. Free some space, or give a folder "
        "on another disk"
    )
    results = caught.value.results
    assert caught.value.of_the_machine
    assert results is not None
    assert [each.cell for each in results.failed] == [row["cell"]]
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    results.show(console)
    assert f"failed: {row['title']}: {folder}" in console.export_text()
    assert row["title"] in page.write(folder).read_text()

    monkeypatch.setattr(files, "sync", sync)
    assert run(asked, resume=True, console=Console(quiet=True)).failed == ()
    assert not (folder / "failed.csv").exists()
    assert "Cells that failed" not in page.write(folder).read_text()
