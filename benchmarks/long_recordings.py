"""Memory of `mrkd predict` and `mrkd prepare` for recordings of any length.

python -m benchmarks.long_recordings 0.05 24:flac 6.3:cd    # writes results/long_recordings.json

Each argument is a number of hours, and a form: `wav` (mono, 22,050 Hz, 16 bits, as without one),
`flac` (the same sound), `cd` (WAV, two channels at 44,100 Hz: 6.3 hours are 4.0 GB).
"""

from __future__ import annotations

import os
import shutil
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
FORMS = {"wav": ("wav", RATE, 1), "flac": ("flac", RATE, 1), "cd": ("wav", 2 * RATE, 2)}
"""Ending, sample rate in Hz and channels."""
CLIPS = 3  # short ones of each class beside the long one: a data set has folds


def noise(file: Path, seconds: float, seed: int, rate: int = RATE, channels: int = 1) -> None:
    """Write noise, a minute at a time."""
    import soundfile

    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    left = round(seconds * rate)
    with soundfile.SoundFile(file, "w", rate, channels, "PCM_16") as out:
        while left > 0:
            samples = rng.standard_normal((min(left, 60 * rate), channels), dtype=np.float32)
            out.write(0.1 * samples)
            left -= 60 * rate


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

    result = Result(
        name=NAME,
        title="Long recordings",
        how="The most memory of a command for a recording of so many hours of noise: two branches "
        "that classify it as a whole, and in windows of 1 s every 0.5 s; two representations that "
        "are stored, and these compared again with their sums.",
        rows=[],
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for task in data.tasks("esc10", BRANCHES, quick=True):
            Branch(task).export(root / "model" / "branches" / task.name)
        for given in sys.argv[1:] or ["1"]:
            hours, _, form = given.partition(":")
            ending, rate, channels = FORMS[form or "wav"]
            clips = root / "clips"
            for i in range(2 * CLIPS):
                noise(clips / "ab"[i % 2] / f"{i}.wav", 1.0, seed=i)
            long = clips / "a" / f"long.{ending}"
            noise(long, 3600 * float(hours), 99, rate, channels)
            size = f"{float(hours):g} h, {ending}, {long.stat().st_size / 1e9:.2g} GB"
            asked = ("--representations", "logmel64,cqt", "--cache", str(root / "cache"))
            prepare = ("prepare", "--runner", "local", "--data", str(clips), *asked)
            answers = ("--output", str(root / "answers"))
            classify = ("predict", str(root / "model"), str(long), *answers)
            for what, command in (
                ("predict", classify),
                ("predict --window 1 --hop 0.5", (*classify, "--window", "1", "--hop", "0.5")),
                ("prepare", prepare),
                ("prepare, all there", prepare),
            ):
                peak, seconds = measured(*command)
                told = f"`mrkd {what}`, {size}"
                print(f"{told}: peak {peak:.0f} MiB, {seconds:.0f} s", flush=True)
                result.rows += [
                    Row(what=told, unit="MiB", ours=[peak], target=TARGET, at_most=True),
                    Row(what=f"{told}: how long it takes", unit="s", ours=[seconds]),
                ]
                result.write(RESULTS)  # it takes long: what is known is kept
            shutil.rmtree(clips)
            shutil.rmtree(root / "cache")


if __name__ == "__main__":
    main()
