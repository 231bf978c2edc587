"""The Ray cluster of a run: started here or joined, what fits on it, and a map over its CPUs."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from mrkd_ray.common.environment import cpus
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.parallel_map import X, Y
from mrkd_ray.distributed import sessions

SLOW_START = "timed out during startup"  # of Ray's message, whose limit of 30 s cannot be set


@dataclass(frozen=True)
class Cluster:
    """What a run has: the CPUs and GPUs of every node, and the dashboard's address, if any."""

    nodes: tuple[tuple[float, float], ...]  # (CPUs, GPUs) of each living node
    dashboard: str | None

    @property
    def cpus(self) -> float:
        """CPUs of all nodes."""
        return sum(cpus for cpus, _ in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(gpus for _, gpus in self.nodes)

    def gpus_per_branch(self, branches: int) -> float:
        """One GPU a branch, an equal share where there are fewer GPUs, 0 where there are none."""
        if self.gpus >= branches:
            return 1.0
        if self.gpus < 1:
            return 0.0
        per_card = -(-branches // int(self.gpus))
        return 10_000 // per_card / 10_000  # Ray counts in units of 0.0001

    def room(self, cpus: float, gpus: float) -> int:
        """Return how many branches of this size run at once."""
        return sum(_room(node, cpus, gpus) for node in self.nodes)

    def check_fits(self, cell: str, branches: int, cpus: float, gpus: float) -> None:
        """Refuse a cell that would wait for ever.

        Raises:
            UserError: names what is missing and what to change.
        """
        placed = self.room(cpus, gpus)
        if placed < branches:
            needs = f"{cpus:g} CPU(s)" + (f" and {gpus:g} GPU(s)" if gpus else "")
            raise UserError(
                f"cell {cell} can never start: each of its {branches} branches needs {needs}, and "
                f"the cluster has room for {placed} ({self.cpus:g} CPUs and {self.gpus:g} GPUs on "
                f"{len(self.nodes)} node(s)). Lower --cpus-per-branch or --gpus-per-branch "
                f"(a fraction shares a card), use fewer branches, or add nodes (an autoscaling "
                f"cluster has none until they are asked for: see the top of cluster.yaml)."
            )


@contextmanager
def connect(address: str | None, min_cpus: int) -> Iterator[Cluster]:
    """Join the cluster at `address`, or start one here, and leave or end it afterwards.

    Args:
        address: "auto", HOST:PORT or ray://HOST:PORT; None starts a cluster on this machine.
        min_cpus: logical CPUs that a cluster started here has at least, so that a cohort larger
            than the machine still runs, its branches taking turns.

    Raises:
        UserError: no cluster answers at `address`, or none could be started in time.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a user's own choice stays
    os.environ.setdefault("RAY_worker_niceness", "0")  # training is the main job here
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Soft labels give their memory to the next cycle's: pages that are in use already are fast.
    os.environ.setdefault("RAY_free_objects_period_milliseconds", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if address:
        try:
            _knock(address)
            context = ray.init(address=address, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--address {address}: no Ray cluster answers there ({error}). Start one with "
                f"`ray start --head` or `ray up cluster.yaml`, or leave --address out."
            ) from None
    else:
        try:
            context = ray.init(
                address="local",
                num_cpus=min_cpus if min_cpus > cpus() else None,  # None: Ray counts
                include_dashboard=True,
                **options,
            )
            sessions.mark(Path(context.address_info["session_dir"]))  # type: ignore[attr-defined]
        except Exception as error:
            if SLOW_START not in str(error):
                raise
            raise UserError(
                "Ray did not start within the 30 s that it gives itself: this machine is too busy, "
                "or its disk slow. Try again, now that Ray's files have been read once, or train "
                "without Ray, in one process: --runner local."
            ) from None
    main = threading.current_thread() is threading.main_thread()
    if main and callable(on_sigterm):  # in place of Ray's, which unwinds nothing
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        sizes = tuple((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes)
        url = context.dashboard_url
        yield Cluster(sizes, f"http://{url}" if url else None)
    finally:
        ray.shutdown()


def ray_map(function: Callable[[X], Y], items: Sequence[X], gpus: float = 0) -> Iterator[Y]:
    """Apply a function to every item in Ray tasks; yield the results as they come, in any order.

    Args:
        function: picklable.
        items: its arguments.
        gpus: of each task.

    Raises:
        UserError: as raised by the function, without Ray's traceback around it.
    """
    task = ray.remote(function).options(num_gpus=gpus)
    waiting = deque(items)
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    limit = 2 * max(1, int(resources.get("CPU", 1)))
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                running.append(task.remote(waiting.popleft()))
            (ready,), running = ray.wait(running, num_returns=1)
            yield ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    finally:
        for ref in running:
            ray.cancel(ref, force=True)


def _room(node: tuple[float, float], cpus: float, gpus: float) -> int:
    """Return how many branches a node holds; a share of a GPU lies on one card."""
    room = int(node[0] // cpus)
    if gpus == 0:
        return room
    return min(room, int(node[1]) * int(1 / gpus + 1e-9) if gpus < 1 else int(node[1] // gpus))


def _knock(address: str) -> None:
    """Raise OSError or ValueError at once where nothing listens: Ray itself tries for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10):
        pass
