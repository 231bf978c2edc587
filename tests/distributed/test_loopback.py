"""A cluster that a run starts is closed to other machines, and to those without its token."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mrkd_ray.distributed import loopback

STARTED = """
import json, os, sys
import psutil, requests
from mrkd_ray.distributed.cluster import connect
import ray

with connect(None, 1) as cluster:
    @ray.remote
    def one():
        return 1
    assert ray.get(one.remote()) == 1
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = set()
    for process in processes:
        try:
            listening = process.net_connections("inet")
        except psutil.Error:
            continue
        found |= {c.laddr.ip for c in listening if c.status == "LISTEN"}
    url = next(line for line in cluster.lines if "dashboard" in line).split()[2]
    jobs, token = f"{url}/api/jobs/", open(os.path.expanduser("~/.ray/auth_token")).read().strip()
    def status(**headers):
        return requests.get(jobs, headers=headers, timeout=30).status_code
    codes = [status(), status(Authorization="Bearer wrong")]
    codes.append(status(Authorization=f"Bearer {token}"))
    usage = os.environ["RAY_USAGE_STATS_ENABLED"]
print(json.dumps({"listening": sorted(found), "codes": codes, "usage": usage}))
"""


@pytest.mark.cluster
def test_it_listens_on_this_machine_alone_and_asks_for_its_token(tmp_path: Path) -> None:
    own = {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    others = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", STARTED],
        capture_output=True,
        text=True,
        timeout=300,
        env=others | own | {"RAY_worker_niceness": "0"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["listening"]
    assert {ip.removeprefix("::ffff:") for ip in found["listening"]} <= {"127.0.0.1", "::1"}
    assert found["codes"] == [401, 403, 200] or found["codes"] == [401, 401, 200]
    assert found["usage"] == "0"
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o077 == 0  # nobody else reads it


def test_what_the_user_opens_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loopback.REACHED, "1")
    monkeypatch.setenv(loopback.AUTH, "disabled")
    before = loopback.ray_constants.ENABLE_RAY_CLUSTER
    with loopback.closed():
        assert os.environ[loopback.REACHED] == "1"
        assert os.environ[loopback.AUTH] == "disabled"
        assert before is loopback.ray_constants.ENABLE_RAY_CLUSTER


def test_it_is_closed_only_as_long_as_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(loopback.REACHED, raising=False)
    monkeypatch.delenv(loopback.AUTH, raising=False)
    before = loopback.ray_constants.ENABLE_RAY_CLUSTER
    monkeypatch.setenv("HOME", str(tmp_path))
    with contextlib.suppress(KeyboardInterrupt), loopback.closed():
        assert os.environ[loopback.REACHED] == "0"
        assert os.environ[loopback.AUTH] == "token"
        assert loopback.ray_constants.ENABLE_RAY_CLUSTER is False
        raise KeyboardInterrupt
    assert loopback.REACHED not in os.environ
    assert before is loopback.ray_constants.ENABLE_RAY_CLUSTER


def test_ray_is_of_the_version_that_was_tested() -> None:
    named = map(Requirement, requires("mrkd-ray") or ())
    of_ray = [each for each in named if each.name == "ray"]
    assert of_ray
    assert all(each.specifier.contains(version("ray")) for each in of_ray)
    if any(str(each.specifier) != "==2.60.*" for each in of_ray):
        pytest.skip("the installed package's own metadata is of another commit")
