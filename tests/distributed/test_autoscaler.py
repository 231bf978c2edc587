"""A grid on a cluster that has no node for it yet: it asks, says what it waits for, and goes on.

Ray's autoscaler runs with the provider that Ray has for tests: its nodes are processes here.
`ray.cluster_utils.AutoscalingCluster` would start it, but reads a file that Ray's wheel lacks, and
ends every other Ray on the machine by `ray stop --force`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from tests.conftest import FAST, ROOT, TOO_SLOW, end_processes_of

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="its GPU is declared only"),
]

PATIENCE = 900  # s
DRIVER = """
import sys
import ray
from mrkd_ray.cli.main import main
from mrkd_ray.distributed import tune_trials
from tests.distributed.growing_cluster import HOOK
tune_trials.WAIT = 0.0  # it says what it waits for at the first look, and not after 10 s
ray.init(sys.argv[1], runtime_env={"worker_process_setup_hook": HOOK}, log_to_driver=False)
main(sys.argv[2:])
"""
EMPTY = ("initialization", "setup", "head_setup", "worker_setup")
EMPTY += ("head_start_ray", "worker_start_ray")


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a node without a CPU, whose autoscaler may start one with two and a GPU."""
    with tempfile.TemporaryDirectory(prefix="mrkd", ignore_cleanup_errors=True) as short:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        address = f"{ray.util.get_node_ip_address()}:{port}"  # 127.0.0.1 is not taken
        own = {"HOME": short, "RAY_TMPDIR": short, "PYTHONPATH": str(ROOT)}
        own |= {"RAY_FAKE_CLUSTER": "1", "RAY_AUTH_MODE": "token", "RAY_enable_autoscaler_v2": "0"}
        own["AUTOSCALER_UPDATE_INTERVAL_S"] = "1"
        for name, value in own.items():
            monkeypatch.setenv(name, value)
        kinds = {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "max_workers": 1},
        }
        config = {
            "cluster_name": "fake",
            "provider": {
                "type": "fake_multinode",
                "gcs_address": address,
                "use_node_id_as_ip": True,
            },
            "available_node_types": kinds,
            "head_node_type": "ray.head.default",
            "max_workers": 1,
            "idle_timeout_minutes": 60,
            "upscaling_speed": 1.0,
            "auth": {},
            "docker": {},
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "rsync_exclude": [],
            "rsync_filter": [],
            **{f"{name}_commands": [] for name in EMPTY},
        }
        file = Path(short) / "ray_bootstrap_config.yaml"  # where `ray up` writes it
        file.write_text(json.dumps(config))
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        words += ["--num-cpus=0", "--include-dashboard=false", f"--autoscaling-config={file}"]
        words += [f"--port={port}", "--min-worker-port=0", "--max-worker-port=0"]
        with (Path(short) / "log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE
            while "Ray runtime started" not in (said := (Path(short) / "log").read_text()):
                if "timed out during startup" in said:
                    pytest.skip(TOO_SLOW)
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.1)
            yield address
        finally:
            end_processes_of(short)
            process.kill()
            process.wait()


def test_a_grid_waits_for_the_node_that_it_asks_for(
    head: str, clips: Path, cache: Path, tmp_path: Path
) -> None:
    asked = {**FAST, "cycles": 1, "data": str(clips), "cache": str(cache), "folds": [1]}
    asked |= {"cohorts": ["cqt:vgg_small"], "independent": False, "output": str(tmp_path)}
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(asked))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, head, "grid", str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    waits = "cells that wait: 1, for 1 CPU(s) and 1 GPU(s). No node has that free; Ray's autoscaler"
    assert waits in done.stderr
    assert len(list(tmp_path.glob("small/cells/*/result.json"))) == 1
