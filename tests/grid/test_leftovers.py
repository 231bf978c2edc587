"""What `mrkd clean` finds and removes, and what it never touches."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from mrkd_ray.distributed import sessions
from mrkd_ray.grid.leftovers import Leftover, find, remove

DAYS_AGO = time.time() - 40 * 86400


@pytest.fixture
def root() -> Iterator[Path]:
    """A cache, results and Ray's folder: short, since a socket's path is."""
    folder = Path(tempfile.mkdtemp(prefix="mrkd")).resolve()
    for store in ("cqt-0a1b", "logmel64-2c3d"):
        for name in ("meta.json", "index.jsonl", "frames.f32"):
            write(folder / "cache/features/mine-1234" / store / name, 100)
    write(folder / "cache/scans/mine-1234.json", 7)
    write(folder / "cache/synthetic-1/meta.csv", 5)
    write(folder / "cache/.plan-old/x", 5)
    write(folder / "cache/my_notes/meta.json", 5)
    cells = folder / "results/a/cells"
    write(cells / "begun/checkpoint/cycle-000012/a.safetensors", 50)
    write(cells / "begun/history.csv", 3)
    (cells / "done").mkdir()
    result = {"dataset": "clips", "epochs": 2, "clips": 3, "seconds": 1.0, "models": []}
    (cells / "done/result.json").write_text(json.dumps(result))
    write(cells / "done/branches/a/model.safetensors", 9)
    write(cells / "done/checkpoint/cycle-000001/a.safetensors", 9)
    (folder / "results/a/.lock").touch()
    for session in ("session_1", "session_2"):
        write(folder / "ray" / session / "logs/raylet.out", 20)
    sessions.mark(folder / "ray/session_1")
    for path in folder.rglob("*"):
        os.utime(path, (DAYS_AGO, DAYS_AGO))
    yield folder
    shutil.rmtree(folder)


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def found(root: Path) -> dict[str, Leftover]:
    listed = find(root / "cache", root / "results", root / "ray")
    return {str(each.path.relative_to(root)): each for each in listed}


def test_all_that_is_made_again_is_found_with_its_size_and_its_last_use(root: Path) -> None:
    index = root / "cache/features/mine-1234/cqt-0a1b/index.jsonl"
    before = sorted(root.rglob("*"))
    os.utime(index, (time.time() - 86400, DAYS_AGO))  # read yesterday
    listed = found(root)
    assert {path: (each.kind, each.size) for path, each in listed.items()} == {
        "cache/features/mine-1234/cqt-0a1b": ("cache", 300),
        "cache/features/mine-1234/logmel64-2c3d": ("cache", 300),
        "cache/scans/mine-1234.json": ("cache", 7),
        "cache/synthetic-1": ("cache", 5),
        "cache/.plan-old": ("cache", 5),
        "results/a/cells/begun/checkpoint": ("checkpoints", 50),
        "ray/session_1": ("ray", 20),
    }
    days = {path: round(each.unused_days) for path, each in listed.items()}
    assert days.pop("cache/features/mine-1234/cqt-0a1b") == 1
    assert set(days.values()) == {40}
    assert listed["results/a/cells/begun/checkpoint"].note == "12 cycles"
    assert sorted(root.rglob("*")) == before
    assert find(root / "no", root / "no", root / "no") == []


def test_a_plan_that_may_be_running_is_not_found(root: Path) -> None:
    write(root / "cache/.plan-new/x", 5)
    assert "cache/.plan-new" not in found(root)


def test_what_is_asked_for_is_removed_and_nothing_else(root: Path) -> None:
    asked = found(root)["results/a/cells/begun/checkpoint"]
    expected = {path for path in root.rglob("*") if asked.path not in (path, *path.parents)}
    assert remove([asked], root / "results") == {}
    assert set(root.rglob("*")) == expected
    assert remove(list(found(root).values()), root / "results") == {}
    assert found(root) == {}
    assert (root / "results/a/cells/done/branches/a/model.safetensors").exists()
    assert (root / "results/a/cells/begun/history.csv").exists()
    assert (root / "cache/my_notes/meta.json").exists()
    assert (root / "ray/session_2/logs/raylet.out").exists()


def test_while_a_run_writes_its_checkpoints_and_the_cache_stay(root: Path) -> None:
    listed = list(found(root).values())
    with FileLock(root / "results/a/.lock"):
        left = remove(listed, root / "results")
    assert set(left) == {each.path for each in listed if each.kind != "ray"}
    assert "a run is writing in" in left[root / "cache/synthetic-1"]
    assert all(path.exists() for path in left)
    assert not (root / "ray/session_1").exists()


def test_features_that_are_being_computed_stay(root: Path) -> None:
    with FileLock(root / "cache/features/mine-1234/lock"):
        left = remove(list(found(root).values()), root / "results")
    assert {path.name for path in left} == {"cqt-0a1b", "logmel64-2c3d"}


def test_a_session_in_which_ray_runs_stays(root: Path) -> None:
    (root / "ray/session_1/sockets").mkdir()
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(root / "ray/session_1/sockets/raylet"))
        raylet.listen()
        listed = [found(root)["ray/session_1"]]
        assert remove(listed, root / "results") == {listed[0].path: "Ray is running there"}
    assert remove(listed, root / "results") == {}  # its socket is left, and nobody listens


def test_nothing_behind_a_link_is_found_or_removed(root: Path) -> None:
    other = root / "elsewhere"
    (root / "cache/features").rename(other)
    (root / "cache/features").symlink_to(other)
    (root / "cache/synthetic-1/more").symlink_to(other)
    (root / "ray/session_3").symlink_to(root / "ray/session_1")
    (root / "cache/scans/linked.json").symlink_to(other / "mine-1234/cqt-0a1b/meta.json")
    listed = found(root)
    assert not any("features" in path or "linked" in path for path in listed)
    assert "ray/session_3" not in listed
    assert listed["cache/synthetic-1"].size < 300  # the link's own
    remove(list(listed.values()), root / "results")
    assert len(list(other.rglob("frames.f32"))) == 2


def test_a_cache_that_is_a_link_itself_is_the_users_choice(root: Path) -> None:
    (root / "cache").rename(root / "large_disk")
    (root / "cache").symlink_to(root / "large_disk")
    assert "cache/features/mine-1234/cqt-0a1b" in found(root)
