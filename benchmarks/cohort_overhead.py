"""What a cycle through Ray costs beyond the branches' own computing."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import data
from benchmarks.cluster import Runner, cluster
from benchmarks.common import RUNS, Result, Row, alternate, one_thread
from mrkd_ray.training.branch_task import BranchTask

NAME = "cohort_overhead"
TARGET = 1.05
BRANCHES = ("logmel64:resnet_small", "logmel64:resnet_small")
CYCLES = 4  # of each run
PHASES = ("train", "soft_labels", "distil", "evaluate")


def run(quick: bool = False) -> Result:
    """Measure a cycle through Ray, of each branch alone, and of both without Ray, in turn."""
    one_thread()
    cycles = 2 if quick else CYCLES
    tasks = data.tasks("esc10", BRANCHES, quick, batch_size=8 if quick else 64, cycles=cycles)
    shares: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, cluster(cpus=2):
        runner = Runner(tasks)

        def through_ray() -> float:
            seconds, rows = runner.run()
            shares.append(_timeline(rows, seconds / cycles))
            return seconds / cycles

        with _Plain(tasks, Path(folder)) as plain:
            sides = {
                "ray": through_ray,
                "alone": lambda: max(plain.run([0], cycles), plain.run([1], cycles)),
                "side by side": lambda: plain.run([0, 1], cycles),
            }
            alternate(1, sides)
            shares.clear()
            values = alternate(1 if quick else RUNS, sides)
    middle = sorted(shares, key=lambda share: share["wall"])[len(shares) // 2]
    return Result(
        name=NAME,
        title="A cohort's cycle through Ray",
        how="Two equal branches (logmel64:resnet_small on ESC-10's fold 1), one thread each, on "
        f"two cores. The wall time of a cycle of `RayCohort` (of {CYCLES} in a row) is "
        "compared with the slowest branch's own computing: training, soft labels, "
        "distillation and evaluation in a process alone on the machine. The control runs "
        "the same two branches in two plain processes at once, without Ray. It shows what "
        "they cost each other through caches and memory.",
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
            "Of a cycle of the median run through Ray, the slowest branch's phases: "
            + ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in middle.items())
            + "."
        ],
        details={"cycles": shares},
    )


def _timeline(cycles: Sequence[Sequence[dict[str, float]]], wall: float) -> dict[str, float]:
    """Return the seconds of a mean cycle: the slowest branch's phases, and what is left."""
    found = dict.fromkeys((*PHASES, "checkpoint"), 0.0)
    for rows in cycles:
        slowest = max(rows, key=lambda row: sum(row[f"seconds_{phase}"] for phase in PHASES))
        for phase in found:
            found[phase] += slowest[f"seconds_{phase}"] / len(cycles)
    rest = wall - sum(found.values())
    return {"wall": wall, **found, "barrier, exchange and messages": rest}


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
            pipe.send(0)
            process.join()

    def run(self, which: Sequence[int], cycles: int) -> float:
        """Run these branches at once; return the slowest one's seconds a cycle."""
        for i in which:
            self._pipes[i].send(cycles)
        seconds: list[float] = [self._pipes[i].recv() for i in which]
        return max(seconds) / cycles


def _serve(task: BranchTask, pipe: Connection, folder: Path) -> None:
    """Run as many cycles of a new branch as received, and send the seconds of their phases."""
    from mrkd_ray.training.branch import Branch

    folder.mkdir()
    while cycles := pipe.recv():
        branch = Branch(task)
        seconds = 0.0
        for _ in range(cycles):
            branch.train(task.training.b)
            branch.distil(branch.soft_labels(2.0), 2.0, task.training.d)
            figures = branch.end_cycle(folder)
            seconds += sum(figures[f"seconds_{phase}"] for phase in PHASES)
        pipe.send(seconds)
