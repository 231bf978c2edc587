"""Gauges come out at Ray's Prometheus endpoint with the right tags."""

from __future__ import annotations

import re
import time
import urllib.request

import pytest

pytestmark = pytest.mark.cluster

ROWS = [
    {
        "cycle": 4,
        "branch": name,
        "windows": "resident, 1.5 MiB",
        "loss_ce": 1.25,
        "loss_distil_ce": 1.5,
        "loss_distil_kl": 0.125,
        "accuracy": accuracy,
        "map3": 0.75,
        "seconds_train": 2.5,
        "seconds_distil": 3.5,
    }
    for name, accuracy in (("logmel64-resnet_small", 0.5), ("cqt-vgg_small", 0.625))
]


def test_gauges_are_read_back_from_the_prometheus_endpoint(ray_cluster: str) -> None:
    import ray

    from mrkd_ray.distributed.telemetry import Gauges

    gauges = Gauges("a_grid", "a_cell")
    gauges.report(ROWS, windows=60)
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline = time.monotonic() + 120  # Ray exports every few seconds
    found: dict[tuple[str, str, str], float] = {}
    while len(found) < 18 and time.monotonic() < deadline:
        with urllib.request.urlopen(url, timeout=30) as response:
            found = read(response.read().decode())
        time.sleep(0.2)
    assert found["ray_mrkd_accuracy", "logmel64-resnet_small", ""] == 0.5
    assert found["ray_mrkd_accuracy", "cqt-vgg_small", ""] == 0.625
    assert found["ray_mrkd_loss_ce", "cqt-vgg_small", ""] == 1.25
    assert found["ray_mrkd_loss_distil_ce", "cqt-vgg_small", ""] == 1.5
    assert found["ray_mrkd_loss_distil_kl", "cqt-vgg_small", ""] == 0.125
    assert found["ray_mrkd_map3", "cqt-vgg_small", ""] == 0.75
    assert found["ray_mrkd_windows_per_second", "cqt-vgg_small", ""] == 10
    assert found["ray_mrkd_cycle", "cqt-vgg_small", ""] == 4
    assert found["ray_mrkd_phase_seconds", "cqt-vgg_small", "train"] == 2.5
    assert found["ray_mrkd_phase_seconds", "cqt-vgg_small", "distil"] == 3.5


def read(text: str) -> dict[tuple[str, str, str], float]:
    """Parse our gauges of this cell: (name, branch, phase) -> value."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(ray_mrkd_\w+)\{(.*)\} (\S+)", line)
        if match:
            tags = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
            if (tags.get("grid"), tags.get("cell")) == ("a_grid", "a_cell"):
                key = (match[1], tags.get("branch", ""), tags.get("phase", ""))
                found[key] = float(match[3])
    return found
