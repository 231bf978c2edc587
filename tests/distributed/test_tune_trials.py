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
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import run as grid
from mrkd_ray.method import algorithm
from mrkd_ray.training import checkpoints
from mrkd_ray.training.local_cohort import LocalCohort
from tests.conftest import FAST, TOO_SLOW, make_cell
from tests.distributed.test_ray_cohort import same_files

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PAIRING = "logmel64:resnet_small+cqt:vgg_small"
NAMES = ("logmel64-resnet_small", "cqt-vgg_small")
MRKD = Path(sys.executable).with_name("mrkd")
PATIENCE = 1500  # s; each process imports torch, slowly where the machine is busy
LONG = {**FAST, "cycles": 12}

Start = Callable[..., "subprocess.Popen[str]"]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Watch a condition that another process brings about, as long as that process lives."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended early: {end_of(process)}"
        assert time.monotonic() < deadline, f"waited for {PATIENCE} s"
        time.sleep(0.02)


def end_of(process: subprocess.Popen[str]) -> str:
    """Wait until a process ends, and return its stderr; skip where Ray gave it no time to start."""
    _, err = process.communicate(timeout=PATIENCE)
    if process.returncode == 2 and "did not start within" in err:
        pytest.skip(TOO_SLOW)
    return err


@pytest.fixture(scope="module")
def grid_file(tmp_path_factory: pytest.TempPathFactory, clips: Path, cache: Path) -> Path:
    path = tmp_path_factory.mktemp("grid") / "small.yaml"
    path.write_text(
        json.dumps(
            {
                **LONG,
                "data": str(clips),
                "cache": str(cache),
                "folds": [1],
                "cohorts": [PAIRING],
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


@pytest.fixture(scope="module")
def undisturbed(grid_file: Path) -> Path:
    """The cell of the same grid, run without Ray and without a break."""
    values = json.loads(grid_file.read_text())
    config = parse(
        GridConfig,
        {**values, "runner": "local", "output": grid_file.parent / "undisturbed"},
        "test",
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
    err = end_of(resumed)
    assert resumed.returncode == 0, err
    same_files(undisturbed, cell, NAMES)
    after = (cell / "history.csv").read_text().splitlines()
    assert after[: len(before) - 2] == before[: len(before) - 2]  # went on, did not begin again
    assert len(after) == 1 + 2 * LONG["cycles"]
    assert not (cell / "checkpoint").exists()


def named_actors(before: set[str]) -> list[tuple[str, str]]:
    """Class and name of the actors that there were not before, as Ray's dashboard shows them."""
    from ray._private.state import actors

    new = [actor for key, actor in actors().items() if key not in before]
    return sorted((actor["ActorClassName"], actor["Name"]) for actor in new)


def branch_actors() -> dict[str, dict[str, Any]]:
    """The branch actors that the session's cluster has ever had, by id.

    The public `ray.util.state` asks the dashboard, which the tests' cluster is without.
    """
    from ray._private.state import actors

    return {
        name: actor for name, actor in actors().items() if actor["ActorClassName"] == "BranchActor"
    }


def test_a_killed_branch_actor_is_recovered_from_the_last_cycle(
    ray_cluster: str, start: Start, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    running = start("--address", ray_cluster, "--output", str(output))
    wait_for(checkpointed(output, 2), running)
    alive = [actor for actor in branch_actors().values() if actor["State"] == "ALIVE"]
    os.kill(alive[0]["Pid"], signal.SIGKILL)
    cell = only_cell(output / "small")
    assert not (cell / "result.json").exists()
    err = end_of(running)
    assert running.returncode == 0, err
    same_files(undisturbed, cell, NAMES)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_process_and_keeps_finished_cells(
    start: Start, tmp_path: Path, sent: signal.Signals
) -> None:
    output = tmp_path / "out"
    with tempfile.TemporaryDirectory(prefix="mrkd") as ray_folder:
        running = start("--output", str(output), "--independent", RAY_TMPDIR=ray_folder)
        done = output / "small" / "cells"
        wait_for(lambda: any(done.glob("independent_*/result.json")), running)
        if sent == signal.SIGINT:
            os.killpg(running.pid, sent)  # a terminal sends it to the whole group
        else:
            running.send_signal(sent)  # a scheduler to the command alone
        err = end_of(running)
        assert running.returncode == 130, err
        assert "Traceback" not in err
        assert "--resume" in err
        psutil.wait_procs(users_of(ray_folder), timeout=PATIENCE)
        assert users_of(ray_folder) == []
    finished = sorted(path.parent.name for path in done.glob("*/result.json"))
    assert finished
    # Where it goes on without Ray, this test has no second cluster to start.
    again = start("--output", str(output), "--independent", "--resume", "--runner", "local")
    times = {name: (done / name / "result.json").stat().st_mtime_ns for name in finished}
    err = end_of(again)
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
        *("--cohort", PAIRING, "--cohort", "logmel64:resnet_small+logmel64:vgg_small"),
    )
    first = start(*options)
    err = end_of(first)
    assert first.returncode == 0, err
    names = sorted(path.name for path in (output / "small" / "cells").iterdir())
    alone = [name for name in names if name.startswith("independent_")]
    assert len(alone) == 3  # logmel64:resnet_small is in both pairings
    assert len(names) - len(alone) == 4  # 2 pairings x 2 temperatures
    results = {path: path.stat().st_mtime_ns for path in output.glob("small/cells/*/result.json")}
    assert len(results) == 7
    second = start(*options, "--resume")
    err = end_of(second)
    assert second.returncode == 0, err
    assert {path: path.stat().st_mtime_ns for path in results} == results
    assert [path.name for path in output.iterdir()] == ["small"]


def test_cells_of_the_same_branches_share_processes(
    ray_cluster: str, start: Start, tmp_path: Path
) -> None:
    from ray._private.state import actors

    all_before, before = set(actors()), set(branch_actors())
    output = tmp_path / "out"
    running = start(
        *("--address", ray_cluster, "--output", str(output)),
        *("--temperatures", "1,2,4", "--cycles", "1"),
    )
    err = end_of(running)
    assert running.returncode == 0, err
    assert len(list(output.glob("small/cells/*/result.json"))) == 3
    started = len(set(branch_actors()) - before)
    assert 2 <= started <= 4  # of 6: two cells at once on the cluster's 4 CPUs
    shown = named_actors(all_before)
    kinds = {"AggregatorActor", "BranchActor", "Coordinator", "FilesActor"}
    assert {kind for kind, _ in shown} == kinds
    cohorts: dict[str, set[str]] = {}
    for kind, name in shown:
        if kind not in ("Coordinator", "FilesActor"):  # which have no name
            own, cohort = name.split(", ")
            cohorts.setdefault(cohort, set()).add(own)
    assert len(cohorts) == started // 2
    assert all(own == {*NAMES, "aggregator"} for own in cohorts.values())


def test_actors_are_replaced_where_the_next_cell_has_other_branches(
    prepared: Prepared, ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray import tune

    from mrkd_ray.distributed.tune_trials import Job, Trial

    # All CPUs of the cluster, so that the second cell's actors wait until the first's are gone.
    group = ray.util.placement_group([{"CPU": 2}] * 2)
    ray.get(group.ready())
    monkeypatch.setattr(ray.util, "get_current_placement_group", lambda: group)
    todo = [
        replace(make_cell(*branches), cpus=2)
        for branches in (PAIRING.split("+"), ("cqt:vgg_small", "logmel64:vgg_small"))
    ]
    trial = tune.with_parameters(
        Trial,
        prepared=prepared,
        folder=tmp_path,
        profile=False,
        run="test",
        retries=0,
    )({"job": Job(todo[0], 0.0)})
    used = []
    try:
        for cell in todo:
            trial.reset_config({"job": Job(cell, 0.0)})
            while not trial.step().get("done"):
                pass
            used.append(trial._actors)
            fresh = tmp_path / "fresh" / cell.key
            tasks = branch_tasks(cell, prepared)
            list(run_cell(cell, tasks, LocalCohort(tasks, fresh), fresh))
            same_files(fresh, tmp_path / "cells" / cell.key, cell.names)
    finally:
        trial.cleanup()
        ray.util.remove_placement_group(group)
    assert [actors.specs for actors in used] == [cell.branches for cell in todo]
    for actor in (*used[0].branches, *used[0].aggregators):
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(actor.spans.remote())


def test_a_branch_that_diverges_with_a_cycle_ahead_leaves_the_last_checkpoint(
    prepared: Prepared, ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mrkd_ray.distributed import tune_trials

    for name in ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "TUNE_DISABLE_SIGINT_HANDLER"):
        monkeypatch.setenv(name, "1")  # what `run_cells` sets ends with the test
    monkeypatch.setattr(tune_trials, "MAX_FAILURES", 1)
    cell = make_cell(*PAIRING.split("+"), cycles=3, lr=1e30)
    folder = tmp_path / "cells" / cell.key
    mild = make_cell(*PAIRING.split("+"), cycles=3).training
    tasks = [replace(task, training=mild) for task in branch_tasks(cell, prepared)]
    next(algorithm.distilled(LocalCohort(tasks, folder), mild, 2.0))
    kept = checkpoints.latest(folder / "checkpoint")
    assert kept is not None
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    failed = tune_trials.run_cells(
        [cell],
        prepared,
        tmp_path,
        gpus={cell.key: 0.0},
        profile=False,
        on_cycle=lambda key, rows: None,
        on_end=lambda key: None,
    )
    assert "diverged in cycle 1" in failed[cell.key].strip().splitlines()[-1]
    assert checkpoints.latest(folder / "checkpoint") == kept
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    ahead = {path.name.split(".")[1] for path in kept.parent.glob(".cycle-*")}
    assert ahead == {"cycle-000002", "cycle-000003"}


def test_a_cell_that_can_never_fit_says_what_is_missing(
    ray_cluster: str, start: Start, tmp_path: Path
) -> None:
    refused = start(
        "--address", ray_cluster, "--output", str(tmp_path / "out"), "--gpus-per-branch", "1"
    )
    err = end_of(refused)
    assert refused.returncode == 2
    assert re.search(r"can never start.*1 GPU.*room for 0.*0 GPUs", err)
    assert "--gpus-per-branch" in err
    assert not (tmp_path / "out").exists()


def test_no_cluster_at_the_address(start: Start) -> None:
    refused = start("--address", "127.0.0.1:1")
    err = end_of(refused)
    assert refused.returncode == 2, err
    assert "no Ray cluster answers" in err
    assert "Traceback" not in err


def test_a_cluster_that_this_process_has_joined_is_used_and_left(
    ray_cluster: str,
    grid_file: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a notebook: `ray.init()`, then `train()`."""
    import ray

    for name in ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "TUNE_DISABLE_SIGINT_HANDLER"):
        monkeypatch.setenv(name, "1")  # what `run_cells` sets ends with the test
    values = json.loads(grid_file.read_text())
    found = grid.run(parse(GridConfig, {**values, "output": tmp_path / "out"}, "test"))
    same_files(undisturbed, only_cell(found.folder), NAMES)
    assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] == 4


def test_another_number_of_workers_changes_no_bit(
    start: Start, undisturbed: Path, tmp_path: Path
) -> None:
    """A cluster of this machine's size; `undisturbed` ran in one process, others on 4 CPUs."""
    with tempfile.TemporaryDirectory(prefix="mrkd") as ray_folder:
        process = start(
            *("--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")),
            RAY_TMPDIR=ray_folder,
        )
        err = end_of(process)
    assert process.returncode == 0, err
    same_files(undisturbed, only_cell(tmp_path / "out" / "small"), NAMES)
