"""Results in an object store: a real S3 server on the loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import FileSystem

from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import mirror as mirror_module
from mrkd_ray.grid import run as grid
from mrkd_ray.grid.mirror import Mirror, Running
from mrkd_ray.grid.shown import Shown
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


def checkpoint_of(cell: Path, cycle: int) -> Path:
    """What a cell that runs has on its disk: `best` is that of the last checkpoint."""
    folder = cell / "checkpoint" / f"cycle-{cycle:06d}"
    (folder.parent / "best").mkdir(parents=True, exist_ok=True)
    for place in (folder, folder.parent / "best"):
        place.mkdir(exist_ok=True)
        (place / "a.safetensors").write_text(f"weights {cycle}")
        manifest.write(place)
    return folder


def test_of_a_running_cell_the_last_whole_checkpoint_is_there(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, cell = Mirror(f"{bucket}/running", tmp_path / "one"), tmp_path / "one/grid/cells/c"

    def there(name: str) -> dict[str, str]:
        Mirror(f"{bucket}/running", tmp_path / name).fetch("grid")
        folder = tmp_path / name / "grid/cells/c"
        assert not list(folder.glob(".*"))
        files = (p for p in folder.rglob("*") if p.is_file() and p.name != manifest.NAME)
        return {str(path.relative_to(folder)): path.read_text() for path in files}

    checkpoint_of(cell, 1)
    mirror.send_checkpoint(cell)
    first = {f"checkpoint/{n}/a.safetensors": "weights 1" for n in ("cycle-000001", "best")}
    assert there("two") == first
    last = checkpoint_of(cell, 2)
    real = mirror_module._put

    def broken(system: Any, source: Path, place: str) -> None:
        if source == last / manifest.NAME:
            raise OSError("the line is cut")
        real(system, source, place)

    monkeypatch.setattr(mirror_module, "_put", broken)
    told: list[str] = []
    monkeypatch.setattr(mirror_module, "EVERY", 0.0)
    running = Running(mirror, told.append)
    running.cycle(cell)
    assert len(told) == 1
    assert "the line is cut" in told[0]
    assert there("three") == first  # its files of the best cycle too
    monkeypatch.setattr(mirror_module, "_put", real)
    running.stop()
    second = {name.replace("01", "02"): "weights 2" for name in first}
    assert there("four") == second
    assert there("two") == second  # one that is behind is brought up to it
    system, root = mirror._system()
    assert mirror_module._names(system, f"{root}/grid/cells/c/checkpoint") == ["cycle-000002"]
    (cell / "result.json").write_text("{}")
    running.end(cell)
    assert there("five") == {"result.json": "{}"}
    assert mirror_module._names(system, f"{root}/grid/cells/c/checkpoint") == []


def test_a_cell_goes_on_from_its_checkpoint_on_another_machine(
    bucket: str, clips: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {**FAST, "data": str(clips), "cohorts": ["cqt:vgg_small"], "independent": False}
    values |= {"runner": "local", "name": "s", "cycles": 3, "folds": [1]}
    monkeypatch.setattr(mirror_module, "EVERY", 0.0)
    monkeypatch.setattr(mirror_module, "SHARE", float("inf"))
    cycles: list[int] = []
    real, dies_at = Shown.cycle, [2]

    class Died(BaseException):
        pass

    def cycle(self: Shown, key: str, rows: list[dict[str, Any]]) -> None:
        real(self, key, rows)
        cycles.append(rows[0]["cycle"])
        if cycles[-1] in dies_at:
            raise Died  # as a machine that is gone: nothing is copied any more

    monkeypatch.setattr(Shown, "cycle", cycle)

    def run(machine: str, output: str, *, resume: bool = False) -> Path:
        asked = {**values, "output": output, "cache": tmp_path / machine}
        return grid.run(parse(GridConfig, asked, "test"), resume=resume).folder

    with pytest.raises(Died):
        run("first", f"{bucket}/died")
    assert cycles == [0, 1, 2]
    dies_at.clear()
    cycles.clear()
    second = run("second", f"{bucket}/died", resume=True)
    assert cycles == [2]  # those before it were in the store
    undisturbed = run("third", str(tmp_path / "undisturbed"))
    (cell,), (like,) = ((folder / "cells").iterdir() for folder in (second, undisturbed))
    same_files(like, cell, ("cqt-vgg_small",))
