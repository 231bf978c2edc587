"""Shares of GPUs, and what fits, without a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.distributed.cluster import Cluster, Node, connect


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may be connected to a cluster: it is not seen, and not left."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)


@pytest.mark.parametrize(
    ("gpus", "branches", "share"),
    [(0, 2, 0.0), (1, 1, 1.0), (1, 2, 0.5), (1, 3, 0.3333), (2, 3, 0.5), (4, 2, 1.0), (4, 4, 1.0)],
)
def test_a_branch_takes_one_gpu_or_an_equal_share(gpus: float, branches: int, share: float) -> None:
    cluster = Cluster(((8.0, gpus),))
    assert cluster.gpus_per_branch(branches) == share
    cluster.check_fits("c", branches, 1, share)


def test_bundles_must_fit_into_nodes_and_not_only_into_the_sum() -> None:
    cluster = Cluster(((4.0, 1.0), (4.0, 1.0)))
    cluster.check_fits("c", 2, 4, 1.0)
    cluster.check_fits("c", 4, 2, 0.5)
    with pytest.raises(UserError, match="room for 2"):  # 0.6 of a card twice does not fit on it
        Cluster(((8.0, 2.0),)).check_fits("c", 3, 1, 0.6)
    with pytest.raises(UserError, match=r"cell c can never start.*room for 0"):
        cluster.check_fits("c", 1, 8, 0)
    with pytest.raises(UserError, match=r"2 branches needs 1 CPU\(s\) and 0.6 GPU\(s\)"):
        Cluster(((8.0, 1.0),)).check_fits("c", 2, 1, 0.6)


def test_a_cell_that_needs_more_gpus_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"room for 1 .*1 GPUs on 1 node"):
        Cluster(((8.0, 1.0),)).check_fits("c", 2, 1, 1.0)


def test_a_machine_on_which_ray_takes_too_long_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init(**options: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(UserError, match=r"did not start within.*--runner local"), connect(None, 1):
        pass


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("AF_UNIX path length cannot exceed 107 bytes: /x"), "set RAY_TMPDIR to a short"),
        (
            PermissionError(13, "no", "/proc/nowhere/.ray"),
            r"/nowhere/\.ray: permission .*HOME",
        ),
    ],
)
def test_a_folder_that_ray_cannot_use_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    def init(**options: object) -> None:
        raise error

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(UserError, match=f"(?i){told}.*--runner local"), connect(None, 1):
        pass


NODE = {
    "Alive": True,
    "Resources": {"CPU": 3.0},
    "NodeManagerAddress": "10.0.0.1",
    "MetricsExportPort": 7001,
}
AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What is asked of a Ray that is not there: the options of `init`, and each `shutdown`."""
    made: list[Any] = []

    def init(**options: Any) -> SimpleNamespace:
        made.append(options)
        info = {"session_dir": str(tmp_path)}
        return SimpleNamespace(dashboard_url="127.0.0.1:8265", address_info=info)

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.nodes", lambda: [NODE])
    monkeypatch.setattr("ray.shutdown", lambda: made.append("shutdown"))
    monkeypatch.setattr("mrkd_ray.distributed.cluster._knock", lambda address: None)
    monkeypatch.setattr("mrkd_ray.distributed.cluster.own_node", lambda: None)
    for name in AUTH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # a token is written there
    return made


@pytest.mark.parametrize(
    ("variables", "token"),
    [
        ({}, " (token: cat ~/.ray/auth_token)"),  # which is asked for, whatever Ray's default
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "secret"}, ""),
        ({"RAY_AUTH_MODE": "token"}, " (token: cat ~/.ray/auth_token)"),
        (
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/a/file"},
            " (token: cat /a/file)",
        ),
        (
            {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": "/a/file",
                "RAY_AUTH_TOKEN": "secret",
            },
            " (token: what RAY_AUTH_TOKEN holds)",
        ),
    ],
)
def test_it_says_where_the_dashboard_is_and_what_unlocks_it(
    calls: list[Any], variables: dict[str, str], token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with connect(None, 1) as cluster:
        assert cluster.lines == (
            f"Ray dashboard: http://127.0.0.1:8265{token}",
            "Prometheus: http://10.0.0.1:7001/metrics (ray_mrkd_*)",
        )


def test_a_cluster_is_joined_and_named_with_who_gave_its_address(calls: list[Any]) -> None:
    with connect("host:1", 9, source="RAY_ADDRESS") as cluster:
        assert cluster.lines[0] == "Ray cluster: joined at host:1 (RAY_ADDRESS)"
        assert cluster.nodes == ((3.0, 0.0),)
    assert calls[0]["address"] == "host:1"
    assert not {"num_cpus", "include_dashboard"} & calls[0].keys()
    assert calls[1:] == ["shutdown"]


@pytest.mark.parametrize("source", ["--address", "RAY_ADDRESS"])
def test_who_gave_an_address_where_nothing_answers_is_named(source: str) -> None:
    with (
        pytest.raises(UserError, match=rf"^{source} 127.0.0.1:1: no Ray cluster answers"),
        connect("127.0.0.1:1", 1, source=source),
    ):
        pass


@pytest.mark.parametrize("dashboard", [True, False])
def test_a_cluster_is_started_with_or_without_a_dashboard(
    calls: list[Any], dashboard: bool
) -> None:
    with connect(None, 1000, dashboard=dashboard):
        assert len(calls) == 1
    assert calls[0]["address"] == "local"
    assert (calls[0]["num_cpus"], calls[0]["include_dashboard"]) == (1000, dashboard)
    assert calls[1:] == ["shutdown"]


def test_a_cluster_that_this_process_is_connected_to_is_used_and_left(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    with connect(None, 1) as cluster:
        assert cluster.nodes == ((3.0, 0.0),)
    with connect("host:1", 1, source="RAY_ADDRESS"):  # by which it was joined
        pass
    assert calls == []
    with pytest.raises(UserError, match="host:1: this process is connected"), connect("host:1", 1):
        pass


def test_a_cluster_has_the_cpus_that_this_process_may_use(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrkd_ray.distributed.cluster.cpus", lambda: 3)
    for least in (1, 5):
        with connect(None, least):
            pass
    assert [calls[0]["num_cpus"], calls[2]["num_cpus"]] == [3, 5]


@pytest.mark.parametrize(
    ("head", "kinds", "nodes"),
    [
        (True, {"gpu": ({"CPU": 4, "GPU": 1}, 8)}, ((3.0, 0.0), *[(4.0, 1.0)] * 5)),
        (
            True,
            {"spot": ({"CPU": 4, "GPU": 1}, 3), "other": ({"CPU": 8, "GPU": 2}, 9)},
            ((3.0, 0.0), *[(4.0, 1.0)] * 3, *[(8.0, 2.0)] * 2),
        ),
        (True, {"local.cluster.node": ({}, 5)}, ((3.0, 0.0),)),  # nobody knows what they have
        (False, {"gpu": ({"CPU": 4, "GPU": 1}, 8)}, ((3.0, 0.0),)),  # of another cluster
    ],
)
def test_nodes_that_the_autoscaler_would_start_are_counted(
    calls: list[Any],
    head: bool,
    kinds: dict[str, tuple[dict[str, int], int]],
    nodes: tuple[tuple[float, float], ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    own = Node("me", "node:10.0.0.1", head=head)
    monkeypatch.setattr("mrkd_ray.distributed.cluster.own_node", lambda: own)
    monkeypatch.setattr("ray.nodes", lambda: [{**NODE, "NodeID": "me"}])
    types: dict[str, Any] = {"head": {"resources": {"CPU": 3}, "max_workers": 0}}
    types |= {name: {"resources": r, "max_workers": n} for name, (r, n) in kinds.items()}
    config = {"available_node_types": types, "head_node_type": "head", "max_workers": 5}
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(config))
    with connect("host:1", 1) as cluster:
        assert cluster.nodes == nodes


def test_a_control_service_that_is_gone_ends_the_process_in_one_sentence(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    code = """
import socket, sys, threading
from mrkd_ray.distributed import gcs_watch
gcs_watch.EVERY = 0.01
gcs_watch.folders.add(sys.argv[1])
server = socket.create_server(("127.0.0.1", 0))
with gcs_watch.watched("%s:%d" % server.getsockname()):
    server.close()
    threading.Event().wait()
"""
    command = [sys.executable, "-c", code, str(left)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert not left.exists()
    assert "gcs_server) has ended" in done.stderr
    assert "--resume" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_sigterm_does_is_kept_also_from_another_thread() -> None:
    """In a process of its own: a handler that is lost would end it."""
    code = """
import os, signal, threading
from mrkd_ray.distributed.cluster import _sigterm_kept
def stop(number, frame): raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
import ctypes
def start():
    with _sigterm_kept():  # inside of it, what Ray does: C code takes the signal
        ctypes.CDLL(None).signal(signal.SIGTERM, 0)
thread = threading.Thread(target=start)
thread.start()
thread.join()
try:
    signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt:
    print("kept")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr


def test_people_are_told_what_waits_while_no_cell_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from mrkd_ray.distributed import tune_trials

    now, told, placed = [0.0], list[int](), [{"state": "CREATED"}]
    monkeypatch.setattr(tune_trials.time, "monotonic", lambda: now[0])
    monkeypatch.setattr("ray.util.placement_group_table", lambda: dict(enumerate(placed)))

    def ignore(*_: object) -> None: ...

    watch = tune_trials.Watch(ignore, ignore, ignore, ignore, told.append)

    def at(seconds: float, *states: str) -> list[int]:
        now[0] = seconds
        watch.on_step_end(0, [SimpleNamespace(status=state) for state in states])
        return told

    assert at(5, "PENDING", "PENDING") == []
    assert at(11, "PENDING", "PENDING") == []  # its processes are starting
    placed.append({"state": "PENDING"})
    assert at(21, "PENDING", "PENDING") == []
    assert at(22, "PENDING", "PENDING") == [2]
    assert at(25, "PENDING", "PENDING") == [2]
    assert at(33, "PENDING", "PENDING") == [2, 2]
    assert at(40, "RUNNING", "PENDING") == [2, 2]
    assert at(45, "TERMINATED", "PENDING") == [2, 2]  # the next one is about to begin
    assert at(99, "TERMINATED", "TERMINATED") == [2, 2]
