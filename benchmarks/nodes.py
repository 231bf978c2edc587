"""One aggregator on each node beside a single one, on hosts whose links are limited.

The hosts are network namespaces of this machine (`tests.deploy.hosts`), with `tc` at both ends of
each one's link. So it needs root. Branches hold random soft labels and train nothing.

python -m benchmarks nodes
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import RESULTS, ROOT, RUNS, Result, Row, Skip
from benchmarks.exchange import exchange, stand_ins
from benchmarks.scaling import DOCUMENT, FLOAT, Job, Machine, seconds, write_between
from tests.deploy.hosts import SWITCH, Host, hosts, lacking

NAME = "nodes"
NODES = (2, 4)
LINK = 100e6 / 8  # bytes per second of each host's link, either way
CLIPS, CLASSES = 125_000, 50  # 25 MB of soft labels a branch
ROUNDS = RUNS
BURST = 256 * 1024  # bytes that may pass at once
BEGIN, END = "<!-- python -m benchmarks nodes: begin -->", "<!-- nodes: end -->"
PORT = 6379


def run(quick: bool = False) -> Result:
    """Measure both ways on each number of hosts, and predict them."""
    if why := lacking():
        raise Skip(why)
    clips = 10_000 if quick else CLIPS
    rows, details = [], []
    for count in NODES[:1] if quick else NODES:
        with _cluster(count) as (machines, env):
            found = {n: _rounds(machines, env, n, clips) for n in (1, count)}
        for aggregators, rounds in found.items():
            job = Job(
                clips=clips,
                classes=CLASSES,
                branches=count,
                nodes=count,
                aggregators=aggregators,
                epochs=0,  # an exchange alone
                evaluations=0,
            )
            parts = seconds(job, _machine())
            ways = {"nodes": count, "aggregators": aggregators, "into": _into(job)}
            details.append({**ways, "model": parts, **rounds})
        single, split = (found[n]["seconds"] for n in (1, count))
        rows.append(
            Row(
                what=f"{count} nodes, a branch on each: an exchange with one aggregator a node",
                unit="s",
                ours=split,
                peer=single,
                peer_is="one aggregator",
            )
        )
    if not quick:
        write_between(DOCUMENT, BEGIN, END, "".join(_table(details)))
    return Result(
        name=NAME,
        title="An aggregator on each node",
        how=f"{clips:,} clips, {CLASSES} classes, links of {LINK * 8 / 1e6:g} Mbit/s either way.",
        rows=rows,
        details={"link": LINK, "checks": details},
    )


def _into(job: Job) -> float:
    """Return the bytes that come to a node with an aggregator, a branch being on each.

    Of its range the soft labels of the other branches, and of the others the teacher.
    """
    parts = job.branches - 1 + job.aggregators - 1
    return parts * job.clips * job.classes * FLOAT / job.aggregators


def _machine() -> Machine:
    """Return the constants that `benchmarks.scaling` measured, with the links of the hosts."""
    found = json.loads((RESULTS / "scaling.json").read_text())["details"]["machine"]
    return Machine(**{**found, "network": LINK})


@contextmanager
def _cluster(count: int) -> Iterator[tuple[tuple[Host, ...], dict[str, str]]]:
    """Start Ray on so many hosts with limited links; yield them and what their processes are told.

    Ray ends with the hosts.
    """
    with tempfile.TemporaryDirectory() as folder, hosts(count, Path(folder) / "id") as made:
        for number in range(1, count + 1):
            for device in ((f"{SWITCH}-{number}",), ("eth0", f"{SWITCH}-{number}")):
                _limit(*device)
        env = {
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "disabled",  # nobody else is on these links
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "KEY": str(made.key),
        }
        ray = f"{Path(sys.executable).with_name('ray')} start --num-cpus 2"
        head, *others = made.hosts
        store = "--object-store-memory 1000000000"
        first = f"--head --include-dashboard=false --port {PORT}"
        where = [(head, f"{first} --node-ip-address {head.address}")]
        join = f"--address {head.address}:{PORT} --node-ip-address"
        where += [(host, f"{join} {host.address}") for host in others]
        for host, how in where:
            log = "/tmp/start.log"  # of the host: who has Ray's own output waits for its end
            command = f"{ray} {store} {how} > {log} 2>&1 < /dev/null || (cat {log}; false)"
            with _on(host, env, command) as process:
                said = process.communicate()[0]
                if process.returncode:
                    raise RuntimeError(f"Ray did not start on {host.address}: {said}")
        yield made.hosts, env


def _limit(device: str, namespace: str = "") -> None:
    """Limit what a device sends."""
    enter = ["ip", "netns", "exec", namespace] if namespace else []
    how = f"root tbf rate {LINK * 8:.0f} burst {BURST} latency 200ms"
    subprocess.run([*enter, "tc", "qdisc", "add", "dev", device, *how.split()], check=True)


@contextmanager
def _on(host: Host, env: dict[str, str], command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command on a host."""
    told = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
    known = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    ssh = ["ssh", "-q", "-i", env["KEY"], *known, f"root@{host.address}"]
    words = [*ssh, f"cd {ROOT} && {told} {command}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        yield process


def _rounds(
    machines: tuple[Host, ...], env: dict[str, str], aggregators: int, clips: int
) -> dict[str, list[float]]:
    """Return of each round its seconds, and the bytes that came to the host with the most."""
    python = f"{sys.executable} -m benchmarks.nodes {len(machines)} {aggregators} {clips}"
    found: dict[str, list[float]] = {"seconds": [], "bytes": []}
    with _on(machines[0], env, python) as process:
        assert process.stdout
        before = _received(len(machines))
        for line in process.stdout:
            after = _received(len(machines))
            came = [a - b for a, b in zip(after, before, strict=True)]
            before = after
            if line.startswith("round "):
                found["seconds"].append(float(line.split()[1]))
                found["bytes"].append(max(came))
    if process.returncode or len(found["seconds"]) != ROUNDS:
        raise RuntimeError(f"{python}: exit code {process.returncode}")
    return found


def _received(count: int) -> list[int]:
    """Return the bytes that each host has received."""
    devices = (Path(f"/sys/class/net/{SWITCH}-{i}") for i in range(1, count + 1))
    return [int((device / "statistics" / "tx_bytes").read_text()) for device in devices]


def drive(nodes: int, asked: int, clips: int) -> None:
    """Print the seconds of each round; runs on the first host."""
    import ray

    from mrkd_ray.distributed.ray_cohort import aggregators

    ray.init("auto", log_to_driver=False)
    group = ray.util.placement_group([{"CPU": 1}] * nodes, strategy="STRICT_SPREAD")
    ray.get(group.ready())
    started = tuple(aggregators(group, 0, "benchmark"))
    assert len(started) == nodes
    with stand_ins(nodes, clips, group, started[:asked]) as cohort:
        exchange(cohort)
        print("warm", flush=True)
        for _ in range(ROUNDS):
            print("round", exchange(cohort)[0], flush=True)


def _table(checks: list[dict[str, Any]]) -> Iterator[str]:
    yield "\n| nodes, a branch on each | aggregators | an exchange by model, s | measured, s | "
    yield "measured / model | into the busiest node by model, MB | measured, MB |\n"
    yield "|" + " --: |" * 7 + "\n"
    for check in checks:
        model, measured = sum(check["model"].values()), median(check["seconds"])
        into = f"{check['into'] / 1e6:.1f} | {median(check['bytes']) / 1e6:.1f}"
        yield f"| {check['nodes']} | {check['aggregators']} | {model:.2f} | {measured:.2f} | "
        yield f"{measured / model:.2f} | {into} |\n"
    yield "\n"


if __name__ == "__main__":
    drive(*map(int, sys.argv[1:]))
