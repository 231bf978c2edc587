"""Load on `mrkd serve`, made by Locust, beside the same model behind plain FastAPI and uvicorn.

python -m benchmarks.serving results/train              # 1, 8 and 64 clients, 20 s each
python -m benchmarks.serving results/train --seconds 5
python -m benchmarks.serving results/train --overload   # 64 clients, where 8 may wait

Each client sends a recording of 5 s (WAV, 441 kB) as soon as its last one is answered. Everything
runs on this machine: the clients take their part of it from both servers alike. Without --overload,
benchmarks/results/serving.json is written.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import requests

from benchmarks.common import RESULTS, Result, Row, describe
from benchmarks.startup import MRKD

CLIENTS = (1, 8, 64)
SECONDS, RATE = 5, 44_100
STARTS_WITHIN = 300.0

LOCUST = """
import os
from pathlib import Path
from locust import HttpUser, constant, task

SOUND = Path(os.environ["SOUND"]).read_bytes()

class Client(HttpUser):
    wait_time = constant(0)

    @task
    def classify(self):
        files = {"file": ("a.wav", SOUND, "audio/wav")}
        with self.client.post("/classify", files=files, catch_response=True) as answer:
            if answer.status_code == 503 and "Retry-After" in answer.headers:
                answer.failure("503 with Retry-After")
"""


@dataclass(frozen=True)
class Load:
    """What Locust counted: requests a second that were answered, and milliseconds of all.

    `cpu` is the server's time on a CPU for each answer, in milliseconds: all its processes.
    """

    rate: float
    median: float
    p99: float
    cpu: float
    answered: int
    refused: int
    failed: int


@contextmanager
def server(command: list[str], port: int) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server until it answers; end it afterwards."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        since = time.monotonic()
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > since + STARTS_WITHIN:
                raise SystemExit(f"{' '.join(command)}: does not start")
            time.sleep(0.5)
        yield url, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/openapi.json", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def warm(url: str, sound: Path) -> None:
    """Ask until there is an answer: the first requests build what is built once."""
    for _ in range(3):
        status = 503
        while status == 503:
            with sound.open("rb") as file:
                answer = requests.post(f"{url}/classify", files={"file": ("a.wav", file)})
            status = answer.status_code
            time.sleep(0.2)
        answer.raise_for_status()


def cpu_seconds(process: psutil.Process) -> float:
    """Return the time on a CPU of a process and of all that it started."""
    times = []
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended
            times.append(each.cpu_times())
    return sum(time.user + time.system for time in times)


def loaded(url: str, process: psutil.Process, clients: int, seconds: float, folder: Path) -> Load:
    """Have clients ask for so many seconds."""
    (folder / "locustfile.py").write_text(LOCUST)
    command = [sys.executable, "-m", "locust", "-f", str(folder / "locustfile.py"), "--headless"]
    command += ["-u", str(clients), "-r", str(clients), "-t", f"{seconds:g}s", "--host", url]
    command += ["--csv", str(folder / "load"), "--only-summary", "--stop-timeout", "60"]
    command += ["--exit-code-on-error", "0"]
    sound = os.environ | {"SOUND": str(folder / "a.wav")}
    before = cpu_seconds(process)
    subprocess.run(command, env=sound, check=True, capture_output=True)
    cpu = cpu_seconds(process) - before
    with (folder / "load_stats.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")
    with (folder / "load_failures.csv").open(newline="") as file:
        failures = {row["Error"]: int(row["Occurrences"]) for row in csv.DictReader(file)}
    refused = sum(count for error, count in failures.items() if "Retry-After" in error)
    count, failed = int(row["Request Count"]), int(row["Failure Count"])
    share = (count - failed) / max(count, 1)
    return Load(
        rate=share * float(row["Requests/s"]),
        median=float(row["Median Response Time"]),
        p99=float(row["99%"]),
        cpu=1000 * cpu / max(count - failed, 1),
        answered=count - failed,
        refused=refused,
        failed=failed - refused,
    )


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Measure both servers and print a table."""
    import soundfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="as of mrkd serve")
    parser.add_argument("--seconds", type=float, default=20, help="of load, for each row")
    parser.add_argument("--overload", action="store_true", help="more clients than may wait")
    asked = parser.parse_args()
    found = describe("serving")
    loads: dict[str, list[Load]] = {}
    print(f"{found['date']}, {found['cpus']} CPUs of {found['processor']}, {found['commit']}")
    print("server, clients: requests/s, median ms, p99 ms, CPU ms, answered, 503, other errors")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, SECONDS * RATE)
        soundfile.write(folder / "a.wav", noise, RATE)
        port = free_port()
        ours = [*MRKD, "serve", asked.model, "--port", str(port)]
        plain = [sys.executable, "-m", "benchmarks.plain_server", asked.model, str(port)]
        sides = {"mrkd serve": ours, "plain FastAPI": plain}
        if asked.overload:
            sides = {"mrkd serve --queue 8": [*ours, "--queue", "8"]}
        for side, command in sides.items():
            with server(command, port) as (url, process):
                warm(url, folder / "a.wav")
                for clients in (64,) if asked.overload else CLIENTS:
                    load = loaded(url, process, clients, asked.seconds, folder)
                    loads.setdefault(side, []).append(load)
                    print(
                        f"{side}, {clients}: {load.rate:.1f}, {load.median:.0f}, {load.p99:.0f}, "
                        f"{load.cpu:.0f}, {load.answered}, {load.refused}, {load.failed}",
                        flush=True,
                    )
                if asked.overload:
                    warm(url, folder / "a.wav")
                    print("afterwards it answers as before")
    if not asked.overload:
        result(*loads.values()).write(RESULTS)


def result(ours: list[Load], peer: list[Load]) -> Result:
    """Return the figures of both servers, by the number of clients."""
    rows = []
    for clients, own, other in zip(CLIENTS, ours, peer, strict=True):
        for what, unit, field in (
            ("requests answered", "1/s", "rate"),
            ("median time to an answer", "ms", "median"),
            ("99 % have an answer in", "ms", "p99"),
            ("CPU time for an answer", "ms", "cpu"),
        ):
            values = [getattr(own, field)], [getattr(other, field)]
            rows.append(
                Row(
                    what=f"{what}, {clients} client(s)",
                    unit=unit,
                    ours=values[0],
                    peer=values[1],
                    peer_is="the same model behind plain FastAPI and uvicorn",
                )
            )
    return Result(
        name="serving",
        title="A model behind HTTP",
        how="Locust's clients each send a recording of 5 s as soon as the last one is answered.",
        rows=rows,
        details={"load_average": os.getloadavg()},
    )


if __name__ == "__main__":
    main()
