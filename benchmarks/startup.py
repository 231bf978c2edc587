"""How long the command takes to answer."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import data
from benchmarks.common import RUNS, Result, Row, alternate
from mrkd_ray.training.branch import Branch

NAME = "startup"
HELP, PREDICT = 0.3, 1.5  # s
MRKD = [
    sys.executable,
    "-c",
    "from mrkd_ray.cli.main import main; main()",
]  # what the script `mrkd` is


def run(quick: bool = False) -> Result:
    """Measure `mrkd --help`, and `mrkd predict` beside a bare `import torch`."""
    runs = 1 if quick else 2 * RUNS + 1
    with tempfile.TemporaryDirectory() as folder:
        (task,) = data.tasks("esc10", ["logmel64:resnet_small"], quick)
        (cqt,) = data.tasks("esc10", ["cqt:vgg_small"], quick)
        for each in (task, cqt):
            Branch(each).export(Path(folder) / each.name)
        clip = _short_clip(Path(folder))
        sides = {
            "help": [*MRKD, "--help"],
            "torch": [sys.executable, "-c", "import torch"],
            task.name: [*MRKD, "predict", f"{folder}/{task.name}", str(clip)],
            cqt.name: [*MRKD, "predict", f"{folder}/{cqt.name}", str(clip)],
        }
        timed = {name: lambda command=command: _seconds(command) for name, command in sides.items()}
        if not quick:
            alternate(1, timed)  # files in the page cache
        values = alternate(runs, timed)
    rows = [Row(what="`mrkd --help`", unit="s", ours=values["help"], target=HELP, at_most=True)]
    for each in (task, cqt):
        beyond = [a - statistics.median(values["torch"]) for a in values[each.name]]
        rows.append(
            Row(
                what=f"`mrkd predict` on a clip of 1.5 s, {each.name}, beyond `import torch`",
                unit="s",
                ours=beyond,
                target=PREDICT,
                at_most=True,
                limits="Importing torchvision and scientific Python.",
            )
        )
    return Result(
        name=NAME,
        title="Start-up",
        how="Wall time of whole processes, the files in the page cache. From `mrkd predict` the "
        "median time of `python -c 'import torch'` in the same rounds is taken off.",
        rows=rows,
        details={"seconds": values},
    )


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def _short_clip(folder: Path) -> Path:
    import numpy as np
    import soundfile

    path = folder / "clip.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=44100 * 3 // 2) / 8, 44100)
    return path
