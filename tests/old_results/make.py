"""Make the old results: with the code of commit 31dc7fb, before modules moved into folders.

What lies here was made once, on a CPU, with torch 2.14.1, numpy 2.4.6 and soundfile 0.14.0
(`results/old/environment.json` has the rest), and is not to be made again: another run would only
prove that its own code agrees with itself. The command, where OLD is a checkout of 31dc7fb::

    PYTHONPATH=OLD OMP_NUM_THREADS=1 python tests/old_results/make.py

It writes, beside itself:

- `clips/`: 12 recordings of 3 classes in 2 folds, with a `meta.csv`.
- `results/old/`: the folder of `mrkd grid old.yaml`, in which one cell failed after 2 of its 4
  cycles: the distilled one of the variant `trusty`. Its checkpoint holds remembered teachers.
- `expected/`: that cell as it was where nothing failed, and `keys.json`, the title of each cell by
  its key. Of `history.csv` without seconds and memory.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tiny import DESCRIPTION, NAME, tiny

from mrkd_ray import cells, networks  # the old code's
from mrkd_ray.cli import main

HERE = Path(__file__).resolve().parent
RATE = 8000
STOP_AFTER = 2  # cycles

RealRun = cells.run
titles: dict[str, str] = {}


def make_clips(folder: Path) -> None:
    """Write 12 clips of 0.3 s; one to train on and one to test on are longer than a window."""
    folder.mkdir()
    rng = np.random.default_rng(31)
    rows = ["filename,fold,label"]
    for i in range(12):
        t = np.arange(round((1.6 if i in (6, 9) else 0.3) * RATE)) / RATE
        kind = ("tone", "noise", "clicks")[i % 3]
        sound = {
            "tone": np.sin(2 * np.pi * rng.uniform(200, 800) * t),
            "noise": rng.normal(size=len(t)) / 4,
            "clicks": (np.floor(t * 40) % 8 == 0) * rng.normal(size=len(t)) / 3,
        }[kind]
        sound = 0.5 * sound + 0.01 * rng.normal(size=len(t))
        soundfile.write(folder / f"{i:02d}.flac", np.clip(sound, -1, 1), RATE, subtype="PCM_16")
        rows.append(f"{i:02d}.flac,{1 + i // 3 % 2},{kind}")
    (folder / "meta.csv").write_text("\n".join(rows) + "\n")


def mrkd_grid(output: str) -> int:
    """Run the grid as the command does; return its exit code."""
    options = ("--data", "clips", "--output", output, "--cache", "cache", "--runner", "local")
    arguments = ["grid", "old.yaml", *options]
    sys.argv = ["mrkd", *arguments]  # environment.json says how it was called
    try:
        main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


def listed(cell: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
    """Run a cell, and note its title."""
    titles[cell.key] = cell.title
    yield from RealRun(cell, *arguments, **options)


def failing(cell: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
    """Run a cell; the one that is to be unfinished fails between two cycles."""
    for rows in RealRun(cell, *arguments, **options):
        yield rows
        stop = cell.variant == "trusty" and cell.condition == "distilled"
        if stop and rows[0]["cycle"] + 1 == STOP_AFTER:
            raise RuntimeError("stopped by make.py")


def keep_expected(cell: Path, to: Path) -> None:
    """Keep of a finished cell what another run of it must give again."""
    to.mkdir()
    for name in ("predictions.csv", "predicted.npy", "soft_labels.npz"):
        shutil.copy(cell / name, to)
    for model in cell.glob("branches/*/model.safetensors"):
        (to / "branches" / model.parent.name).mkdir(parents=True)
        shutil.copy(model, to / "branches" / model.parent.name)
    with (cell / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if not name.startswith(("seconds", "peak_bytes"))]
    with (to / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make() -> None:
    """Run the grid twice, whole and with a cell that fails, and put it all beside this file."""
    networks.network(NAME, description=DESCRIPTION)(tiny)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        shutil.copy(HERE / "old.yaml", ".")
        make_clips(Path("clips"))
        cells.run = listed
        assert mrkd_grid("whole") == 0
        cells.run = failing
        assert mrkd_grid("results") == 1

        (unfinished,) = (key for key, title in titles.items() if "trusty, T" in title)
        keep_expected(Path("whole/old/cells", unfinished), Path("expected"))
        Path("expected/keys.json").write_text(json.dumps(titles, indent=2) + "\n")
        Path("results/old/.lock").unlink(missing_ok=True)
        for name in ("clips", "results", "expected"):
            shutil.rmtree(HERE / name, ignore_errors=True)
            shutil.copytree(name, HERE / name)
        os.chdir(HERE)


if __name__ == "__main__":
    make()
