"""`cluster.yaml` is what `ray up` takes.

The schema and its checks are private modules of Ray; no public function validates without
starting a cluster, so this test, and only this one, imports them.
"""

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
FILE = ROOT / "cluster.yaml"
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def validate(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does it: fill in the defaults, then check."""
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    prepared = validate(config)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0
    assert prepared["available_node_types"]["gpu_worker"]["min_workers"] == 0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("max_worker",), 8),
        (("max_workers",), "8"),
        (("head_node_type",), "heads"),
        (("available_node_types", "gpu_worker", "max_workers"), "8"),
        (("available_node_types", "gpu_worker", "instance"), "g5.xlarge"),
        (("available_node_types", "gpu_worker", "min_workers"), 9),
        (("auth", "user"), "ubuntu"),
        (("rsync_exclude",), "__pycache__"),
    ],
)
def test_ray_refuses_a_mutation(
    config: dict[str, Any], path: tuple[str, ...], value: object
) -> None:
    *parents, last = path
    inner = config
    for key in parents:
        inner = inner[key]
    inner[last] = value
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate(config)


def test_mounted_parts_of_the_project_exist(config: dict[str, Any]) -> None:
    local = [path for path in config["file_mounts"].values() if not path.startswith("~")]
    assert {path for path in local if not (ROOT / path).exists()} == set()
    # Installing there needs what pyproject.toml reads here.
    assert {"mrkd_ray", "pyproject.toml", "README.md", "LICENSE"} <= set(local)


def test_paths_in_commands_are_mounted(config: dict[str, Any]) -> None:
    comments = "\n".join(line for line in FILE.read_text().splitlines() if line.startswith("#"))
    commands = [command for key in COMMANDS for command in config.get(key, ())]
    mounts = {
        remote.replace("/home/ubuntu", "~"): local
        for remote, local in config["file_mounts"].items()
    }
    for path in re.findall(r"~/mrkd_ray\S*", "\n".join(commands)):
        assert any(mount.startswith(path) for mount in mounts), path
    scripts = re.findall(r"python ([\w/]+\.py)", comments)
    assert scripts == ["experiments/run_grid.py"]
    for script in scripts:
        assert (ROOT / script).exists()
        assert f"~/mrkd_ray/{Path(script).parts[0]}" in mounts


def test_every_node_sees_the_shared_folder(config: dict[str, Any]) -> None:
    assert any(" mount -t nfs4" in command for command in config["setup_commands"])
    region = config["provider"]["region"]
    assert any(f".efs.{region}." in command for command in config["setup_commands"])
    assert all(
        zone.startswith(region) for zone in config["provider"]["availability_zone"].split(",")
    )


def test_every_node_starts_ray_alike(config: dict[str, Any]) -> None:
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert "--head" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker
    for command in (head, worker):
        assert command.index("RAY_worker_niceness=0") < command.index("ray start")
        assert "--metrics-export-port=" in command


def test_shell_accepts_the_commands(config: dict[str, Any]) -> None:
    for key in COMMANDS:
        for command in config[key]:
            checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
            assert checked.returncode == 0, f"{key}: {command}: {checked.stderr}"


def test_new_shells_work_before_and_after_the_environment_is_made(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Ray runs `source ~/.bashrc && command`: a last line that fails would stop everything."""
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    def run(command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, text=True, check=True
        ).stdout

    (tmp_path / ".bashrc").touch()
    for _ in range(2):  # the second `ray up` adds nothing
        for command in config["initialization_commands"]:
            run(command)
    assert len((tmp_path / ".bashrc").read_text().splitlines()) == 2
    assert run("source ~/.bashrc && echo $RAY_AUTH_MODE") == "token\n"
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").write_text("export ENTERED=yes\n")
    assert run("source ~/.bashrc && echo $ENTERED") == "yes\n"
