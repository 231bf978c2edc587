"""How a cycle scales: a small model of its time and memory, and simulated cohorts to check it.

The branches of the check train nothing: they wait as long as a network would take at a given rate,
and the rest of the cycle is real: actors, refs, shards, the aggregator, the object store.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster import cluster
from benchmarks.common import ROOT, Result, Row, cores
from benchmarks.exchange import Labels, stand_in_cohort

NAME = "scaling"
CLASSES = 50
CLIPS = (10_000, 100_000, 1_000_000, 4_000_000)
BRANCHES = (1, 2, 4)
RATE = 2_000_000  # windows a second of the simulated networks: fast, so that the rest shows
FLOAT = 4  # bytes
GB = 1e9
DOCUMENT = ROOT / "docs" / "explanation" / "scaling.md"
BEGIN, END = "<!-- python -m benchmarks scaling: begin -->", "<!-- end -->"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Constants of a node and of what joins nodes. Rates are bytes per second."""

    cores: int
    call: float  # seconds of a cycle's calls to one branch, without data
    store: float  # one process writes arrays into the object store
    average: float  # one process reads soft labels and averages them
    copy: float  # one process copies a teacher out of the object store
    disk: float  # random windows from the feature files, not in memory
    network: float  # into or out of one node


@dataclass(frozen=True, kw_only=True)
class Job:
    """A data set, a cohort, and how fast its networks are."""

    clips: int
    classes: int
    branches: int
    nodes: int = 1
    aggregators: int = 1  # each of a range of the clips, on a node of its own
    epochs: int = 2  # b + d of a cycle
    frames: int = 501  # of a clip
    bins: int = 64
    evaluations: float = 4  # windows of a clip for its soft labels; 1 with soft_labels: window
    train_rate: float = RATE  # windows per second of one branch, forward and backward
    infer_rate: float = RATE  # forward only
    resident: bool = True  # the windows of a branch lie on its device


def seconds(job: Job, machine: Machine) -> dict[str, float]:
    """Return the seconds of a cycle by what they are spent on.

    The phases follow each other; within one, the branches of a node share its cores. Data that
    are not resident are read while the device computes, so the slower of the two counts.
    """
    soft = job.clips * job.classes * FLOAT
    here = -(-job.branches // job.nodes)  # branches on a node
    turns = here / min(here, machine.cores)
    window = 158 * job.bins * FLOAT  # a window and the margin of its deltas
    windows = job.epochs + job.evaluations
    read = 0.0 if job.resident else here * job.clips * window * windows / machine.disk
    compute = job.clips * (job.epochs / job.train_rate + job.evaluations / job.infer_rate)
    remote = job.branches - here
    return {
        "compute": compute,
        "waiting for the disk": max(0.0, read - compute),
        "calls": job.branches * machine.call,
        "store": turns * soft / machine.store,
        "network": (remote + job.nodes - 1) * soft / job.aggregators / machine.network,
        "average": job.branches * soft / job.aggregators / machine.average,
        "copy": turns * soft / machine.copy,
    }


def memory(job: Job) -> dict[str, float]:
    """Return bytes: of a node's object store, of a branch's windows, of a branch's soft labels."""
    soft = job.clips * job.classes * FLOAT
    here = -(-job.branches // job.nodes)
    return {
        "object store": (here + (job.branches - here) / job.aggregators) * soft + soft,
        "windows of a branch, if resident": job.clips * job.frames * job.bins * 3 * FLOAT,
        "soft labels in a branch": 3 * soft,  # its own, the teacher, and the teacher on the device
        "a representation on disk": job.clips * job.frames * job.bins * FLOAT,
    }


class Simulated(Labels):
    """A branch that waits where it would compute."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self._clips = len(task.train.clip_ids)

    def train(self, epochs: int) -> None:
        """Wait as long as the epochs would take."""
        time.sleep(epochs * self._clips / RATE)

    def soft_labels(self, temperature: float) -> Any:
        """Wait for the forward passes of one window a clip; hand out what is there."""
        time.sleep(self._clips / RATE)
        return super().soft_labels(temperature)

    def distil(self, teacher: Any, temperature: float, epochs: int) -> None:
        """Copy the teacher, as to a device, then wait."""
        super().distil(teacher, temperature, epochs)
        self.train(epochs)


def run(quick: bool = False) -> Result:
    """Measure the constants, predict each simulated cohort's cycle, and run it."""
    clips = (1_000, 20_000) if quick else CLIPS
    branches = (1, 2) if quick else BRANCHES
    machine = constants(quick)
    rows, details = [], []
    for count in branches:
        for n in clips:
            job = Job(clips=n, classes=CLASSES, branches=count, evaluations=1)
            predicted = seconds(job, machine)
            measured, store = _simulate(job, 2 if quick else 5 if n < 1_000_000 else 3)
            expected = memory(job)["object store"]
            details.append(
                {
                    "branches": count,
                    "clips": n,
                    "predicted": sum(predicted.values()),
                    "measured": statistics.median(measured),
                    "parts": predicted,
                    "store_predicted": expected,
                    "store_measured": store,
                }
            )
            rows.append(
                Row(
                    what=f"{count} branches, {n:,} clips: a cycle beside the model",
                    unit="s",
                    ours=measured,
                    peer=[sum(predicted.values())] * len(measured),
                    peer_is="the model",
                )
            )
    result = Result(
        name=NAME,
        title="Scaling: the model beside simulated cohorts",
        how="The model on the page of scaling, its constants measured one by one, beside whole "
        "cycles of `RayCohort` whose branches wait in place of training.",
        rows=rows,
        details={"machine": machine.__dict__, "checks": details},
    )
    if not quick:
        _render(machine, details)
    return result


def constants(quick: bool = False) -> Machine:
    """Measure this machine's constants, each by itself."""
    size = 2_000_000 if quick else 64 * 2**20
    with cluster(cpus=2):
        import ray

        @ray.remote
        class Worker:
            def __init__(self) -> None:
                self.array = np.ones((size // FLOAT // CLASSES, CLASSES), np.float32)

            def make(self) -> Any:
                return self.array

            def average(self, *parts: Any) -> float:
                from mrkd_ray.method.averaging import AVERAGES

                began = time.perf_counter()
                AVERAGES["mean"].combine(parts, [1.0] * len(parts))
                return time.perf_counter() - began

            def copy(self, part: Any) -> float:
                target = np.empty_like(part)
                target[:] = 0
                began = time.perf_counter()
                np.copyto(target, part)
                return time.perf_counter() - began

        worker = Worker.remote()  # type: ignore[attr-defined]
        nbytes = ray.get(worker.make.remote()).nbytes

        def made() -> float:
            began = time.perf_counter()
            ray.wait([worker.make.remote()])
            return time.perf_counter() - began

        store = nbytes / _median(made)
        parts = [worker.make.remote() for _ in range(2)]
        average = 2 * nbytes / _median(lambda: float(ray.get(worker.average.remote(*parts))))
        copy = nbytes / _median(lambda: float(ray.get(worker.copy.remote(parts[0]))))
    few = Job(clips=100, classes=CLASSES, branches=2)
    call = statistics.median(_simulate(few, 7)[0]) / few.branches
    return Machine(
        cores=cores(),
        call=call,
        store=store,
        average=average,
        copy=copy,
        disk=_disk(quick),
        network=float("inf"),
    )


def _median(measure: Callable[[], float]) -> float:
    measure()
    return statistics.median(measure() for _ in range(7))


def _disk(quick: bool) -> float:
    """Bytes per second of random windows out of a file that is not in memory."""
    window = 158 * 64 * FLOAT
    count = 200 if quick else 20_000
    with tempfile.NamedTemporaryFile(dir=ROOT) as file:
        block = np.random.default_rng(0).bytes(64 * window)
        for _ in range(count // 16):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        places = np.random.default_rng(1).integers(0, count * 4 - 1, count) * window
        began = time.perf_counter()
        for place in places.tolist():
            os.pread(file.fileno(), window, place)
        return count * window / (time.perf_counter() - began)


def _simulate(job: Job, runs: int) -> tuple[list[float], float]:
    """Return the seconds of some cycles, and the bytes that the object store came to use."""
    before = _shared_memory()
    with stand_in_cohort(job.branches, job.clips, Simulated) as cohort:
        import ray

        def cycle() -> float:
            began = time.perf_counter()
            cohort.train(1)
            cohort.distil(cohort.average(cohort.soft_labels(1.0)), 1.0, 1)
            ray.get(cohort.submitted)
            cohort.submitted = []
            return time.perf_counter() - began

        cycle()
        used = _shared_memory() - before
        return [cycle() for _ in range(runs)], used


def _shared_memory() -> float:
    """Bytes in use where Ray's object store lies."""
    found = os.statvfs("/dev/shm")
    return float((found.f_blocks - found.f_bfree) * found.f_frsize)


# The document ----------------------------------------------------------------------------------

# Assumed, not measured here: benchmarks/gpu.py measures the rates where there is a GPU. A window of
# 3 x 64 x 150 costs ResNet-101 about 3 GFLOP forward (7.8 GMAC at 224 x 224, less in proportion to
# the pixels) and three times that with the backward pass; at 200 TFLOP/s of bf16 that is:
NODE: dict[str, Any] = {
    "cores": 96,
    "network": 100e9 / 8,
    "disk": 6 * GB,
}
AUDIOSET = Job(
    clips=2_000_000,
    classes=527,
    branches=8,
    frames=1003,
    evaluations=7,
    train_rate=200e12 / 9e9,
    infer_rate=200e12 / 3e9,
    resident=False,
)


def audioset(machine: Machine) -> list[tuple[str, dict[str, float], dict[str, float]]]:
    """Return what the model says for AudioSet on 8 and on 64 GPUs: seconds and bytes."""
    node = replace(machine, **NODE)
    shared = replace(node, disk=node.disk / 8)
    window = replace(AUDIOSET, evaluations=1)
    far = replace(window, branches=64, nodes=8, aggregators=8)
    single = replace(far, aggregators=1)
    asked = {
        "8 GPUs, a cohort of 8, `soft_labels: clip`": (AUDIOSET, node),
        "8 GPUs, a cohort of 8, `window`": (window, node),
        "64 GPUs, a cohort of 8 on each node, `window`, features on each node": (window, node),
        "the same, features on one file server as fast as one node's disk": (window, shared),
        "64 GPUs, one cohort of 64, `window`, features on each node": (far, node),
        "the same, one aggregator and not one on each node": (single, node),
    }
    return [(name, seconds(job, where), memory(job)) for name, (job, where) in asked.items()]


def _render(machine: Machine, checks: Sequence[dict[str, Any]]) -> None:
    """Write the tables between the markers of docs/explanation/scaling.md."""
    write_between(DOCUMENT, BEGIN, END, "".join(_tables(machine, checks)))


def write_between(document: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two markers of a document."""
    before, _, rest = document.read_text().partition(begin)
    _, _, after = rest.partition(end)
    document.write_text(f"{before}{begin}\n{text}{end}{after}")


def _tables(machine: Machine, checks: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "\n### Constants, measured\n\n| constant | value |\n| --- | --- |\n"
    yield f"| calls of a cycle to one branch | {1000 * machine.call:.1f} ms |\n"
    for name in ("store", "average", "copy", "disk"):
        yield f"| {name} | {getattr(machine, name) / GB:.2f} GB/s |\n"
    yield "\n### The model beside simulated cohorts\n\n"
    yield "| branches | clips | cycle, s | the simulated computing, s | the rest by model, s "
    yield "| the rest measured, s | measured / model | store by model, GB | store used, GB |\n"
    yield "|" + " --: |" * 9 + "\n"
    for row in checks:
        compute = row["parts"]["compute"]
        predicted, measured = row["predicted"] - compute, row["measured"] - compute
        yield (
            f"| {row['branches']} | {row['clips']:,} | {row['measured']:.3f} | {compute:.3f} | "
            f"{predicted:.3f} | {measured:.3f} | {measured / predicted:.2f} | "
            f"{row['store_predicted'] / GB:.2f} | {row['store_measured'] / GB:.2f} |\n"
        )
    yield "\n### AudioSet, by the model\n\n"
    found = audioset(machine)
    names = list(found[0][1])
    yield f"| seconds of a cycle | {' | '.join(names)} | in all |\n"
    yield "| --- |" + " --: |" * (len(names) + 1) + "\n"
    for title, parts, _ in found:
        cells = " | ".join(f"{parts[name]:.0f}" for name in names)
        yield f"| {title} | {cells} | {sum(parts.values()):.0f} |\n"
    sizes = list(found[0][2])
    yield f"\n| gigabytes | {' | '.join(sizes)} |\n| --- |" + " --: |" * len(sizes) + "\n"
    for title, _, bytes_ in found:
        yield f"| {title} | {' | '.join(f'{bytes_[name] / GB:,.0f}' for name in sizes)} |\n"
    yield "\n"
