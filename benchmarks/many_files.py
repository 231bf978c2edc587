"""Files to probabilities: side by side on one CPU each, and one by one on all CPUs' threads."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import data
from benchmarks.common import RUNS, Result, Row, alternate, cores

if TYPE_CHECKING:
    from mrkd_ray.inference.classifier import Classifier

NAME = "many_files"
BRANCHES = ("logmel64:resnet_small", "cqt:vgg_small")
FILES = 60
BUSY = [sys.executable, "-c", "while True: pass"]


def run(quick: bool = False) -> Result:
    """Measure both in turn, on a machine that does nothing else and on a busy one."""
    from mrkd_ray.inference.classifier import Classifier
    from mrkd_ray.training.branch import Branch

    count, runs = (4, 1) if quick else (FILES, RUNS)
    pattern = "*.wav" if quick else "*.ogg"
    files = sorted(data.folder("esc10", quick).rglob(pattern))[:count]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for task in data.tasks("esc10", BRANCHES, quick):
            Branch(task).export(Path(folder) / "branches" / task.name)
        classifier = Classifier.load(folder, "cpu")
        sides: dict[str, Callable[[], Any]] = {
            "ours": lambda: classifier.predict(files),
            "one by one": lambda: [classifier.predict(file) for file in files],
            "default": lambda: _on_all_threads(classifier, files),
        }
        timed = {name: lambda side=side: _seconds(side) for name, side in sides.items()}
        alternate(1, timed)
        for busy in (0, cores()):
            with _beside(busy):
                values = alternate(runs, timed)
            rates = {name: [len(files) / s for s in seconds] for name, seconds in values.items()}
            where = f"beside {busy} busy processes" if busy else "alone on the machine"
            for name, text in (
                ("default", "one by one with PyTorch's default threads"),
                ("one by one", "one by one on one thread: `predict`"),
            ):
                rows.append(
                    Row(
                        what=f"`predict` of a list, {where}",
                        unit="clips/s",
                        ours=rates["ours"],
                        peer=rates[name],
                        peer_is=text,
                    )
                )
    return Result(
        name=NAME,
        title="Many files",
        how=f"{len(files)} clips of ESC-10, from file to the probabilities of two branches, in "
        f"one process on {cores()} CPUs. PyTorch's default is a thread for each CPU. The "
        "front-end has one thread in all cases.",
        rows=rows,
    )


def _on_all_threads(classifier: Classifier, files: Sequence[Path]) -> None:
    """Classify as `predict`, but with the networks on as many threads as PyTorch is set to."""
    from mrkd_ray.audio import decoding
    from mrkd_ray.inference.classifier import BranchModel

    logits = BranchModel.logits.__wrapped__  # type: ignore[attr-defined]
    for file in files:
        heard = classifier.heard(decoding.load(file))
        for branch in classifier.branches:
            branch.probabilities(logits(branch, [heard]))


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def _beside(count: int) -> Iterator[None]:
    """Keep so many CPUs busy inside."""
    processes = [subprocess.Popen(BUSY) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
