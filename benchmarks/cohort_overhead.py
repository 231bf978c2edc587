"""What a cycle through Ray costs beyond the branches' own computing."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import data
from benchmarks.cluster import cluster
from benchmarks.common import RUNS, Result, Row, alternate, one_thread
from mrkd_ray.task import BranchTask

NAME = "cohort_overhead"
TARGET = 1.05
BRANCHES = ("logmel64:resnet_small", "logmel64:resnet_small")
PHASES = ("train", "soft_labels", "distil", "evaluate")


def run(quick: bool = False) -> Result:
    """Measure a cycle through Ray, of each branch alone, and of both without Ray, in turn."""
    one_thread()
    options = {"batch_size": 8 if quick else 64, "cycles": 1000}
    tasks = data.tasks("esc10", BRANCHES, quick, **options)
    with tempfile.TemporaryDirectory() as folder, cluster(cpus=2):
        from mrkd_ray import algorithm
        from mrkd_ray.actors import RayCohort

        cohort = RayCohort(tasks, Path(folder) / "ray")
        cycles = algorithm.distilled(cohort, tasks[0].training, 2.0)
        shares: list[dict[str, float]] = []

        def through_ray() -> float:
            began = time.perf_counter()
            rows = next(cycles)
            wall = time.perf_counter() - began
            shares.append(_timeline(rows, wall))
            return wall

        with _Plain(tasks, Path(folder)) as plain:
            sides = {
                "ray": through_ray,
                "alone": lambda: max(plain.cycle([0]), plain.cycle([1])),
                "side by side": lambda: plain.cycle([0, 1]),
            }
            alternate(1, sides)
            shares.clear()
            values = alternate(2 if quick else 2 * RUNS + 1, sides)
    middle = sorted(shares, key=lambda share: share["wall"])[len(shares) // 2]
    return Result(
        name=NAME,
        title="A cohort's cycle through Ray",
        how="Two equal branches (logmel64:resnet_small on ESC-10's fold 1), one thread each on two "
        "cores: wall time of a cycle of `RayCohort` over the slowest branch's own computing "
        "(training, soft labels, distillation, evaluation), measured in a process alone on the "
        "machine. As a control the same two branches in two plain processes at once, without Ray: "
        "what they cost each other through caches and memory.",
        rows=[
            Row(
                what="a cycle through Ray, beside the slowest branch alone",
                unit="s",
                ours=values["ray"],
                peer=values["alone"],
                peer_is="slowest branch alone",
                target=TARGET,
                at_most=True,
                limits="See the control: two busy cores slow each other without Ray already.",
            ),
            Row(
                what="control: two plain processes at once, beside the slowest alone",
                unit="s",
                ours=values["side by side"],
                peer=values["alone"],
                peer_is="slowest branch alone",
            ),
            Row(
                what="a cycle through Ray, beside two plain processes at once",
                unit="s",
                ours=values["ray"],
                peer=values["side by side"],
                peer_is="two plain processes",
            ),
        ],
        notes=[
            "Of the median cycle through Ray: "
            + ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in middle.items())
            + "."
        ],
        details={"cycles": shares},
    )


def _timeline(rows: Sequence[dict[str, float]], wall: float) -> dict[str, float]:
    """Return where a cycle's time went: the slowest branch's phases, and what is left."""
    slowest = max(rows, key=lambda row: sum(row[f"seconds_{phase}"] for phase in PHASES))
    found = {phase: slowest[f"seconds_{phase}"] for phase in (*PHASES, "checkpoint")}
    return {"wall": wall, **found, "the rest (barrier, exchange, commit)": wall - sum(found.values())}


class _Plain:
    """Each branch in a plain process of its own that runs a cycle when told to."""

    def __init__(self, tasks: Sequence[BranchTask], folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for i, task in enumerate(tasks):
            mine, its = context.Pipe()
            process = context.Process(target=_serve, args=(task, its, folder / f"plain{i}"))
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(False)
            process.join()

    def cycle(self, which: Sequence[int]) -> float:
        """Run a cycle of these branches at once; return the slowest one's seconds."""
        for i in which:
            self._pipes[i].send(True)
        return max(self._pipes[i].recv() for i in which)


def _serve(task: BranchTask, pipe: Connection, folder: Path) -> None:
    """Run a cycle for each True received, and send the seconds of its phases."""
    from mrkd_ray.branch import Branch

    branch = Branch(task)
    folder.mkdir()
    while pipe.recv():
        branch.train(task.training.b)
        soft = branch.soft_labels(2.0)
        branch.distil(soft, 2.0, task.training.d)
        figures = branch.end_cycle(folder)
        pipe.send(sum(figures[f"seconds_{phase}"] for phase in PHASES))
