"""`mrkd plan` beside what the grid then takes, on grids for CPUs."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.common import ROOT, Result, Row
from benchmarks.startup import MRKD

NAME = "plan"
OFF = 30  # %
GRIDS = {
    "the demo": ("demo.yaml",),
    "Table VI at `--scale cpu`, ESC-10's fold 1": ("table6.yaml", "--scale", "cpu", "--folds", "1"),
}


def run(quick: bool = False) -> Result:
    """Ask for a plan and run the grid, each in turn with a cache and results of its own."""
    rows, details = [], {}
    for what, (file, *options) in GRIDS.items():
        command = [str(ROOT / "experiments" / "grids" / file), *options]
        if quick or what != "the demo":
            command += ["--data", str(data.folder("esc10", quick))]
        if quick:
            command += ["--cycles", "2", "--temperatures", "2"]
        with tempfile.TemporaryDirectory() as folder:
            command += ["--cache", f"{folder}/cache", "--output", f"{folder}/results"]
            plan: dict[str, Any] = json.loads(_mrkd("plan", *command, "--json"))
            took = re.search(r"this run took (\d+) min (\d+) s", _mrkd("grid", *command))
            assert took, "the grid said nothing of its time"
            written = sum(
                path.stat().st_size
                for path in Path(folder).glob("results/*/cells/**/*")
                if path.is_file()
            )
        seconds = 60.0 * int(took[1]) + int(took[2])
        details[what] = {"plan": plan, "took": seconds, "written": written}
        rows += [
            Row(
                what=f"{what}: predicted beside taken",
                unit="s",
                ours=[plan["seconds"]],
                peer=[seconds],
                peer_is="the run",
            ),
            Row(
                what=f"{what}: how far the prediction is off",
                unit="%",
                ours=[100 * abs(plan["seconds"] / seconds - 1)],
                target=OFF,
                at_most=True,
                limits="Other programs on the machine, in the probe or in the run.",
            ),
            Row(
                what=f"{what}: results on disk, predicted beside written",
                unit="MB",
                ours=[plan["results"] / 1e6],
                peer=[written / 1e6],
                peer_is="the run",
            ),
            Row(what=f"{what}: the plan itself", unit="s", ours=[plan["plan_seconds"]]),
        ]
        if quick:
            break
    return Result(
        name=NAME,
        title="`mrkd plan` beside the run",
        how="`mrkd plan` trains each kind of cell for a moment on some of the clips. From that "
        "it predicts the time that `mrkd grid` will print. Then the grid runs. One plan and "
        "one run each, whole commands, without features in the cache.",
        rows=rows,
        details=details,
    )


def _mrkd(*command: str) -> str:
    done = subprocess.run([*MRKD, *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"mrkd {command[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout
