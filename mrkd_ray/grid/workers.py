"""Where work is done: in this process, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mrkd_ray.common.parallel_map import serial_map

Map = Callable[..., Iterator[Any]]  # a MapFn for any items: Python has no generic parameters


@dataclass(frozen=True)
class Workers:
    """What does the work.

    Attributes:
        map: applies a function to items.
        cluster: mrkd_ray.distributed.cluster.Cluster, which needs Ray; None in this process.
        gpus_per_branch: as asked for; None where the cluster decides.
    """

    map: Map
    cluster: Any = None
    gpus_per_branch: float | None = None

    @property
    def local(self) -> bool:
        """Whether branches take turns in this process."""
        return self.cluster is None

    def gpus(self, branches: int) -> float:
        """Return the GPUs of one branch actor in a cohort of so many branches."""
        if self.gpus_per_branch is not None or self.cluster is None:
            return self.gpus_per_branch or 0.0
        found: float = self.cluster.gpus_per_branch(branches)
        return found

    def cells_at_once(self, branches: int, cpus: int) -> int:
        """Return how many cells of so many branches, each with so many CPUs, run side by side."""
        if self.cluster is None:
            return 1
        room: int = self.cluster.room(cpus, self.gpus(branches))
        return room // branches


@contextmanager
def workers_of(
    runner: str,
    address: str | None = None,
    *,
    min_cpus: int = 1,
    gpus_per_branch: float | None = None,
) -> Iterator[Workers]:
    """Start or join what a run works on: a Ray cluster, or this process (`runner: local`).

    Args:
        runner: `ray` or `local`.
        address: of a running cluster; None starts one on this machine.
        min_cpus: logical CPUs that a cluster started here has at least.
        gpus_per_branch: see `Workers`.
    """
    if runner == "local":
        yield Workers(serial_map, gpus_per_branch=gpus_per_branch)
        return
    from mrkd_ray.distributed.cluster import connect, ray_map

    with connect(address, min_cpus) as cluster:
        yield Workers(ray_map, cluster, gpus_per_branch)
