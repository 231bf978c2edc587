"""`RAY_TMPDIR=... python -m tests.distributed.two_nodes`: a head without CPUs and two nodes.

Its first line has the address and the process of each node; for every line that it reads it
answers what is alive in the cluster, and when there are no more it ends the cluster.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster


def main() -> None:
    common: dict[str, Any] = {"include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**common, "num_cpus": 0})
    nodes = [cluster.add_node(**common, num_cpus=2) for _ in range(2)]
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    for _ in sys.stdin:
        actors = cluster.global_state.actor_table(None, None, None).values()
        groups = cluster.global_state.placement_group_table().values()
        alive = [actor["ActorClassName"] for actor in actors if actor["State"] != "DEAD"]
        held = [group["name"] for group in groups if group["state"] != "REMOVED"]
        print(json.dumps(alive + held), flush=True)
    for node in nodes:
        cluster.remove_node(node, allow_graceful=False)
    cluster.remove_node(cluster.head_node, allow_graceful=False)


if __name__ == "__main__":
    main()
