"""Results in an object store: a real S3 server on the loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import FileSystem

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import mirror as mirror_module
from mrkd_ray.grid import run as grid
from mrkd_ray.grid.mirror import Mirror
from tests.conftest import FAST
from tests.distributed.test_ray_cohort import same_files


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URI of an empty bucket."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patched.setenv(name, "test")
        patched.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server.start()
        host, port = server.get_host_and_port()
        patched.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        FileSystem.from_uri("s3://mrkd?allow_bucket_creation=true")[0].create_dir("mrkd")
        yield "s3://mrkd/results"
        server.stop()


def cell_in(folder: Path, *names: str) -> Path:
    cell = folder / "grid" / "cells" / "c"
    for name in (*names, "checkpoint/cycle-000001/rows.json", ".hidden"):
        (cell / name).parent.mkdir(parents=True, exist_ok=True)
        (cell / name).write_text(name)
    return cell


def test_a_cell_that_was_copied_in_part_is_not_there(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("SHA256SUMS", "branches/a/model.safetensors", "history.csv", "result.json", "zz.csv")
    cell = cell_in(tmp_path / "one", *names)
    mirror = Mirror(f"{bucket}/part", tmp_path / "one")
    real, left = mirror_module._put, [4]

    def broken(system: Any, source: Path, place: str) -> None:
        if not left[0]:
            raise OSError("the line is cut")
        left[0] -= 1
        real(system, source, place)

    monkeypatch.setattr(mirror_module, "_put", broken)
    with pytest.raises(
        UserError, match=r"cannot be written \(OSError: the line is cut\).*--resume"
    ):
        mirror.send(tmp_path / "one" / "grid")
    there = Mirror(f"{bucket}/part", tmp_path / "two")
    there.fetch("grid")
    assert not list((tmp_path / "two").rglob("*.csv"))  # of a cell all or nothing
    left[0] = 99
    mirror.send(tmp_path / "one" / "grid")
    there.fetch("grid")
    copied = tmp_path / "two/grid/cells/c"
    found = {str(path.relative_to(copied)) for path in copied.rglob("*") if path.is_file()}
    assert found == set(names)
    left[0] = 0
    mirror.send(tmp_path / "one" / "grid")  # all of the cell is there: nothing is copied again
    (tmp_path / "one" / "grid" / "table.csv").write_text("1")
    with pytest.raises(UserError, match="the line is cut"):
        mirror.send(tmp_path / "one" / "grid")
    there.fetch("gri")
    assert not (tmp_path / "two" / "grid" / "table.csv").exists()
    (cell / "SHA256SUMS").write_text("of the cell trained anew")
    left[0] = 3
    with pytest.raises(UserError, match="the line is cut"):
        mirror.send(cell)
    another = Mirror(f"{bucket}/part", tmp_path / "three")
    another.fetch("grid")
    assert not list((tmp_path / "three").rglob("*.csv"))  # half of it is new: it is not finished


def test_a_store_that_cannot_be_reached_is_one_sentence(bucket: str, tmp_path: Path) -> None:
    cell_in(tmp_path, "result.json")
    with pytest.raises(UserError, match=r"^--output s3://nowhere/x: cannot be written"):
        Mirror("s3://nowhere/x", tmp_path).send(tmp_path)
    with pytest.raises(UserError, match=r"--output gopher://x: .*gopher"):
        Mirror("gopher://x", tmp_path).fetch("grid")
    with pytest.raises(UserError, match=r"give the folder itself"):
        Mirror(f"file://{tmp_path}", tmp_path).fetch("grid")


def test_a_run_goes_on_from_the_store_on_another_machine(
    bucket: str, clips: Path, cache: Path, tmp_path: Path
) -> None:
    values = {**FAST, "data": str(clips), "cohorts": ["cqt:vgg_small"], "independent": False}
    values |= {"runner": "local", "name": "s", "cycles": 1, "folds": [1]}

    def run(machine: str, *, resume: bool = False, **more: Any) -> Path:
        own = tmp_path / machine
        own.mkdir(exist_ok=True)
        asked = {**values, "output": f"{bucket}/runs", "cache": own, **more}
        return grid.run(parse(GridConfig, asked, "test"), resume=resume).folder

    first = run("first")
    second = run("second", resume=True, seeds=[0, 1])
    one, two = sorted((second / "cells").iterdir())
    (done,) = (first / "cells").iterdir()
    assert first != second
    assert one.name == done.name
    same_files(done, one, ("cqt-vgg_small",))
    before = json.loads((done / "result.json").read_text())
    assert before == json.loads((one / "result.json").read_text())  # its seconds too: not trained
    third = tmp_path / "third"
    Mirror(f"{bucket}/runs", third).fetch("s")
    whole = sorted(p.relative_to(third) for p in third.rglob("*") if p.is_file())
    assert {p.parts[2] for p in whole if "cells" in p.parts} == {one.name, two.name}
    assert (third / "s" / "table.csv").read_bytes() == (second / "table.csv").read_bytes()
    assert run("fourth").name == "s-2"  # a name that is taken there gets a number
