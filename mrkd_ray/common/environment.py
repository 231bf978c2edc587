"""What a run was made with: versions, hardware, commit, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("mrkd-ray", "ray", "torch", "torchvision", "librosa", "numpy", "soundfile")

WRITTEN = ("benchmarks/results", "docs/explanation/performance.md", "docs/explanation/scaling.md")
"""Where benchmarks write, in the repository: no changes of the code that ran."""


CHECKOUT = Path(__file__).parents[2]
"""The repository, where this runs from one."""


UNKNOWN: dict[str, Any] = {"packages": dict.fromkeys(PACKAGES, "unknown")}
"""What is said of a run whose own words are lost."""


def describe() -> dict[str, Any]:
    """Return what somebody needs to know to repeat the run; no names of users or hosts."""
    return {
        "command": shlex.join([_program(), *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
        "system": platform.platform(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "gpus": _gpus(),
    }


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Return the version of each package, None where it is not installed."""
    return {name: _version(name) for name in packages}


def joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return what `describe` says of a run that goes on with the work of one before.

    What is not the same is written `OLD, NEW`; lists are put together.
    """

    def both(old: Any, new: Any) -> Any:
        if isinstance(new, dict):
            return {name: both((old or {}).get(name), value) for name, value in new.items()}
        if old == new:
            return new
        if isinstance(new, list):
            return [*(old or []), *(value for value in new if value not in (old or []))]
        return ", ".join(dict.fromkeys([*str(old).split(", "), *str(new).split(", ")]))

    return {name: both(before.get(name), value) for name, value in now.items()}


def cpus() -> int:
    """Return the number of CPUs that this process may use: affinity, cgroup, Slurm's job."""
    allowed = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        allowed.append(len(os.sched_getaffinity(0)))
    allowed += _quota(Path("/sys/fs/cgroup"))
    asked = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
    if asked.isdecimal():
        allowed.append(int(asked))
    return max(1, min(allowed))


def _quota(root: Path, own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield how many whole CPUs control groups let this process use, as far as they say.

    Its own group and all that it is in: a container's, a service's or a job's.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines or ["0::/"]:
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root  # one folder a controller: version 1
        group = base / place.lstrip("/")
        # In a container the path is the host's, and its own group is the root.
        for folder in {base, *(x for x in (group, *group.parents) if x.is_relative_to(base))}:
            yield from _allowed(folder)


def _allowed(group: Path) -> Iterator[int]:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        except OSError:
            return
    try:
        if int(quota) > 0:
            yield int(quota) // int(period)
    except (ValueError, ZeroDivisionError):  # "max": as many as there are
        return


def local_device() -> str:
    """Return the device of branches that run in this process."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=CHECKOUT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> str | None:
    commit = _run("git", "rev-parse", "HEAD")
    changes = _run("git", "status", "--porcelain", "--", ".", *(f":!{path}" for path in WRITTEN))
    return f"{commit} with changes" if commit and changes else commit


def processor() -> str:
    """Return the name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _gpus() -> list[str]:
    names = _run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.splitlines() if names else []


def _program() -> str:
    """Return the name of this command; `python -m mrkd_ray` is `mrkd`."""
    name = Path(sys.argv[0]).name
    return "mrkd" if name == "__main__.py" else name
