"""Grids on a real cluster: shared baselines, resuming, killed drivers and actors, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import FAST
from test_cohort import same_files

from mrkd_ray import grid
from mrkd_ray.config import GridConfig, parse

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PAIRING = "logmel64:resnet_small+cqt:vgg_small"
NAMES = ("logmel64-resnet_small", "cqt-vgg_small")
MRKD = Path(sys.executable).with_name("mrkd")
LONG = {**FAST, "cycles": 12}

Start = Callable[..., "subprocess.Popen[str]"]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Watch a condition that another process brings about, as long as that process lives."""
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, f"ended early: {process.communicate()}"
        assert time.monotonic() < deadline, "waited for 300 s"
        time.sleep(0.02)


@pytest.fixture
def grid_file(tmp_path: Path, clips: Path, cache: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(
        json.dumps(
            {
                **LONG,
                "data": str(clips),
                "cache": str(cache),
                "folds": [1],
                "pairings": [PAIRING],
                "independent": False,
            }
        )
    )
    return path


@pytest.fixture
def start(grid_file: Path) -> Iterator[Start]:
    """Start `mrkd grid` as a user would, in a process group of its own; kill what is left."""
    started: list[subprocess.Popen[str]] = []
    # Where the tests run in a shell's background SIGINT is ignored, and a child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(*options: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(MRKD), "grid", str(grid_file), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def undisturbed(grid_file: Path, tmp_path: Path) -> Path:
    """The cell of the same grid, run without Ray and without a break."""
    values = json.loads(grid_file.read_text())
    config = parse(
        GridConfig, {**values, "runner": "local", "output": tmp_path / "undisturbed"}, "test"
    )
    return only_cell(grid.run(config).folder)


def only_cell(folder: Path, pattern: str = "*") -> Path:
    (cell,) = (folder / "cells").glob(pattern)
    return cell


def checkpointed(output: Path, cycle: int) -> Callable[[], bool]:
    """Whether a cell under `output` has finished that many cycles, and is not done."""
    return lambda: any(
        int(path.name.removeprefix("cycle-")) >= cycle
        for path in output.glob("*/cells/*/checkpoint/cycle-*")
    )


def test_a_killed_driver_loses_nothing(
    ray_cluster: str, start: Start, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    options = ("--address", ray_cluster, "--output", str(output))
    killed = start(*options)
    wait_for(checkpointed(output, 2), killed)
    killed.kill()
    killed.wait()
    cell = only_cell(output / "small")
    assert not (cell / "result.json").exists()
    before = (cell / "history.csv").read_text().splitlines()

    resumed = start(*options, "--resume")
    _, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    same_files(undisturbed, cell, NAMES)
    after = (cell / "history.csv").read_text().splitlines()
    assert after[: len(before) - 2] == before[: len(before) - 2]  # went on, did not begin again
    assert len(after) == 1 + 2 * LONG["cycles"]
    assert not (cell / "checkpoint").exists()


def test_a_killed_branch_actor_is_recovered_from_the_last_cycle(
    ray_cluster: str, start: Start, undisturbed: Path, tmp_path: Path
) -> None:
    from ray.util.state import list_actors

    output = tmp_path / "out"
    running = start("--address", ray_cluster, "--output", str(output))
    wait_for(checkpointed(output, 2), running)
    alive = list_actors(
        filters=[("state", "=", "ALIVE"), ("class_name", "=", "BranchActor")], detail=True
    )
    os.kill(alive[0].pid, signal.SIGKILL)
    cell = only_cell(output / "small")
    assert not (cell / "result.json").exists()
    _, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    same_files(undisturbed, cell, NAMES)


def test_ctrl_c_leaves_no_process_and_keeps_finished_cells(start: Start, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with tempfile.TemporaryDirectory(prefix="mrkd") as ray_folder:
        running = start("--output", str(output), "--independent", RAY_TMPDIR=ray_folder)
        done = output / "small" / "cells"
        wait_for(lambda: any(done.glob("independent_*/result.json")), running)
        os.killpg(running.pid, signal.SIGINT)  # a terminal sends it to the whole group
        _, err = running.communicate(timeout=120)
        assert running.returncode == 130, err
        assert "Traceback" not in err
        assert "--resume" in err
        psutil.wait_procs(users_of(ray_folder), timeout=60)
        assert users_of(ray_folder) == []
    finished = sorted(path.parent.name for path in done.glob("*/result.json"))
    assert finished
    again = start("--output", str(output), "--independent", "--resume")
    times = {name: (done / name / "result.json").stat().st_mtime_ns for name in finished}
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert times == {name: (done / name / "result.json").stat().st_mtime_ns for name in finished}
    assert len(list(done.glob("*/result.json"))) == 3


def users_of(folder: str) -> list[psutil.Process]:
    """Processes that belong to the Ray session below `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + process.environ().get("RAY_TMPDIR", "")
        except psutil.Error:
            continue
        if folder in text and process.pid != os.getpid():
            found.append(process)
    return found


def test_baselines_are_trained_once_and_a_second_run_repeats_nothing(
    ray_cluster: str, start: Start, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    options = (
        *("--address", ray_cluster, "--output", str(output), "--independent"),
        *("--temperatures", "1,4", "--cycles", "1"),
        *("--pairing", PAIRING, "--pairing", "logmel64:resnet_small+logmel64:vgg_small"),
    )
    first = start(*options)
    _, err = first.communicate(timeout=300)
    assert first.returncode == 0, err
    names = sorted(path.name for path in (output / "small" / "cells").iterdir())
    alone = [name for name in names if name.startswith("independent_")]
    assert len(alone) == 3  # logmel64:resnet_small is in both pairings
    assert len(names) - len(alone) == 4  # 2 pairings x 2 temperatures
    results = {path: path.stat().st_mtime_ns for path in output.glob("small/cells/*/result.json")}
    assert len(results) == 7
    second = start(*options, "--resume")
    _, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert {path: path.stat().st_mtime_ns for path in results} == results
    assert [path.name for path in output.iterdir()] == ["small"]


def test_cells_of_the_same_branches_share_processes(
    ray_cluster: str, start: Start, tmp_path: Path
) -> None:
    from ray.util.state import list_actors

    def ever_started() -> set[str]:
        actors = list_actors(filters=[("class_name", "=", "BranchActor")], limit=1000)
        return {actor.actor_id for actor in actors}

    before = ever_started()
    output = tmp_path / "out"
    running = start(
        *("--address", ray_cluster, "--output", str(output)),
        *("--temperatures", "1,2,4", "--cycles", "1"),
    )
    _, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert len(list(output.glob("small/cells/*/result.json"))) == 3
    assert len(ever_started() - before) == 4  # two cells at once on the cluster's 4 CPUs


def test_a_cell_that_can_never_fit_says_what_is_missing(
    ray_cluster: str, start: Start, tmp_path: Path
) -> None:
    refused = start(
        "--address", ray_cluster, "--output", str(tmp_path / "out"), "--gpus-per-branch", "1"
    )
    _, err = refused.communicate(timeout=300)
    assert refused.returncode == 2
    assert re.search(r"can never start.*1 GPU.*room for 0.*0 GPUs", err)
    assert "--gpus-per-branch" in err
    assert not (tmp_path / "out").exists()


def test_no_cluster_at_the_address(start: Start) -> None:
    refused = start("--address", "127.0.0.1:1")
    _, err = refused.communicate(timeout=120)
    assert refused.returncode == 2, err
    assert "no Ray cluster answers" in err
    assert "Traceback" not in err


def test_another_number_of_workers_changes_no_bit(
    start: Start, undisturbed: Path, tmp_path: Path
) -> None:
    """A cluster of this machine's size; `undisturbed` ran in one process, others on 4 CPUs."""
    with tempfile.TemporaryDirectory(prefix="mrkd") as ray_folder:
        process = start(
            *("--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")),
            RAY_TMPDIR=ray_folder,
        )
        _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    same_files(undisturbed, only_cell(tmp_path / "out" / "small"), NAMES)
