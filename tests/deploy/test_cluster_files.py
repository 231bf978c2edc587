"""The files for clouds and for machines of one's own are what `ray up` takes.

The schema, its checks and the autoscaler's decisions are private modules of Ray; no public function
asks them without starting a cluster, so this test, and only this one, imports them.
"""

import copy
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.schema import AutoscalerInstance
from ray.core.generated.autoscaler_pb2 import (
    BundleSelector,
    GangResourceRequest,
    NodeState,
    NodeStatus,
    ResourceRequest,
)
from ray.core.generated.instance_manager_pb2 import Instance, NodeKind

from mrkd_ray.distributed.cluster import Node
from mrkd_ray.distributed.tune_trials import placement_of

ROOT = Path(__file__).parents[2]
CLOUD = ("cluster.yaml", "deploy/cluster-gcp.yaml")
ALL = (*CLOUD, "deploy/cluster-onprem.yaml")
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
every_file = pytest.mark.parametrize("file", ALL)


def load(file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    return loaded


def validate(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does it: fill in the defaults, then check."""
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def commands(config: dict[str, Any]) -> list[str]:
    return [command for key in COMMANDS for command in config.get(key, ())]


def mounts(config: dict[str, Any]) -> dict[str, str]:
    return {
        remote.replace("/home/ubuntu", "~"): local
        for remote, local in config["file_mounts"].items()
    }


@pytest.mark.parametrize("file", CLOUD)
def test_ray_accepts_clouds(file: str) -> None:
    kinds = validate(load(file))["available_node_types"]
    assert kinds["head"]["max_workers"] == 0
    spot, on_demand = [kind for name, kind in kinds.items() if name != "head"]
    assert (spot["min_workers"], on_demand["min_workers"]) == (0, 0)
    assert spot["resources"] == on_demand["resources"]
    assert "spot" in str(spot["node_config"]).lower()
    assert "spot" not in str(on_demand["node_config"]).lower()


def launched(file: str, cells: int, unavailable: str = "") -> dict[str, int]:
    """What Ray's autoscaler starts for cells of two branches, while there is only a head."""
    kinds = {
        name: NodeTypeConfig(
            name=name,
            min_worker_nodes=kind["min_workers"],
            max_worker_nodes=kind["max_workers"],
            priority=kind.get("priority", 0),
            resources=kind["resources"] or RESOURCES[name],
        )
        for name, kind in validate(load(file))["available_node_types"].items()
    }
    own = Node("x", "node:10.0.0.1")
    there = {**kinds["head"].resources, own.resource: 1.0}
    node = NodeState(node_id=b"x" * 28, ray_node_type_name="head", status=NodeStatus.IDLE)
    node.total_resources.update(there)
    node.available_resources.update(there)
    bundles = placement_of(2, 1, 1.0, [(8.0, 0.0)], own).bundles
    requests = [ResourceRequest(resources_bundle=bundle) for bundle in bundles]
    gang = GangResourceRequest(requests=requests)
    gang.bundle_selectors.append(BundleSelector(resource_requests=requests))
    instance = Instance(instance_id="h", cloud_instance_id="h", instance_type="head")
    instance.status, instance.node_kind = Instance.RAY_RUNNING, NodeKind.HEAD
    head = AutoscalerInstance(cloud_instance_id="h", ray_node=node, im_instance=instance)
    log = SimpleNamespace(log_cluster_scheduling_update=lambda **_: None)
    reply = ResourceDemandScheduler(log).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=kinds,
            max_num_nodes=load(file)["max_workers"],
            gang_resource_requests=[gang] * cells,
            current_instances=[head],
            recoverable_resource_availabilities={unavailable: 0.0},
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


RESOURCES = {  # which Ray asks AWS for
    "head": {"CPU": 8},
    "gpu_spot": {"CPU": 4, "GPU": 1},
    "gpu_on_demand": {"CPU": 4, "GPU": 1},
}


@pytest.mark.parametrize("file", CLOUD)
def test_cells_that_wait_are_given_spot_machines_and_others_where_there_are_none(file: str) -> None:
    assert launched(file, cells=1) == {"gpu_spot": 2}
    assert launched(file, cells=3) == {"gpu_spot": 6}
    assert launched(file, cells=3, unavailable="gpu_spot") == {"gpu_on_demand": 6}


def test_ray_accepts_machines_of_ones_own() -> None:
    config = load("deploy/cluster-onprem.yaml")
    (kind,) = validate(config)["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(config["provider"]["worker_ips"])


ANYWHERE = [
    (("max_worker",), 8),
    (("max_workers",), "8"),
    (("auth", "user"), "ubuntu"),
    (("rsync_exclude",), "__pycache__"),
    (("idle_timeout",), 10),
    (("setup_command",), ["true"]),
]
IN_A_CLOUD = [
    (("head_node_type",), "heads"),
    (("available_node_types", "gpu_spot", "max_workers"), "8"),
    (("available_node_types", "gpu_spot", "instance"), "g5.xlarge"),
    (("available_node_types", "gpu_spot", "min_workers"), 9),
]
MUTATIONS = [(file, *mutation) for file in ALL for mutation in ANYWHERE]
MUTATIONS += [(file, *mutation) for file in CLOUD for mutation in IN_A_CLOUD]


@pytest.mark.parametrize(("file", "path", "value"), MUTATIONS)
def test_ray_refuses_a_mutation(file: str, path: tuple[str, ...], value: object) -> None:
    config = load(file)
    if path == ("max_workers",) and config["provider"]["type"] == "local":
        pytest.skip("there the number of addresses is the number of workers")
    *parents, last = path
    inner = config
    for key in parents:
        inner = inner[key]
    inner[last] = value
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate(config)


@pytest.mark.parametrize("key", ["head_ip", "worker_ips"])
def test_ray_refuses_misspelled_addresses(key: str) -> None:
    config = load("deploy/cluster-onprem.yaml")
    config["provider"][f"{key}s"] = config["provider"].pop(key)
    with pytest.raises(click.ClickException):
        validate(config)


@every_file
def test_mounted_parts_of_the_project_exist(file: str) -> None:
    local = [path for path in load(file)["file_mounts"].values() if not path.startswith("~")]
    # What the user's own environment says, by the command at the file's top.
    local.remove("deploy/versions.txt")
    assert "> deploy/versions.txt" in (ROOT / file).read_text()
    assert {path for path in local if not (ROOT / path).exists()} == set()
    # Installing there needs what pyproject.toml reads here.
    assert {"mrkd_ray", "pyproject.toml", "README.md", "LICENSE"} <= set(local)


@every_file
def test_paths_in_commands_are_mounted(file: str) -> None:
    config, text = load(file), (ROOT / file).read_text()
    mounted = mounts(config)
    paths = re.findall(r"~/mrkd_ray\S*", "\n".join(commands(config)))
    assert "~/mrkd_ray/versions.txt" in paths
    for path in paths:
        assert any(mount.startswith(path) for mount in mounted), path
    typed = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert re.findall(r"\S+\.py\b", typed)[:1] == ["experiments/run_grid.py"]
    assert mounted["~/mrkd_ray/experiments"] == "experiments"
    for path in re.findall(r"mrkd_ray/(\S+\.yaml)", typed):
        assert (ROOT / path).exists()


@every_file
def test_the_commands_at_the_top_name_the_file_itself(file: str) -> None:
    typed = re.findall(r"^#   ray (\S+) (\S+)", (ROOT / file).read_text(), re.MULTILINE)
    named = [(word, given) for word, given in typed if word != "get-auth-token"]
    assert {given for _, given in named} == {file}
    assert {"up", "rsync-down", "down"} <= {word for word, _ in named}


@pytest.mark.parametrize("file", CLOUD)
def test_the_shared_folder_is_in_the_region_of_the_nodes(file: str) -> None:
    config = load(file)
    region = config["provider"]["region"]
    assert any(" mount -t nfs" in command for command in config["setup_commands"])
    if config["provider"]["type"] == "aws":
        assert any(f".efs.{region}." in command for command in config["setup_commands"])
    assert all(
        zone.startswith(region) for zone in config["provider"]["availability_zone"].split(",")
    )


@every_file
def test_every_node_starts_ray_alike(file: str) -> None:
    config = load(file)
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert "--head" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker
    for command in (head, worker):
        start = command.index("ray start")
        assert command.index("RAY_worker_niceness=0") < start
        assert command.index("RAY_USAGE_STATS_ENABLED=0") < start
        assert "--metrics-export-port=" in command
    assert config["file_mounts"][next(m for m in config["file_mounts"] if "auth_token" in m)]


@every_file
def test_shell_accepts_the_commands(file: str) -> None:
    for command in commands(load(file)):
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert checked.returncode == 0, f"{command}: {checked.stderr}"


@every_file
def test_new_shells_work_before_and_after_the_environment_is_made(
    file: str, tmp_path: Path
) -> None:
    """Ray runs `source ~/.bashrc && command`: a last line that fails would stop everything."""
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    def run(command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, text=True, check=True
        ).stdout

    (tmp_path / ".bashrc").touch()
    for _ in range(2):  # the second `ray up` adds nothing
        for command in load(file)["initialization_commands"]:
            run(command)
    assert len((tmp_path / ".bashrc").read_text().splitlines()) == 2
    assert run("source ~/.bashrc && echo $RAY_AUTH_MODE") == "token\n"
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").write_text("export ENTERED=yes\n")
    assert run("source ~/.bashrc && echo $ENTERED") == "yes\n"
