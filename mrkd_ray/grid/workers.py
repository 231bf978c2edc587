"""Where work is done: in this process, or on a Ray cluster that starts while other things go on."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from mrkd_ray.common.parallel_map import serial_map
from mrkd_ray.config.run import Processes

Map = Callable[..., Iterator[Any]]  # a MapFn for any items: Python has no generic parameters

VARIABLE = "RAY_ADDRESS"  # by which Ray's users name their cluster

WORTH = 15.0
"""Seconds of work in this process from which a cluster is started for the rest of it."""


class Start:
    """A cluster that is started or joined in a thread of its own, at most once, where asked for.

    There Ray takes no signal: Ctrl-C and SIGTERM stay with this process's main thread. The thread
    stays until the cluster has ended: Linux kills Ray's processes with the thread that started
    them.

    Args:
        asked: which cluster.
        min_cpus: logical CPUs that a cluster started here has at least.
        tell: called with each line that people should know of the cluster, when it is there.
        trials: whether cells will run on it; what they need is imported meanwhile.
    """

    def __init__(
        self, asked: Processes, min_cpus: int, tell: Callable[[str], None], trials: bool
    ) -> None:
        self._asked, self._min_cpus, self._tell, self._trials = asked, min_cpus, tell, trials
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self._stack = ExitStack()
        self._cluster: Future[Any] | None = None
        self._told = False

    def begin(self) -> None:
        """Start it, if that was not done."""
        if self._cluster is None:
            self._cluster = self._thread.submit(self._enter)
            if self._trials:
                Thread(target=import_module, args=["mrkd_ray.distributed.tune_trials"]).start()

    @property
    def here(self) -> bool:
        """Whether it will be one of this machine alone, of which nothing needs to be asked."""
        return to_join(self._asked)[0] is None and "ray" not in sys.modules

    @property
    def ready(self) -> bool:
        """Whether it is there, or has failed to start."""
        return self._cluster is not None and self._cluster.done()

    def cluster(self) -> Any:
        """Wait for it; raises what `distributed.cluster.connect` raises."""
        self.begin()
        assert self._cluster is not None
        found = self._cluster.result()
        for line in () if self._told else found.lines:
            self._tell(line)
        self._told = True
        return found

    def close(self) -> None:
        """End it or leave it, also where it is still starting."""
        try:
            wait([self._cluster] if self._cluster else [])
            self._stack.close()
        finally:
            self._thread.shutdown()

    def _enter(self) -> Any:
        from mrkd_ray.distributed.cluster import connect

        address, source = to_join(self._asked)
        dashboard = self._asked.dashboard
        connection = connect(address, self._min_cpus, source=source, dashboard=dashboard)
        return self._stack.enter_context(connection)


def to_join(asked: Processes) -> tuple[str | None, str]:
    """Return the address of the cluster to join, None to start one here, and who gave it."""
    given = (asked.address, "--address") if asked.address else (os.getenv(VARIABLE), VARIABLE)
    address, source = given
    return (None if address in ("", "local") else address), source


@dataclass(frozen=True)
class Workers:
    """What does the work.

    Attributes:
        map: applies a function to items.
        start: of the Ray cluster; None in this process.
        gpus_per_branch: as asked for; None where the cluster decides.
    """

    map: Map
    start: Start | None = None
    gpus_per_branch: float | None = None

    @property
    def local(self) -> bool:
        """Whether branches take turns in this process."""
        return self.start is None

    @property
    def cluster(self) -> Any:
        """The mrkd_ray.distributed.cluster.Cluster, waited for; None in this process."""
        return self.start and self.start.cluster()

    @property
    def here(self) -> bool:
        """Whether a cluster is to be started on this machine, and of this machine alone."""
        return self.start is not None and self.start.here

    def begin(self) -> None:
        """Start what is to be started, in the background."""
        if self.start:
            self.start.begin()

    def map_from_here(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """Apply a function to items in this process, and on the cluster as soon as that is there.

        A cluster that nobody has begun is begun where the rest would take longer than its start.
        The results come in any order.
        """
        waiting = deque(items)
        done, since = 0, 0.0
        while waiting and not (self.start and self.start.ready):
            yield function(waiting.popleft())
            done += 1
            if done == 1:  # which had imports to wait for
                since = time.monotonic()
            elif (time.monotonic() - since) / (done - 1) * len(waiting) > WORTH:
                self.begin()
        if waiting:
            yield from self.map(function, list(waiting))

    def gpus(self, branches: int) -> float:
        """Return the GPUs of one branch actor in a cohort of so many branches."""
        if self.gpus_per_branch is not None or self.local:
            return self.gpus_per_branch or 0.0
        found: float = self.cluster.gpus_per_branch(branches)
        return found

    def cells_at_once(self, branches: int, cpus: int) -> int:
        """Return how many cells of so many branches, each with so many CPUs, run side by side."""
        if self.local:
            return 1
        room: int = self.cluster.room(cpus, self.gpus(branches))
        return room // branches


@contextmanager
def workers_of(
    asked: Processes,
    tell: Callable[[str], None],
    *,
    min_cpus: int = 1,
    gpus_per_branch: float | None = None,
    trials: bool = False,
    files: Sequence[Path] = (),
) -> Iterator[Workers]:
    """Yield what a run works on: a Ray cluster, or this process (`runner: local`).

    The cluster is started by the first that needs it, or by `Workers.begin`.

    Args:
        asked: the runner, and which cluster.
        tell: see `Start`.
        min_cpus: see `Start`.
        gpus_per_branch: see `Workers`.
        trials: see `Start`.
        files: what mapped functions read, where they need no GPU: nodes without them map nothing.
    """
    if asked.runner == "local":
        yield Workers(serial_map, gpus_per_branch=gpus_per_branch)
        return
    start = Start(asked, min_cpus, tell, trials)

    def on_cluster(function: Callable[[Any], Any], items: Sequence[Any], gpus: float = 0) -> Any:
        start.cluster()
        from mrkd_ray.distributed.cluster import ray_map

        return ray_map(function, items, gpus, () if gpus else files)

    try:
        yield Workers(on_cluster, start, gpus_per_branch)
    finally:
        start.close()
