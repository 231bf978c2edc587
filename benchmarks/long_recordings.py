"""Memory of `mrkd predict` and `mrkd prepare` for recordings of any length.

python -m benchmarks.long_recordings 1 6      # hours of noise; prints a line a length and command
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
from benchmarks.startup import MRKD

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


def measured(*command: str) -> str:
    """Run a command of mrkd; return its peak of memory and its seconds, as a line says them."""
    began = time.perf_counter()
    process = subprocess.Popen([*MRKD, *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"mrkd {command[0]} failed")
    seconds = used.ru_utime + used.ru_stime
    took = time.perf_counter() - began
    return f"peak {used.ru_maxrss / 1024:.0f} MiB, {seconds:.0f} s of CPU in {took:.0f} s"


def main() -> None:
    """Measure each length that is asked for."""
    from mrkd_ray.training.branch import Branch

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for task in data.tasks("esc10", BRANCHES, quick=True):
            Branch(task).export(root / "model" / "branches" / task.name)
        for hours in map(float, sys.argv[1:] or ["1"]):
            clips = root / f"clips{hours:g}"
            for i in range(2 * CLIPS):
                noise(clips / "ab"[i % 2] / f"{i}.wav", 1.0, seed=i)
            noise(clips / "a" / "long.wav", 3600 * hours, seed=99)
            predicted = measured("predict", str(root / "model"), str(clips / "a" / "long.wav"))
            print(f"{hours:g} h, predict, two branches: {predicted}", flush=True)
            asked = ("--representations", "logmel64,cqt", "--cache", str(root / "cache"))
            prepared = measured("prepare", "--runner", "local", "--data", str(clips), *asked)
            print(f"{hours:g} h, prepare, two representations: {prepared}", flush=True)


if __name__ == "__main__":
    main()
