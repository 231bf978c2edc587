"""The dashboard's queries are answered, by a real Prometheus, with what a real run reported."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import run_cell
from mrkd_ray.cells.tasks import branch_tasks
from tests.conftest import ROOT, make_cell
from tests.distributed.test_ray_cohort import TWO, actors_of

DASHBOARD = json.loads((ROOT / "deploy/grafana/mrkd.json").read_text())
PATIENCE = 180  # s; Ray exports every few seconds
GRID = "a_grid"  # other tests of the session report others


def queries() -> dict[str, str]:
    """Each query by its panel."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$grid", GRID)
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    }


def test_no_two_panels_lie_on_each_other() -> None:
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == [
        "datasource",
        "grid",
    ]


@pytest.fixture
def prometheus(ray_cluster: str, tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that reads the session's cluster."""
    import ray

    if not (program := shutil.which("prometheus")):
        pytest.skip("prometheus is not installed")
    (node,) = ray.nodes()
    target = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    job = {"job_name": "ray", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "{}:{}".format(*free.getsockname())
    command = [program, "--config.file=prometheus.yml", f"--web.listen-address={address}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=log)
    yield f"http://{address}"
    process.terminate()
    process.wait()


def answer(url: str, query: str) -> list[Any]:
    """What Prometheus has to say, if it is there yet."""
    words = urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{words}", timeout=30) as response:
            found: list[Any] = json.load(response)["data"]["result"]
    except urllib.error.URLError:
        return []
    return found


@pytest.mark.cluster
@pytest.mark.slow
def test_every_panel_shows_what_a_run_reported(
    prepared: Prepared, prometheus: str, tmp_path: Path
) -> None:
    from mrkd_ray.distributed.ray_cohort import RayCohort
    from mrkd_ray.distributed.telemetry import Gauges, GridGauges

    cell = make_cell(*TWO, cycles=2)
    tasks = branch_tasks(cell, prepared)
    gauges, grid = Gauges(GRID, cell.key), GridGauges(GRID)
    rows: list[dict[str, Any]] = []
    with actors_of(*TWO) as actors:
        cohort = RayCohort(actors, tasks, tmp_path / "cell")
        for done, rows in enumerate(run_cell(cell, tasks, cohort, tmp_path / "cell"), 1):
            gauges.report(rows, windows=24)
            gauges.report_exchange(cohort.barrier, cohort.agreement, cohort.exchanged)
            grid.report([("RUNNING", done / 2, 2), ("PENDING", 0, 2), ("TERMINATED", 1, 2)], 1)
    deadline = time.monotonic() + PATIENCE
    found: dict[str, list[Any]] = {}
    while not (found and all(found.values())):
        lacking = [name for name, results in found.items() if not results]
        assert time.monotonic() < deadline, lacking
        found = {name: answer(prometheus, query) for name, query in queries().items()}
        time.sleep(0.3)
    shown = {
        result["metric"]["branch"]: float(result["value"][1])
        for result in found["Accuracy of each branch A"]
        if result["metric"]["cell"] == cell.key
    }
    assert shown == {row["branch"]: pytest.approx(row["accuracy"]) for row in rows}
    states = answer(prometheus, f'ray_mrkd_cells{{grid="{GRID}"}}')
    counted = {each["metric"]["state"]: float(each["value"][1]) for each in states}
    assert counted == {"waiting": 1, "running": 1, "done": 0, "failed": 1}
