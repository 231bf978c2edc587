"""Where work is done: in this process, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mrkd_ray.common.parallel_map import serial_map
from mrkd_ray.config.run import Run

Map = Callable[..., Iterator[Any]]  # a MapFn for any items: Python has no generic parameters


@dataclass(frozen=True)
class Workers:
    """Where work is done: a map over items, and the cluster, None in this process."""

    map: Map
    cluster: Any = None  # mrkd_ray.distributed.cluster.Cluster, which needs Ray


@contextmanager
def workers_of(config: Run, largest: int) -> Iterator[Workers]:
    """Start or join what a run works on; `largest` is the number of branches of its cohorts."""
    if config.runner == "local":
        yield Workers(serial_map)
        return
    from mrkd_ray.distributed.cluster import connect, ray_map

    with connect(config.address, min_cpus=largest * config.cpus_per_branch) as cluster:
        yield Workers(ray_map, cluster)
