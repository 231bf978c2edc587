"""What all benchmarks share: alternating runs, ratios with their spread, and the result's file."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mrkd_ray.common import environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SHARED = next(
    (path for path in (ROOT.parent / "shared" / "data", ROOT / "shared" / "data") if path.is_dir()),
    ROOT,
)
DATA = Path(os.environ.get("MRKD_BENCH_DATA", SHARED))
"""The folder that holds the data sets: given, or beside the project, or in it (carried)."""
CACHE = Path(os.environ.get("MRKD_BENCH_CACHE", ROOT / "cache" / "benchmarks"))
RUNS = 5  # alternating runs of each side, at least; odd, so that the median is one of them
PEERS = ("grpcio", "onnxruntime", "safetensors", "psutil")


class Skip(Exception):
    """A benchmark cannot run here; its message says what is missing."""


class Row(BaseModel):
    """One comparison: values of ours and of a peer, run by run, and the ratio aimed at.

    Without a peer, the target holds for our own value.
    """

    model_config = ConfigDict(extra="forbid")

    what: str
    unit: str
    ours: list[float]
    peer: list[float] = []
    peer_is: str = ""
    expected: float | None = None  # of the value, as written down before it was measured
    target: float | None = None
    at_most: bool = False  # the target is an upper limit
    limits: str = ""  # what keeps it from the target; shown where it is not reached

    @property
    def values(self) -> list[float]:
        """The ratio of each pair of runs, or our value where there is no peer."""
        if not self.peer:
            return self.ours
        return [a / b for a, b in zip(self.ours, self.peer, strict=True)]

    @property
    def value(self) -> float:
        """The ratio of the medians, or the median where there is no peer."""
        ours = statistics.median(self.ours)
        return ours / statistics.median(self.peer) if self.peer else ours

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


class Result(BaseModel):
    """What one benchmark found, with all that is needed to run it again."""

    model_config = ConfigDict(extra="forbid")

    name: str
    title: str
    how: str  # what was measured and how, some sentences
    rows: list[Row]
    notes: list[str] = []
    details: dict[str, Any] = {}
    environment: dict[str, Any] = {}

    def write(self, folder: Path) -> Path:
        """Write `NAME.json` into the folder, with the environment of this process."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        with_environment = self.model_copy(update={"environment": describe(self.name)})
        path.write_text(with_environment.model_dump_json(indent=1) + "\n")
        return path

    def summary(self) -> str:
        """One line a row, for the terminal."""
        lines = []
        for row in self.rows:
            low, high = min(row.values), max(row.values)
            aim = "" if row.target is None else f", target {row.target:g}"
            verdict = {None: "", True: ", reached", False: ", not reached"}[row.reached]
            lines.append(f"  {row.what}: {row.value:.3g} [{low:.3g}, {high:.3g}]{aim}{verdict}")
        return "\n".join([self.title, *lines, *(f"  note: {note}" for note in self.notes)])


def describe(name: str) -> dict[str, Any]:
    """Return the environment: hardware, date, versions, commit, and the command without paths."""
    found = environment.describe()
    versions = {peer: _version(peer) for peer in PEERS}
    options = [word.rpartition("/")[2] for word in sys.argv[1:] if word != name]
    return {
        **found,
        "packages": {**found["packages"], **{k: v for k, v in versions.items() if v}},
        "command": " ".join([_called(name), *options]),
    }


def _called(name: str) -> str:
    """Return how it was called: as one of the benchmarks, or as a command of its own."""
    one_of_all = Path(sys.argv[0]).stem == "__main__"
    return f"python -m benchmarks {name}" if one_of_all else f"python -m benchmarks.{name}"


def alternate(runs: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run all sides in turn, `runs` times, the order reversed every other time.

    Args:
        sides: by name, a function that does the work and returns the figure measured.
    """
    values: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(runs):
        for name in list(sides)[:: 1 if i % 2 == 0 else -1]:
            values[name].append(sides[name]())
    return values


def one_thread() -> None:
    """Make this process, and those that it starts, compute on one thread; before any import."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def peak_memory() -> float:
    """The most memory that this process ever held, in MB (VmHWM)."""
    return status_mb("VmHWM")


def status_mb(field: str, pid: int | str = "self") -> float:
    """A field of a process's /proc status, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no {field} in /proc/{pid}/status")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
