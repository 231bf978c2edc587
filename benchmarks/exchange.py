"""Gathering, averaging and broadcasting soft labels, beside gRPC streaming and memcpy."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster import cluster
from benchmarks.common import RUNS, Result, Row, alternate, status_mb
from benchmarks.grpc_peer import SHARD_BYTES, GrpcAggregation, check_sum, soft_labels
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import Training
from mrkd_ray.config.parsing import parse
from mrkd_ray.training.branch_task import BranchTask, Part

NAME = "exchange"
GRPC, MEMCPY = 5.0, 0.5
ROWS, CLASSES = 1_000_000, 50
MANY = 4_000_000
WARM = 4  # rounds before: until the shared memory and the arrays are in use


def run(quick: bool = False) -> Result:
    """Measure two and four branches, and the aggregator's memory at four million clips."""
    rows_count, many = (20_000, 40_000) if quick else (ROWS, MANY)
    rows: list[Row] = []
    details: dict[str, Any] = {}
    for branches in (2, 4):
        rows += _compare(branches, rows_count, 1 if quick else RUNS)
    for branches in (2,) if quick else (2, 4):
        row, details[f"{branches} branches, {many:,} clips, MB"] = _memory(branches, many)
        rows.append(row)
    return Result(
        name=NAME,
        title="Exchange of soft labels",
        how=f"N = {rows_count:,} clips, M = {CLASSES} classes, float32. The time is from a "
        "matrix in every branch's process until every branch has copied the mean into an "
        "array of its own. Ours: `RayCohort.soft_labels`, `average` and `distil`, with "
        "branches that hold random matrices and train nothing. gRPC: a server and clients "
        f"in processes of their own. Shards of {SHARD_BYTES / 2**20:g} MiB are streamed up, "
        "added on arrival, and sent down as soon as they are whole. memcpy: np.copyto "
        "between two warm arrays of 200 MB on one core. The share is the bytes gathered and "
        "broadcast, 2 x branches x N x M x 4, over the wall time, over memcpy's rate. Each "
        f"side has {WARM} rounds before: the first write to memory that nobody has used is "
        "slow.",
        rows=rows,
        details=details,
    )


def _compare(branches: int, rows: int, runs: int) -> list[Row]:
    size = 2 * branches * rows * CLASSES * 4 / 1e9
    grpc = GrpcAggregation(branches, rows, CLASSES)
    try:
        with stand_in_cohort(branches, rows) as cohort:
            expected = _expected(branches, rows)

            def ours() -> float:
                seconds, found = exchange(cohort)
                assert all(abs(value - expected) < 0.1 for value in found), (found, expected)
                return size / seconds

            def peer() -> float:
                seconds, found = grpc.round()
                assert abs(found - expected) < 0.1, (found, expected)
                return size / seconds

            sides = {"ours": ours, "grpc": peer, "memcpy": _memcpy}
            alternate(WARM, sides)
            values = alternate(runs, sides)
    finally:
        grpc.close()
    shared: dict[str, Any] = {"unit": "GB/s", "ours": values["ours"]}
    return [
        Row(
            what=f"{branches} branches",
            peer=values["grpc"],
            peer_is="gRPC streaming",
            target=GRPC,
            limits="Copies into and out of shared memory, on two cores for "
            f"{branches + 1} processes.",
            **shared,
        ),
        Row(
            what=f"{branches} branches, share of memcpy",
            peer=values["memcpy"],
            peer_is="np.copyto",
            target=MEMCPY,
            limits="Every matrix is written to shared memory, read for the mean, and the mean "
            "copied by each branch: more than one pass over the bytes counted.",
            **shared,
        ),
    ]


def _memory(branches: int, rows: int) -> tuple[Row, dict[str, float]]:
    """Sample the aggregator's memory during exchanges."""
    peaks = {"RssAnon": 0.0, "RssShmem": 0.0}
    with stand_in_cohort(branches, rows) as cohort:
        import ray

        pid = ray.get(cohort._aggregators[0].__ray_call__.remote(lambda actor: os.getpid()))
        idle = status_mb("RssAnon", pid)
        over = threading.Event()

        def sample() -> None:
            while not over.wait(0.002):
                for field in peaks:
                    peaks[field] = max(peaks[field], status_mb(field, pid))

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            for _ in range(2):
                exchange(cohort)
        finally:
            over.set()
            thread.join()
    matrices = branches * rows * CLASSES * 4 / 1e6
    row = Row(
        what=f"aggregator's private memory during an exchange of {rows:,} clips by {branches} "
        "branches, beside their matrices",
        unit="MB",
        ours=[peaks["RssAnon"] - idle],
        peer=[matrices],
        peer_is="all matrices",
    )
    return row, {
        "idle RssAnon": idle,
        "matrices": matrices,
        **{f"peak {k}": peaks[k] for k in peaks},
    }


def _expected(branches: int, rows: int) -> float:
    total = soft_labels(0, rows, CLASSES)
    for branch in range(1, branches):
        total += soft_labels(branch, rows, CLASSES)
    return check_sum(total * np.float32(1 / branches))


def _memcpy() -> float:
    """Bytes copied a second between warm arrays, in GB."""
    if not _ARRAYS:
        _ARRAYS.extend(np.ones(50_000_000, np.float32) for _ in range(2))
    source, target = _ARRAYS
    times = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - began)
    return float(source.nbytes / sorted(times)[2] / 1e9)


_ARRAYS: list[Any] = []


def exchange(cohort: Any) -> tuple[float, list[float]]:
    """One round; return its seconds and the check sum of what every branch then has."""
    import ray

    began = time.perf_counter()
    cohort.distil(cohort.average(cohort.soft_labels(1.0)), 1.0, 1)
    ray.get(cohort.submitted)
    seconds = time.perf_counter() - began
    cohort.submitted = []
    return seconds, ray.get([branch.held_out_accuracy.remote() for branch in cohort._branches])


@contextmanager
def stand_in_cohort(
    branches: int, rows: int, stand_in: type[Labels] | None = None
) -> Iterator[Any]:
    """Yield a RayCohort whose branches hold random soft labels and train nothing.

    Args:
        branches: number of actors that stand in for branches.
        rows: N, clips.
        stand_in: what each of them holds; by default `Labels`.
    """
    with cluster(cpus=branches + 1):
        from mrkd_ray.distributed.ray_cohort import Actors

        with stand_ins(branches, rows, None, Actors.start([]).aggregators, stand_in) as cohort:
            yield cohort


@contextmanager
def stand_ins(
    branches: int,
    rows: int,
    group: Any,
    aggregators: tuple[Any, ...],
    stand_in: type[Labels] | None = None,
) -> Iterator[Any]:
    """Yield a cohort as `stand_in_cohort` does, on the cluster that this process is connected to.

    Args:
        branches, rows, stand_in: as there.
        group: placement group with a bundle for each branch; None: wherever there is room.
        aggregators: handles.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from mrkd_ray.distributed.actors import BranchActor
    from mrkd_ray.distributed.ray_cohort import Actors, RayCohort

    class StandIn(BranchActor):
        def start(self, task: BranchTask, found: Path | None) -> None:
            self._branch = (stand_in or Labels)(task)  # type: ignore[assignment]

    def place(i: int) -> dict[str, Any]:
        if group is None:
            return {}
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, i)}

    tasks = _tasks(branches, rows)
    specs = tuple(task.spec for task in tasks)
    handles = tuple(
        ray.remote(StandIn).options(num_cpus=1, **place(i)).remote(spec)
        for i, spec in enumerate(specs)
    )
    with tempfile.TemporaryDirectory() as folder:
        cohort = RayCohort(Actors(specs, handles, aggregators), tasks, Path(folder))
        ray.get(cohort.submitted)
        cohort.submitted = []
        yield cohort


def _tasks(branches: int, rows: int) -> list[BranchTask]:
    part = Part(clip_ids=tuple(map(str, range(rows))), labels=np.zeros(rows, np.int64))
    none = Part(clip_ids=(), labels=np.zeros(0, np.int64))
    return [
        BranchTask(
            name=str(branch),
            spec=BranchSpec(representation="logmel64", network="resnet_small"),
            training=parse(Training, {"average": "mean"}, "benchmarks"),  # as the peers
            store=None,  # type: ignore[arg-type]
            classes=tuple(map(str, range(CLASSES))),
            train=part,
            held_out=none,
            test=none,
            fold=1,
            seed=branch,
        )
        for branch in range(branches)
    ]


class Labels:
    """In a branch's place: soft labels that are there already, and the teacher as it arrived."""

    def __init__(self, task: BranchTask) -> None:
        self._soft = soft_labels(task.seed, len(task.train.clip_ids), CLASSES)
        self._teacher: Any = None

    def soft_labels(self, temperature: float) -> Any:
        """Return float32 [N, M]."""
        return self._soft

    def distil(self, teacher: Any, temperature: float, epochs: int) -> None:
        """Keep the teacher, an array of the actor's own."""
        self._teacher = teacher

    def held_out_accuracy(self) -> float:
        """Return a check sum of the teacher, by a method that a branch has."""
        return check_sum(self._teacher)
