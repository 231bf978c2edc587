"""What comes before any work on a large data set: its table read, its folds made."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import Result, Row
from mrkd_ray.audio.decoding import SAMPLE_RATE
from mrkd_ray.datasets.checking.problems import check
from mrkd_ray.datasets.checking.scan import ClipScan
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.splits import Splitter

NAME = "many_clips"
ROWS, CLIPS = 100_000, 20_000
CLASSES = 50
DAMAGED = 100  # one clip of so many
SHAPES = {
    "one label a clip": "label",
    "groups of five clips": "label,group",
    "two labels a clip": "labels",
}


def run(quick: bool = False) -> Result:
    """Measure each shape of table, with as many rows as clips and with many more."""
    rows = []
    for count in (200, 400) if quick else (CLIPS, ROWS):
        for name, columns in SHAPES.items():
            with tempfile.TemporaryDirectory() as folder:
                opened, checked = _measure(Path(folder), columns, count)
            rows.append(Row(what=f"{count:,} rows, {name}: read", unit="s", ours=[opened]))
            rows.append(
                Row(what=f"{count:,} rows, {name}: checked, split", unit="s", ours=[checked])
            )
    return Result(
        name=NAME,
        title="Many clips",
        how="Seconds of one CPU (`process_time`: other work on the machine does not count) until a "
        f"table is read, and until the data set is checked and split with --skip-bad, where one "
        f"clip of {DAMAGED} is damaged and what the check read of each file is remembered. "
        f"{CLASSES} classes, the rarest of a few clips. The files are empty: nothing is decoded.",
        rows=rows,
    )


def _measure(folder: Path, columns: str, count: int) -> tuple[float, float]:
    names = [f"audio/{i // 1000:03d}/{i:06d}.wav" for i in range(count)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    cells = _cells(columns, count)
    lines = [f"{name},{cell}" for name, cell in zip(names, cells, strict=True)]
    (folder / "meta.csv").write_text("\n".join([f"filename,{columns}", *lines]) + "\n")
    _import_splitters()
    began = time.process_time()
    dataset = open_dataset(folder / "meta.csv", folder)
    opened = time.process_time() - began
    scans = {clip.clip_id: _scan(i) for i, clip in enumerate(dataset.clips)}
    began = time.process_time()
    check(dataset, scans, Splitter().all, skip_bad=True)
    return opened, time.process_time() - began


def _cells(columns: str, count: int) -> Sequence[str]:
    """Return what stands in the columns of labels and groups: classes from frequent to rare."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, CLASSES + 1) ** 2
    first, second = (rng.choice(CLASSES, count, p=share / share.sum()) for _ in range(2))
    if columns == "labels":
        pairs = zip(first, second, strict=True)
        return [f'"c{a},c{b}"' if a != b else f"c{a}" for a, b in pairs]
    groups = columns == "label,group"
    return [f"c{a},g{i // 5}" if groups else f"c{a}" for i, a in enumerate(first)]


def _scan(i: int) -> ClipScan:
    bad = i % DAMAGED == 0
    return ClipScan(
        digest=f"{i:064x}",
        seconds=5.0,
        sample_rate=SAMPLE_RATE,
        channels=1,
        problem="empty" if bad else None,
        detail="no samples" if bad else "",
    )


def _import_splitters() -> None:
    import sklearn.model_selection  # noqa: F401  # its import is not what is measured
