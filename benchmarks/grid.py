"""A grid of 12 cells beside the same cells run one after the other, nothing shared."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import data
from benchmarks.common import Result, Row, alternate
from benchmarks.startup import MRKD

NAME = "grid"
TARGET = 2.5
PAIRING = "logmel64:resnet_small+cqt:vgg_small"
TEMPERATURES = (1, 2, 4, 8)
FOLDS = (1, 2, 3)
CYCLES = 4
SAMPLE = 2  # of the 12 runs that share nothing, those measured a round
ROUNDS = 2


def run(quick: bool = False) -> Result:
    """Measure `mrkd grid`, and `mrkd train --independent` for some of its cells, in turn."""
    clips = data.folder("esc10", quick)
    temperatures, folds = ((2,), (1,)) if quick else (TEMPERATURES, FOLDS)
    cycles, sample = (1, 1) if quick else (CYCLES, SAMPLE)
    cells = list(itertools.product(temperatures, folds))
    taken = iter(itertools.cycle(cells[:: max(1, len(cells) // (sample + 1))]))

    def shared() -> float:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "grid.yaml"
            file.write_text(
                f"cohorts: ['{PAIRING}']\ntemperatures: {list(temperatures)}\n"
                f"folds: {list(folds)}\n"
            )
            return 3600 * len(cells) / _seconds(["grid", str(file)], clips, folder, cycles)

    def alone() -> float:
        seconds = 0.0
        for temperature, fold in itertools.islice(taken, sample):
            branches = [word for spec in PAIRING.split("+") for word in ("--branch", spec)]
            asked = ["--temperature", str(temperature), "--folds", str(fold), "--independent"]
            with tempfile.TemporaryDirectory() as folder:
                seconds += _seconds(["train", *branches, *asked], clips, folder, cycles)
        return 3600 * sample / seconds

    values = alternate(1 if quick else ROUNDS, {"ours": shared, "peer": alone})
    return Result(
        name=NAME,
        title="A grid beside its cells one by one",
        how=f"Cells an hour, whole commands with an empty cache: {len(cells)} cells of {PAIRING} "
        f"on ESC-10, {len(temperatures)} temperatures x {len(folds)} folds, {cycles} cycles. "
        "Each cell is compared with its independent baselines. Ours: one `mrkd grid`. "
        "Beside it: one `mrkd train --independent` a cell, one after the other, each with a "
        f"cache of its own. All of both would take an hour. So there are {ROUNDS} "
        f"alternating rounds and not 5, and of the runs that share nothing {sample} a round, "
        f"scaled to {len(cells)}.",
        rows=[
            Row(
                what=f"{len(cells)} cells",
                unit="cells/h",
                ours=values["ours"],
                peer=values["peer"],
                peer_is="one by one",
                target=TARGET,
                limits="The longer the cells, the less their start and the features count; "
                "baselines that are shared alone give 48 / 30 branches trained, 1.6.",
            )
        ],
    )


def _seconds(command: list[str], clips: Path, folder: str, cycles: int) -> float:
    options = ["--data", str(clips), "--cache", f"{folder}/cache", "--output", f"{folder}/results"]
    began = time.perf_counter()
    done = subprocess.run(
        [*MRKD, *command, *options, "--cycles", str(cycles)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"mrkd {command[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - began
