"""The Ray cluster of a run: started here or joined, what fits on it, and a map over its CPUs."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mrkd_ray.common import failures
from mrkd_ray.common.environment import cpus
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.parallel_map import X, Y
from mrkd_ray.distributed import sessions
from mrkd_ray.distributed.failures import cause
from mrkd_ray.distributed.gcs_watch import watched
from mrkd_ray.distributed.loopback import closed

SLOW_START = "timed out during startup"  # of Ray's message, whose limit of 30 s cannot be set
LONG_PATH = "AF_UNIX path length"
AUTOSCALING = "~/ray_bootstrap_config.yaml"  # where `ray up` writes it, on the head
_HEAD = "node:__internal_head__"
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}


@dataclass(frozen=True)
class Cluster:
    """What a run has: the CPUs and GPUs of every node, and what to tell people about it.

    Attributes:
        nodes: (CPUs, GPUs) of each node: those that live, and those that the autoscaler would
            start for cells that wait.
        lines: for people.
        alone: whether it is one node, started for this run, which no other joins.
    """

    nodes: tuple[tuple[float, float], ...]
    lines: tuple[str, ...] = ()
    alone: bool = False

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
                f"(a fraction shares a card), use fewer branches, or add nodes."
            )


@contextmanager
def connect(
    address: str | None, min_cpus: int, *, source: str = "--address", dashboard: bool = True
) -> Iterator[Cluster]:
    """Join a cluster, or start one here, and leave or end it afterwards.

    Where this process is connected to one already, that one is taken, and left as it is.

    Args:
        address: "auto", HOST:PORT or ray://HOST:PORT; None starts a cluster on this machine.
        min_cpus: logical CPUs that a cluster started here has at least, so that a cohort larger
            than the machine still runs, its branches taking turns.
        source: who gave the address, an option or a variable.
        dashboard: whether a cluster started here has Ray's dashboard.

    Raises:
        UserError: no cluster answers at the address, or none could be started in time.
    """
    if ray.is_initialized():
        if address and source == "--address":
            raise UserError(
                f"address {address}: this process is connected to a Ray cluster already. Leave it "
                "out to use that one, or call ray.shutdown() before."
            )
        yield Cluster(_reachable(), ("Ray cluster: the one that this process is connected to",))
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a user's own choice stays
    os.environ.setdefault("RAY_worker_niceness", "0")  # training is the main job here
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Soft labels give their memory to the next cycle's: pages that are in use already are fast.
    os.environ.setdefault("RAY_free_objects_period_milliseconds", "0")
    with nullcontext() if address else closed():
        yield from _connected(address, min_cpus, source, dashboard)


def _connected(
    address: str | None, min_cpus: int, source: str, dashboard: bool
) -> Iterator[Cluster]:
    try:
        with _sigterm_kept():
            made = _join(address, source) if address else _start(min_cpus, dashboard)
        lines = [f"Ray cluster: joined at {address} ({source})"] if address else []
        if url := made.dashboard_url:
            lines.append(f"Ray dashboard: http://{url}{_token()}")
        gcs = getattr(made, "address_info", {}).get("gcs_address")  # none of a ray:// client
        with watched(gcs) if gcs else nullcontext():
            yield Cluster(_reachable(), (*lines, *_prometheus()), alone=not address)
    finally:
        with _undisturbed():
            ray.shutdown()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Take no Ctrl-C and no SIGTERM: half a shutdown waits a minute for what it ended itself."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which gets no signals
        return
    taken = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in taken]
    try:
        yield
    finally:
        for number, handler in zip(taken, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep what SIGTERM does: ray.init makes it abort the process, which unwinds nothing.

    `signal.signal` may be called in the main thread only, what it calls anywhere.
    """
    get, set_ = ctypes.pythonapi.PyOS_getsig, ctypes.pythonapi.PyOS_setsig
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_int]
    set_.restype, set_.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    before = get(signal.SIGTERM)
    try:
        yield
    finally:
        set_(signal.SIGTERM, before)


def _join(address: str, source: str) -> Any:
    """Return Ray's context."""
    try:
        _knock(address)
        return ray.init(address=address, **QUIET)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{source} {address}: no Ray cluster answers there ({error}). Start one with "
            f"`ray start --head` or `ray up cluster.yaml`, or start one for this run alone: leave "
            f"--address out and RAY_ADDRESS unset, or --address local."
        ) from None


def _start(min_cpus: int, dashboard: bool) -> Any:
    """Return Ray's context."""
    try:
        context = ray.init(
            address="local",
            num_cpus=max(min_cpus, cpus()),  # Ray counts those that others may use, too
            include_dashboard=dashboard,
            **QUIET,
        )
        sessions.mark(Path(context.address_info["session_dir"]))  # type: ignore[attr-defined]
        return context
    except Exception as error:
        if LONG_PATH in str(error):
            raise UserError(
                f"{sessions.ray_folder()}: too long a path for Ray's sockets, which have 107 bytes "
                "in all. Set RAY_TMPDIR to a short folder on this machine, such as /tmp, or train "
                "without Ray, in one process: --runner local."
            ) from None
        if isinstance(error, OSError) and error.errno:
            raise UserError(
                f"Ray cannot start ({failures.reason(error)}): it writes to HOME "
                f"({Path.home()}) and to {sessions.ray_folder()}: set HOME and RAY_TMPDIR to "
                "folders that can be written to, or train without Ray: --runner local."
            ) from None
        if SLOW_START not in str(error):
            raise
        raise UserError(
            "Ray did not start within the 30 s that it gives itself: this machine is too busy, "
            "or its disk slow. Try again, now that Ray's files have been read once, or train "
            "without Ray, in one process: --runner local."
        ) from None


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Node:
    """A node of the cluster: its id, and the resource of which Ray gives it alone one."""

    id: str
    resource: str
    head: bool = False


def own_node() -> Node | None:
    """Return the node that this process runs on; None of a ray:// client, which is on none."""
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        return None
    own = ray.get_runtime_context().get_node_id()
    (resources,) = (node["Resources"] for node in _nodes() if node["NodeID"] == own)
    names = [name for name in resources if name.startswith("node:") and "__" not in name]
    return Node(own, names[0], head=_HEAD in resources)


def sizes() -> tuple[tuple[float, float], ...]:
    """Return the CPUs and GPUs of each living node."""
    found = [node["Resources"] for node in _nodes()]
    return tuple((size.get("CPU", 0.0), size.get("GPU", 0.0)) for size in found)


def _reachable() -> tuple[tuple[float, float], ...]:
    """Return the nodes that live, or those that there may be where the autoscaler can add some.

    What it can add is known on the head of a cluster that `ray up` has made.
    """
    own, file = own_node(), Path(AUTOSCALING).expanduser()
    if not (own and own.head and file.exists()):
        return sizes()
    config = yaml.safe_load(file.read_text())
    kinds, head = config["available_node_types"], config["head_node_type"]
    workers = [
        (float(kind["resources"].get("CPU", 0)), float(kind["resources"].get("GPU", 0)))
        for name, kind in kinds.items()
        for _ in range(kind.get("max_workers", 0))
        if name != head and kind.get("resources")
    ][: config["max_workers"]]
    if not workers:
        return sizes()
    (here,) = (node["Resources"] for node in _nodes() if node["NodeID"] == own.id)
    return ((here.get("CPU", 0.0), here.get("GPU", 0.0)), *workers)


def _token() -> str:
    """Say where the token is that the dashboard asks for, if it does."""
    if os.getenv("RAY_AUTH_MODE", "").lower() != "token":  # which ray.init sets
        return ""
    if "RAY_AUTH_TOKEN" in os.environ:
        return " (token: what RAY_AUTH_TOKEN holds)"
    file = os.getenv("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
    return f" (token: cat {file})"


def _prometheus() -> Iterator[str]:
    """Say where Prometheus finds what `telemetry` reports."""
    nodes = [node for node in _nodes() if node.get("MetricsExportPort")]
    if nodes:
        url = f"http://{nodes[0]['NodeManagerAddress']}:{nodes[0]['MetricsExportPort']}/metrics"
        others = f"; each of the {len(nodes)} nodes has such an address" if len(nodes) > 1 else ""
        yield f"Prometheus: {url} (ray_mrkd_*{others})"


def ray_map(
    function: Callable[[X], Y], items: Sequence[X], gpus: float = 0, files: Sequence[Path] = ()
) -> Iterator[Y]:
    """Apply a function to every item in Ray tasks; yield the results as they come, in any order.

    What a node that is lost was at is done again on another.

    Args:
        function: picklable.
        items: its arguments.
        gpus: of each task.
        files: what the function reads: only nodes on which all of them are take part, and this
            process where none of those has a CPU.

    Raises:
        UserError, OSError: as raised by the function, without Ray's traceback around it.
    """
    room = _room_for_tasks(files)
    if files and not room:
        yield from map(function, items)
        return
    task = ray.remote(function)
    waiting = deque(items)
    running: dict[Any, tuple[str, X]] = {}
    try:
        while waiting or running:
            for node in room:
                while waiting and sum(at == node for at, _ in running.values()) < room[node]:
                    item = waiting.popleft()
                    running[task.options(num_gpus=gpus, **_on(node)).remote(item)] = (node, item)
            (ready,), _ = ray.wait([*running], num_returns=1)
            node, item = running.pop(ready)
            try:
                result = ray.get(ready)
            except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
                waiting.append(item)
                del room[node]
                if not room:
                    raise
                continue
            yield result
    except ray.exceptions.RayTaskError as error:
        if failures.sentence(found := cause(error)):
            raise found from None
        raise
    finally:
        for ref in running:
            ray.cancel(ref, force=True)


def _room_for_tasks(files: Sequence[Path]) -> dict[str, int]:
    """Return how many tasks may wait or run at once on each node that has the files, by its id.

    Without files the one key is "", for wherever Ray puts a task.
    """
    cpus_of = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in _nodes()}
    if not files:
        return {"": 2 * max(1, sum(cpus_of.values()))}
    own = own_node()
    look = ray.remote(_all_there)
    seen = {
        node: node == (own and own.id)
        or ray.get(look.options(num_cpus=0, **_on(node)).remote(files))
        for node, count in cpus_of.items()
        if count
    }
    return {node: 2 * cpus_of[node] for node, found in seen.items() if found}


def _all_there(files: Sequence[Path]) -> bool:
    return all(path.exists() for path in files)


def _on(node: str) -> dict[str, Any]:
    """Return the option that keeps a task on a node; "" is any."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)} if node else {}


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
