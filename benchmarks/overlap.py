"""Unequal branches with and without `--overlap`: time of a cycle, and accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import data
from benchmarks.cluster import Runner, cluster
from benchmarks.cohort_overhead import PHASES
from benchmarks.common import RUNS, Result, Row, alternate

NAME = "overlap"
BRANCHES = ("logmel64:vgg_small", "logmel128:resnet_small")
CYCLES = 3  # of each timed run
LONG = 15  # of the runs whose accuracies are reported


def run(quick: bool = False) -> Result:
    """Measure cycles with and without it in turn; then one longer run of each."""
    size, cycles, long = (8, 1, 1) if quick else (64, CYCLES, LONG)

    def runner(threads: int, cycles: int) -> Runner:
        options = {"batch_size": size, "cycles": cycles}
        tasks = data.tasks("esc10", BRANCHES, quick, threads=threads, **options)
        return Runner(tasks, overlap=threads > 1)

    # What the field `overlap` does: every branch has the threads of the whole cohort.
    threads = {"with": len(BRANCHES), "without": 1}
    figures: dict[str, list[list[dict[str, Any]]]] = {}
    with cluster(cpus=4 * len(BRANCHES)):  # the ones that wait take no time
        runners = {name: runner(count, cycles) for name, count in threads.items()}

        def seconds(name: str) -> float:
            wall, figures[name] = runners[name].run()
            return wall / cycles

        sides = {name: lambda name=name: seconds(name) for name in threads}
        alternate(1, sides)
        values = alternate(1 if quick else RUNS, sides)
        accuracies = {
            name: {row["branch"]: row["accuracy"] for row in runner(count, long).run()[1][-1]}
            for name, count in threads.items()
        }
    slow, fast = sorted(_seconds(figures["without"]), reverse=True)
    return Result(
        name=NAME,
        title="Unequal branches and `--overlap`",
        how=f"Seconds a cycle of {' and '.join(BRANCHES)} on ESC-10's fold 1, on two cores "
        f"through Ray. The slower branch takes {slow / fast:.1f} times as long as the other. "
        "With `--overlap` each branch has two threads: the slower one has both cores while "
        "the other waits. Without it each has one.",
        rows=[
            Row(
                what="a cycle with `--overlap`",
                unit="s",
                ours=values["with"],
                peer=values["without"],
                peer_is="without",
                at_most=True,
            )
        ],
        notes=[
            f"Test accuracy after {long} cycles, one run each: "
            + "; ".join(
                f"{name} it "
                + ", ".join(f"{branch} {100 * x:.1f} %" for branch, x in found.items())
                for name, found in accuracies.items()
            )
            + "."
        ],
        details={"accuracies": accuracies},
    )


def _seconds(cycles: Sequence[Sequence[dict[str, Any]]]) -> list[float]:
    """Return the seconds of every branch's own phases in the last cycle."""
    return [sum(row[f"seconds_{phase}"] for phase in PHASES) for row in cycles[-1]]
