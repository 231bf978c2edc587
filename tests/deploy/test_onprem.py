"""The commands of docs/how-to/cluster.md for machines of one's own, on three of them.

They are network namespaces of this one (`hosts`). They all see this environment, so nothing is
installed on them; everything else in `deploy/cluster-onprem.yaml` is as it is printed.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import FAST, ROOT
from tests.deploy import hosts as hosts_module
from tests.deploy.hosts import HOME, Hosts, hosts

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

RAY = Path(sys.executable).with_name("ray")
PATIENCE = 900  # s
LEFT = 120  # s after `ray down` until nothing runs
LOGS = 50e6  # bytes that Ray leaves in /tmp/ray
NOTICE = "RAY_gcs_rpc_server_reconnect_timeout_s=5"  # s until a worker ends without the first; 60
THERE = (
    "import ray; ray.init('auto', log_to_driver=False); "
    "[None for _ in iter(lambda: sum(n['Alive'] for n in ray.nodes()) < {count}, False)]"
)
SHORT = ["--cycles", "2", "--batch-size", str(FAST["batch_size"]), "--folds", "1,2"]


@dataclass(frozen=True)
class Command:
    """Runs a command of `ray` in the checkout, as its user; returns what it printed."""

    env: dict[str, str]

    def __call__(self, *words: str) -> str:
        print("+ ray", shlex.join(words), flush=True)
        done = subprocess.run(
            [str(RAY), *words],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        print(done.stdout[-3000:], done.stderr[-3000:], flush=True)
        assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if why := hosts_module.lacking():
        pytest.skip(why)
    with hosts(3, tmp_path_factory.mktemp("key") / "id") as found:
        yield found


@pytest.fixture(scope="module")
def file(three: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`deploy/cluster-onprem.yaml` with what is marked SET; nothing is installed."""
    folder = tmp_path_factory.mktemp("cluster")
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy/cluster-onprem.yaml").read_text())
    first, *others = [host.address for host in three.hosts]
    config["provider"] |= {"head_ip": first, "worker_ips": others}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(three.key)}
    config["setup_commands"] = []
    start = config["worker_start_ray_commands"]
    start[-1] = f"export {NOTICE}; {start[-1]}"
    (folder / "versions.txt").touch()
    config["file_mounts"]["~/mrkd_ray/versions.txt"] = str(folder / "versions.txt")
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """`ray` with a home and a token of its own."""
    home = tmp_path_factory.mktemp("home")
    own = {"HOME": str(home), "RAY_TMPDIR": str(home), "RAY_AUTH_MODE": "token"}
    env = {**os.environ, **own, "RAY_USAGE_STATS_ENABLED": "0"}
    env.pop("RAY_AUTH_TOKEN", None)

    command = Command(env)
    command("get-auth-token", "--generate")
    return command


@contextmanager
def dashboard(file: Path, env: dict[str, str]) -> Iterator[str]:
    """The address at which `ray dashboard` brings the cluster's here."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(RAY), "dashboard", str(file), "--port", str(port)]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=nowhere, stderr=nowhere, start_new_session=True
    )
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield f"http://localhost:{port}"
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: its SSH client is to end too
    process.wait()


def test_a_grid_on_three_machines_from_up_to_down(
    three: Hosts, file: Path, ray: Command, clips: Path, tmp_path: Path
) -> None:
    head, *workers = three.hosts
    ray("up", "-y", str(file))
    try:
        python = shlex.join(["python", "-c", THERE.format(count=3)])
        ray("exec", str(file), python)  # which ends when all are there
        assert "3 local.cluster.node" in ray("exec", str(file), "ray status")
        ray("rsync-up", str(file), f"{clips}/", "my_clips/")
        grid = "mrkd_ray/experiments/grids/small.yaml"
        where = ["--address", "auto", "--data", "my_clips", "--output", "results"]
        ray("submit", str(file), "experiments/run_grid.py", grid, *where, *SHORT)
        ray("rsync-down", str(file), "results/", f"{tmp_path}/results/")
        with dashboard(file, ray.env) as address:
            there = ["--cache", f"{HOME}/cache", "--output", f"{HOME}/of_job"]
            job = ["python", "experiments/run_grid.py", "--address", "auto", *there]
            job += ["--data", f"{HOME}/my_clips", *SHORT]
            ray("job", "submit", "--address", address, "--working-dir", ".", "--", *job)
    finally:
        ray("down", "-y", str(file))
    assert len(list(head.home.glob("of_job/*/cells/*/result.json"))) == 6
    results = list(tmp_path.glob("results/*/cells/*/result.json"))
    assert len(results) == 6, results  # of two folds the cohort, and two branches alone
    assert len(list(tmp_path.glob("results/*/table.csv"))) == 1
    worked = [host for host in workers if list(host.home.glob("**/features"))]
    assert worked, "all branches ran on the first machine"
    assert not list(head.home.glob(".mrkd*"))
    nothing_is_left(three)


def nothing_is_left(three: Hosts) -> None:
    """Nothing runs on the hosts, nothing is in shared memory, and of files there are logs only."""
    for host in three.hosts:
        deadline = time.monotonic() + LEFT
        while left := host.processes():  # of a worker, until it has noticed
            assert time.monotonic() < deadline, (host.address, left)
            time.sleep(0.2)
        assert host.shared_memory() == []
        temporary = host.temporary()
        assert {name.partition("_")[0] for name in temporary} <= {"ray"}, temporary
        assert sum(temporary.values()) < LOGS, temporary
