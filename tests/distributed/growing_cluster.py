"""`RAY_TMPDIR=... python -m tests.distributed.growing_cluster FOLDER`: a cluster that grows.

FOLDER has `grid.json`, a grid's fields; its results are written there. The nodes have addresses of
their own on the loopback, and GPUs that are declared only. `said.json` has of each grid where every
branch ran, and in which order things happened. What a callback of the run does
here is done before the run's next step, so nothing is waited for by the clock.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster

from mrkd_ray.cells import tasks
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig

ONE = "logmel64:vgg_small"
TWO = "logmel64:vgg_small+cqt:vgg_small"
THREE = "logmel64:vgg_small+cqt:vgg_small+logmel64:resnet_small"
HOOK = "tests.distributed.growing_cluster.in_every_worker"
COMMON: dict[str, Any] = {"include_dashboard": False}

Hook = Callable[[str, int], None]
real_branch_tasks = tasks.branch_tasks


def on_cpus(*args: Any) -> list[Any]:
    return [replace(task, device="cpu") for task in real_branch_tasks(*args)]


def in_every_worker() -> None:
    """No card is behind the GPUs: branches that hold one compute on the CPU."""
    tasks.branch_tasks = on_cpus


def devices(_: object) -> list[str]:
    found: list[str] = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    return found


class Nodes:
    """The head, which has no CPU, and workers named A, B, C."""

    def __init__(self) -> None:
        self._cluster = Cluster(initialize_head=True, head_node_args={**COMMON, "num_cpus": 0})
        ray.init(
            address=self._cluster.address,
            runtime_env={"worker_process_setup_hook": HOOK},
            log_to_driver=False,
            logging_level="error",
        )
        self._nodes: dict[str, Any] = {}
        self._names = {self._cluster.head_node.node_id: "head"}

    def add(self, name: str, cpus: int, gpus: int) -> None:
        address = f"127.0.0.{2 + len(self._names)}"
        node = self._cluster.add_node(
            **COMMON, num_cpus=cpus, num_gpus=gpus, node_ip_address=address
        )
        self._nodes[name], self._names[node.node_id] = node, name

    def remove(self, name: str) -> None:
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def end(self) -> None:
        ray.shutdown()
        for name in list(self._nodes):
            self.remove(name)
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)

    def alive(self) -> list[dict[str, Any]]:
        """Of each process of a run that is there: class, branch, node and pid."""
        return [
            {
                "class": actor["ActorClassName"],
                "name": actor["Name"],
                "node": self._names[actor["Address"]["NodeID"]],
                "pid": actor["Pid"],
            }
            for actor in actors().values()
            if actor["State"] == "ALIVE"
        ]

    def placed(self) -> dict[str, list[Any]]:
        """Node and devices of each branch, node of the others."""
        found: dict[str, list[Any]] = {}
        for actor in self.alive():
            if actor["class"] == "BranchActor":
                handle = ray.get_actor(actor["name"])
                gpus = ray.get(handle.__ray_call__.remote(devices))
                found[actor["name"].partition(",")[0]] = [actor["node"], gpus]
            elif actor["class"] == "AggregatorActor":
                found.setdefault(actor["class"], []).append(actor["node"])
            else:
                found[actor["class"]] = [actor["node"]]
        return found


def run(values: dict[str, Any], name: str, hook: Hook, lost: Callable[[str], None]) -> None:
    """Run a grid; `hook` is called with a cell's key and cycle, before the cell's next step."""
    from mrkd_ray.distributed import tune_trials
    from mrkd_ray.grid.run import run as run_grid

    real = tune_trials.run_cells

    def run_cells(*args: Any, on_cycle: Any, on_retry: Any, **options: Any) -> Any:
        def cycle(key: str, rows: list[dict[str, Any]]) -> None:
            on_cycle(key, rows)
            hook(key, rows[0]["cycle"])

        def retry(key: str) -> None:
            on_retry(key)
            lost(key)

        return real(*args, on_cycle=cycle, on_retry=retry, **options)

    tune_trials.run_cells = run_cells
    try:
        run_grid(parse(GridConfig, {**values, "name": name}, "test"))
    finally:
        tune_trials.run_cells = real


def main(folder: Path) -> None:
    values = json.loads((folder / "grid.json").read_text())
    values |= {"folds": [1], "independent": False}
    nodes = Nodes()
    try:
        (folder / "said.json").write_text(json.dumps(said_of(nodes, values, folder)))
    finally:
        nodes.end()


def said_of(nodes: Nodes, values: dict[str, Any], folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = {"placed": {}, "events": []}

    def placed(name: str, cohort: str, **options: Any) -> None:
        def look(key: str, cycle: int) -> None:
            said["placed"].setdefault(name, nodes.placed())

        own = {"output": folder / name}  # else a cell that another grid has is taken over
        run({**values, **own, **options, "cohorts": [cohort]}, name, look, lambda key: None)

    nodes.add("A", cpus=3, gpus=1)
    placed("one", THREE)
    nodes.add("B", cpus=3, gpus=2)
    placed("two", THREE)
    nodes.add("C", cpus=1, gpus=1)
    placed("three", THREE)
    placed("packed", TWO)
    placed("parallel", ONE, gpus_per_branch=2)
    nodes.remove("B")
    nodes.remove("C")

    # A holds one cell. It stands still until the other has begun on a node that joins meanwhile,
    # and goes on when that node is gone again.
    order: list[str] = []
    stopped: list[int] = []

    def events(key: str, cycle: int) -> None:
        if key not in order:
            order.append(key)
        said["events"].append([order.index(key), cycle])
        if order.index(key) == 0 and cycle == 0:
            branches = [actor for actor in nodes.alive() if actor["class"] == "BranchActor"]
            stopped.extend(actor["pid"] for actor in branches)
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            nodes.add("D", cpus=3, gpus=0)
        if order.index(key) == 1 and cycle == 1 and stopped:
            where = [a["node"] for a in nodes.alive() if a["class"] == "BranchActor"]
            said["events"].append(where)
            nodes.remove("D")
            while stopped:
                os.kill(stopped.pop(), signal.SIGCONT)

    elastic: dict[str, Any] = {
        "cohorts": [THREE],
        "temperatures": [1, 2],
        "gpus_per_branch": 0,
        "cycles": 4,
    }
    elastic["output"] = folder / "elastic"
    lost = said["events"].append
    run({**values, **elastic}, "elastic", events, lambda key: lost(["lost", order.index(key)]))
    return said


if __name__ == "__main__":
    main(Path(sys.argv[1]))
