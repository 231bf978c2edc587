"""A part of a run is killed in a phase that chance chooses: the end is the same, to the bit.

`MRKD_CHAOS=50 python -m pytest tests/distributed/test_chaos.py` plays so many rounds: each of the
seven parts in each of the seven phases, and one again.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest

from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import run as grid
from tests.conftest import FAST, TOO_SLOW
from tests.distributed.test_ray_cohort import same_files
from tests.distributed.test_tune_trials import MRKD, NAMES, PAIRING, only_cell, users_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROUNDS = int(os.environ.get("MRKD_CHAOS", "2"))
CYCLES = 6
PATIENCE = 900  # s
PARTS = {
    "branch": "ray::Branch",
    "aggregator": "ray::Aggregator",
    "coordinator": "ray::Coordinator",
    "raylet": "raylet/raylet",
    "gcs": "gcs_server",
    "driver": "",
    "node": "",
}
TAKEN_UP_AGAIN = ("branch", "aggregator", "coordinator", "node")
PHASES = {  # what the title of a process of Ray says meanwhile
    "training": ".train",
    "soft labels": ".soft_labels",
    "average": ".average",
    "distillation": ".distil",
    "evaluation": ".end_cycle",
    "checkpoint": "",
    "result": "",
}


def plan() -> list[tuple[str, str]]:
    """Every part in every phase, in an order that looks like chance and is always the same."""
    found = list(product(PARTS, PHASES))
    random.Random(0).shuffle(found)
    return [found[i % len(found)] for i in range(ROUNDS)]


@pytest.fixture(scope="module")
def values(clips: Path, cache: Path) -> dict[str, Any]:
    """A grid of one cell."""
    fields = {"data": str(clips), "cohorts": [PAIRING], "folds": [1], "independent": False}
    return {**FAST, **fields, "cycles": CYCLES, "cache": str(cache)}


@pytest.fixture(scope="module")
def undisturbed(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cell of the same grid, run without Ray and without a break."""
    output = tmp_path_factory.mktemp("undisturbed")
    return only_cell(
        grid.run(parse(GridConfig, {**values, "runner": "local", "output": output}, "t")).folder
    )


class TwoNodes:
    """A cluster of two nodes, which a run joins: `two_nodes`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        if not (line := self._line()):
            pytest.skip(TOO_SLOW)
        said = json.loads(line)
        self.address: str = said["address"]
        self.raylets: list[int] = said["raylets"]
        self.pid = process.pid

    def held(self) -> list[str]:
        """Actors that live, and placement groups that are held."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: list[str] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


@contextmanager
def two_nodes(folder: str) -> Iterator[TwoNodes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.distributed.two_nodes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_TMPDIR": folder},
        cwd=Path(__file__).parents[2],
    )
    try:
        yield TwoNodes(process)
    finally:
        process.communicate(timeout=60)  # it ends with its input


def below(roots: list[int]) -> dict[int, str]:
    """The processes below some, these included, with their titles."""
    found = {}
    for root in roots:
        with suppress(psutil.Error):
            process = psutil.Process(root)
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    found[each.pid] = (each.cmdline() or [""])[0]
    return found


def titles(pids: list[int]) -> list[str]:
    found = []
    for pid in pids:
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_text())
    return found


def cycle_of(cell: Path) -> int:
    """How many cycles the cell has done."""
    done = (int(p.name.removeprefix("cycle-")) for p in cell.glob("checkpoint/cycle-*"))
    return max(done, default=0)


def written(cell: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(cell.glob("checkpoint/.cycle-*/*"))


def in_phase(phase: str, cell: Path, pids: list[int]) -> bool:
    if phase == "result":
        return (cell / "branches").exists()
    if phase == "checkpoint":
        return written(cell)
    if phase == "evaluation" and written(cell):
        return False
    return any(PHASES[phase] in title for title in titles(pids))


def kill(part: str, roots: list[int], driver: int, cluster: TwoNodes | None) -> bool:
    """Kill a part of the run; False where it is not there (any more)."""
    if part == "driver":
        found = [driver]
    elif part == "node":
        assert cluster
        trees = [below([raylet]) for raylet in cluster.raylets]
        busy = [tree for tree in trees if any(PARTS["branch"] in t for t in tree.values())]
        found = list(busy[0]) if busy else []
    else:
        found = [pid for pid, title in below(roots).items() if PARTS[part] in title][:1]
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def shared_memory() -> set[Path]:
    return set(Path("/dev/shm").iterdir())


def mapped() -> str:
    """What all processes of this machine map or have open below /dev/shm."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            found.append(Path(f"/proc/{process.pid}/maps").read_text())
            found += [open_file.path for open_file in process.open_files()]
    return "\n".join(found)


def wait_until(is_empty: Callable[[], object], told: str) -> None:
    """What other processes give back a moment after the end."""
    deadline = time.monotonic() + 60
    while left := is_empty():
        assert time.monotonic() < deadline, (told, left)
        time.sleep(0.5)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_whatever_is_killed_the_end_is_the_same(
    round_: int, values: dict[str, Any], undisturbed: Path, tmp_path: Path
) -> None:
    part, phase = plan()[round_]
    chance = random.Random(round_)
    cycle = chance.randrange(CYCLES - 1)
    joins = part == "node" or (part not in ("raylet", "gcs") and chance.random() < 0.4)
    told = f"round {round_}: {part}, {phase}, from cycle {cycle} on" + ", joined" * joins
    file, output = tmp_path / "small.yaml", tmp_path / "out"
    file.write_text(json.dumps(values))
    cell = output / "small" / "cells" / undisturbed.name
    before = shared_memory()
    # Where the tests run in a shell's background SIGINT is ignored, and a child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory(prefix="mrkd", ignore_cleanup_errors=True) as folder,
        two_nodes(folder) if joins else nullcontext() as cluster,
    ):
        own = {"RAY_TMPDIR": folder, "TMPDIR": folder}
        address = ["--address", cluster.address] if cluster else []

        def start(*more: str) -> subprocess.Popen[str]:
            command = [str(MRKD), "grid", str(file), "--output", str(output), "--no-dashboard"]
            return subprocess.Popen(
                [*command, *address, *more],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **own},
            )

        deadline = time.monotonic() + PATIENCE
        running = start()
        roots = [running.pid, *([cluster.pid] if cluster else [])]
        while running.poll() is None and not (cell / "checkpoint").exists():
            assert time.monotonic() < deadline, told
            time.sleep(0.05)
        workers = [pid for pid, title in below(roots).items() if title.startswith("ray::")]
        # A phase of so few clips may be over before it is seen: then at any moment.
        last = CYCLES + 1 if phase == "result" else min(cycle + 2, CYCLES - 1)
        seen = False
        while running.poll() is None and not seen and cycle_of(cell) < last:
            seen = (phase == "result" or cycle_of(cell) >= cycle) and in_phase(phase, cell, workers)
            assert time.monotonic() < deadline, told
            time.sleep(0.0005)  # phases of so few clips are short
        done = cycle_of(cell)
        hit = running.poll() is None and kill(part, roots, running.pid, cluster)
        when = f"hit in cycle {done}{'' if seen else ', phase not seen'}"
        print(told, when if hit else "missed", flush=True)
        err = running.communicate(timeout=PATIENCE)[1]
        if running.returncode == 2 and "did not start within" in err:
            pytest.skip(TOO_SLOW)
        assert "Traceback" not in err, (told, err)
        if part == "gcs" and running.returncode == 2:
            assert err.strip().splitlines()[-1].startswith("error: Ray's control service"), err
        if part in TAKEN_UP_AGAIN and hit and phase != "result" and done <= CYCLES - 3:
            assert "lost a process or its node; it goes on" in err, (told, err)
        resumed = 0
        while running.returncode and resumed < 3:
            print(f"  exit code {running.returncode}: {err.strip().splitlines()[-1:]}", flush=True)
            running = start("--resume")
            err = running.communicate(timeout=PATIENCE)[1]
            assert "Traceback" not in err, (told, err)
            resumed += 1
        assert running.returncode == 0, (told, err)
        same_files(undisturbed, cell, NAMES)
        if cluster:
            wait_until(cluster.held, told)
        else:
            psutil.wait_procs(users_of(folder), timeout=60)
            assert users_of(folder) == [], told
        assert [p.name for p in Path(folder).iterdir() if p.name != "ray"] == [], told
    wait_until(lambda: users_of(folder), told)
    hidden = [p.name for p in output.rglob("*") if re.search(r"\.tmp$|^\.", p.name)]
    assert hidden == [".lock"], told  # it lies there for the next run
    assert not (cell / "checkpoint").exists(), told
    wait_until(
        lambda: [p for p in shared_memory() - before if p.exists() and str(p) not in mapped()], told
    )
