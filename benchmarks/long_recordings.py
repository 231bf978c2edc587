"""Memory of `mrkd predict` and `mrkd prepare` for recordings of any length.

python -m benchmarks.long_recordings 0.05 24    # hours; writes results/long_recordings.json
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.common import RESULTS, Result, Row
from benchmarks.startup import MRKD

NAME = "long_recordings"
TARGET = 1000.0  # MiB
BRANCHES = ("logmel64:resnet_small", "cqt:vgg_small")
RATE = 22_050
CLIPS = 3  # short ones of each class beside the long one: a data set has folds


def noise(file: Path, seconds: float, seed: int) -> None:
    """Write noise, a minute at a time."""
    import soundfile

    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    left = round(seconds * RATE)
    with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16") as out:
        while left > 0:
            out.write(0.1 * rng.standard_normal(min(left, 60 * RATE)).astype(np.float32))
            left -= 60 * RATE


def measured(*command: str) -> tuple[float, float]:
    """Run a command of mrkd; return its peak of memory in MiB and its seconds."""
    began = time.perf_counter()
    process = subprocess.Popen([*MRKD, *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"mrkd {command[0]} failed")
    return used.ru_maxrss / 1024, time.perf_counter() - began


def main() -> None:
    """Measure each length that is asked for, and write what was found."""
    from mrkd_ray.training.branch import Branch

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for task in data.tasks("esc10", BRANCHES, quick=True):
            Branch(task).export(root / "model" / "branches" / task.name)
        for hours in map(float, sys.argv[1:] or ["1"]):
            clips = root / f"clips{hours:g}"
            for i in range(2 * CLIPS):
                noise(clips / "ab"[i % 2] / f"{i}.wav", 1.0, seed=i)
            noise(clips / "a" / "long.wav", 3600 * hours, seed=99)
            asked = ("--representations", "logmel64,cqt", "--cache", str(root / "cache"))
            for command in (
                ("predict", str(root / "model"), str(clips / "a" / "long.wav")),
                ("prepare", "--runner", "local", "--data", str(clips), *asked),
            ):
                peak, seconds = measured(*command)
                told = f"`mrkd {command[0]}`, {hours:g} h"
                print(f"{told}: peak {peak:.0f} MiB, {seconds:.0f} s", flush=True)
                rows.append(Row(what=told, unit="MiB", ours=[peak], target=TARGET, at_most=True))
                rows.append(Row(what=f"{told}: how long it takes", unit="s", ours=[seconds]))
    result = Result(
        name=NAME,
        title="Long recordings",
        how="The most memory of a command for a recording of so many hours of noise, mono at "
        "22,050 Hz: two branches that classify it, and two representations that are stored.",
        rows=rows,
    )
    result.write(RESULTS)


if __name__ == "__main__":
    main()
