"""A part of a run is killed at a moment that a seed chooses: the end is the same, to the bit.

`MRKD_CHAOS=50 python -m pytest tests/distributed/test_chaos.py` plays so many rounds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import tempfile
import time
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
CYCLES = 8
PATIENCE = 900  # s
PARTS = {
    "branch": "ray::Branch",
    "aggregator": "ray::Aggregator",
    "coordinator": "ray::Coordinator",
    "raylet": "raylet/raylet",
    "gcs": "gcs_server",
    "driver": "",
}


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


def pid_of(part: str, driver: psutil.Process, chance: random.Random) -> int | None:
    """The process of a part of the run, one of several by chance; None where there is none."""
    if part == "driver":
        return driver.pid
    found = []
    for process in driver.children(recursive=True):
        try:
            if PARTS[part] in process.cmdline()[0]:
                found.append(process.pid)
        except (psutil.Error, IndexError):
            continue
    return chance.choice(sorted(found)) if found else None


def cycle_of(cell: Path) -> int:
    """How far the cell is; one more than its cycles while its result is written."""
    if (cell / "branches").exists():
        return CYCLES + 1
    done = (int(p.name.removeprefix("cycle-")) for p in cell.glob("checkpoint/cycle-*"))
    return max(done, default=0)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_whatever_is_killed_the_end_is_the_same(
    seed: int, values: dict[str, Any], undisturbed: Path, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    part = chance.choice(sorted(PARTS))
    cycle, later = chance.randrange(CYCLES + 2), chance.random()
    told = f"seed {seed}: {part}, {later:.2f} s after cycle {cycle}"
    print(told)
    file, output = tmp_path / "small.yaml", tmp_path / "out"
    file.write_text(json.dumps(values))
    cell = output / "small" / "cells" / undisturbed.name
    # Where the tests run in a shell's background SIGINT is ignored, and a child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="mrkd") as folder:
        own = {"RAY_TMPDIR": folder, "TMPDIR": folder}

        def start(*more: str) -> subprocess.Popen[str]:
            command = [str(MRKD), "grid", str(file), "--output", str(output), "--no-dashboard"]
            return subprocess.Popen(
                [*command, *more], stderr=subprocess.PIPE, text=True, env={**os.environ, **own}
            )

        deadline = time.monotonic() + PATIENCE
        running = start()
        driver = psutil.Process(running.pid)
        while running.poll() is None and cycle_of(cell) < cycle:
            assert time.monotonic() < deadline, told
            time.sleep(0.01)
        time.sleep(later)  # whatever is going on then
        victim = pid_of(part, driver, chance) if running.poll() is None else None
        if victim:
            os.kill(victim, signal.SIGKILL)
        err = running.communicate(timeout=PATIENCE)[1]
        if running.returncode == 2 and "did not start within" in err:
            pytest.skip(TOO_SLOW)
        assert "Traceback" not in err, (told, err)
        if part == "gcs" and running.returncode == 2:
            assert err.strip().splitlines()[-1].startswith("error: Ray's control service"), err
        if part in ("branch", "aggregator", "coordinator") and victim and cycle <= CYCLES - 2:
            assert "lost a process or its node; it goes on" in err, (told, err)
        resumed = 0
        while running.returncode and resumed < 3:
            running = start("--resume")
            err = running.communicate(timeout=PATIENCE)[1]
            resumed += 1
        assert running.returncode == 0, (told, err)
        same_files(undisturbed, cell, NAMES)
        psutil.wait_procs(users_of(folder), timeout=60)
        assert users_of(folder) == [], told
        assert not list(Path(folder).glob("mrkd-tune-*")), told
    assert not list(output.rglob("*.tmp")), told
    assert not (cell / "checkpoint").exists(), told
