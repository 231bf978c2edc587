"""What each command waits for before its first useful second: Ray, networks, processes, PyTorch."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks import data
from benchmarks.common import Result, Row, cores
from benchmarks.startup import MRKD
from mrkd_ray.common.timeline import read_trace

NAME = "first_second"
BRANCHES = ("logmel64:resnet_small", "cqt:vgg_small")
ROUNDS = 2
SAMPLED = 0.1  # s between two looks at the CPU time of processes


def run(quick: bool = False) -> Result:
    """Measure commands with Ray and in one process, in turn, features and scans there."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))  # or Ray writes one at home
    clips = str(data.folder("esc10", quick))
    values: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="mrkd") as folder:
        inputs = ["--data", clips, "--cache", f"{folder}/cache"]
        cohort = [word for spec in BRANCHES for word in ("--branch", spec)]
        train = ["train", *inputs, *cohort, "--folds", "1", "--cycles", "3", "--profile"]
        prepare = ["prepare", *inputs]
        _measured([*prepare, "--runner", "local"])
        for number in range(1 if quick else ROUNDS):
            to = {
                name: ["--output", f"{folder}/{name}{number}"] for name in ("ray", "bare", "local")
            }
            sides = {
                "ray": [*train, *to["ray"]],
                "local": [*train, *to["local"], "--runner", "local"],
                "bare": [*train, *to["bare"], "--no-dashboard"],
                "resumed": [*train, *to["ray"], "--resume"],
                "prepare": prepare,
            }
            for side, command in sides.items():
                for what, seconds in _measured(command).items():
                    values.setdefault(f"{side} {what}", []).append(seconds)

    def row(what: str, ours: str, peer: str = "", peer_is: str = "") -> Row:
        beside = values[peer] if peer else []
        return Row(what=what, unit="s", ours=values[ours], peer=beside, peer_is=peer_is)

    alone, shown = "`--runner local`", "with the dashboard"
    return Result(
        name=NAME,
        title="What each command waits for before its first useful second",
        how=f"{' and '.join(BRANCHES)} on ESC-10's fold 1, 3 cycles, with features and scans "
        f"there. Whole commands, {ROUNDS} rounds of all in turn. A time is from the "
        "command's start to what it writes to the terminal or to its timeline "
        "(`--profile`). CPU time is that of the command and all processes below it, seen "
        f"every {SAMPLED:g} s. Other work on the machine changes CPU time less than wall "
        "time.",
        rows=[
            row("`mrkd prepare`: imports and the scans of clips; no Ray", "prepare whole"),
            row(
                "`mrkd train --resume`, all finished: a process that imports PyTorch and checks "
                "the networks; no Ray",
                "resumed whole",
            ),
            row("`mrkd train`: Ray, and beside it networks and clips, checked", "ray there"),
            row("`mrkd train`: all that, and processes of the branches", "ray start"),
            row("`mrkd train`: all that, and PyTorch in these", "ray train", "local train", alone),
            row("`mrkd train --no-dashboard`: the same", "bare train", "ray train", shown),
            row("`mrkd train`, the whole command", "ray whole", "local whole", alone),
            row("`mrkd train`, CPU time", "ray cpu", "local cpu", alone),
            row("`mrkd train --no-dashboard`, CPU time", "bare cpu", "ray cpu", shown),
        ],
        notes=[f"Load of the last 15 minutes: {os.getloadavg()[2]:.1f} on {cores()} cores."],
        details={"seconds": values},
    )


def _measured(command: list[str]) -> dict[str, float]:
    """Run a command; return its seconds by what they lead to, and its CPU time.

    Returns:
        `whole` and `cpu`; where there is a timeline `start` and `train`, the first span of that
        name; where Ray is started `there`.
    """
    began = time.time()
    found: dict[str, float] = {}
    process = subprocess.Popen([*MRKD, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    spent: dict[int, float] = {}
    watch = threading.Thread(target=_watch, args=(process.pid, spent))
    watch.start()
    assert process.stderr
    assert process.stdout
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(b"Prometheus"):
            found["there"] = time.time() - began
    process.stdout.read()
    if process.wait():
        raise RuntimeError(f"mrkd {command[0]} failed:\n{b''.join(lines).decode()[-2000:]}")
    found["whole"] = time.time() - began
    watch.join()
    found["cpu"] = sum(spent.values())
    if "--output" in command and "--resume" not in command:
        folder = Path(command[command.index("--output") + 1])
        (trace,) = folder.glob("train/cells/*/profile.json")
        spans = [span for row in read_trace(trace).values() for span in row]
        for name in ("start", "train"):
            begins = [span.begin for span in spans if span.name == name]
            found |= {name: min(begins) - began} if begins else {}
    return found


def _watch(pid: int, spent: dict[int, float]) -> None:
    """Keep the CPU seconds of a process and all below it, until it has ended."""
    root = psutil.Process(pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        while root.status() != psutil.STATUS_ZOMBIE:
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    spent[process.pid] = times.user + times.system
            time.sleep(SAMPLED)
