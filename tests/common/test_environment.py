"""What is written beside results is enough to repeat them, and names no path."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

from mrkd_ray.common import environment


def test_versions_and_command_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/mrkd", "grid", "a b.yaml"])
    found = environment.describe()
    assert found["command"] == "mrkd grid 'a b.yaml'"
    monkeypatch.setattr("sys.argv", ["/some/where/mrkd_ray/__main__.py", "plan"])
    assert environment.describe()["command"] == "mrkd plan"
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["cpus"] >= 1
    text = json.dumps(found)
    assert "/somewhere" not in text


def test_what_benchmarks_write_is_no_change_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*command: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True, capture_output=True)

    def write(names: Iterable[str]) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("changed")

    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    git("init")
    git("commit", "--allow-empty", "-m", "first")
    pages = ("docs/explanation/performance.md", "docs/explanation/scaling.md")
    write(("benchmarks/results/a.json", *pages))
    assert len(environment.describe()["commit"]) == 40
    write(("docs/explanation/method.md",))
    assert environment.describe()["commit"].endswith(" with changes")


def test_a_run_that_goes_on_elsewhere_says_both() -> None:
    first = environment.describe() | {"commit": "a", "command": "one", "gpus": ["H100"], "cpus": 64}
    second = environment.describe() | {"commit": "b", "command": "two", "gpus": [], "cpus": 64}
    found = environment.joined(environment.joined(first, second), second)
    assert (found["commit"], found["command"], found["cpus"]) == ("a, b", "one, two", 64)
    assert found["gpus"] == ["H100"]
    assert found["packages"] == second["packages"]


def test_cpus_are_those_of_the_affinity_the_control_group_and_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    quotas: list[int] = []
    monkeypatch.setattr(environment, "_quota", lambda root: iter(quotas))
    assert environment.cpus() == 16
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "8")
    assert environment.cpus() == 8
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert environment.cpus() == 4
    quotas[:] = [0]
    assert environment.cpus() == 1


V1 = {"cpu/cpu.cfs_period_us": "100000\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("group", "files", "quota"),
    [
        ("0::/", {}, []),
        ("0::/", {"cpu.max": "max 100000\n"}, []),
        ("0::/", {"cpu.max": "250000 100000\n"}, [2]),
        ("0::/a/b", {"cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, [3]),
        ("0::/a/b", {"a/b/cpu.max": "100000 100000\n", "a/cpu.max": "300000 100000\n"}, [1, 3]),
        ("3:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1\n"} | V1, []),
        ("3:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "300000\n"} | V1, [3]),
        ("3:cpu,cpuacct:/a/b", {"cpu/a/b/cpu.cfs_quota_us": "200000\n"} | V1, [2]),
        ("3:cpu:/docker/host/path", {"cpu/cpu.cfs_quota_us": "200000\n"} | V1, [2]),
        ("4:cpuset:/a/b", {"cpu/a/b/cpu.cfs_quota_us": "200000\n"} | V1, []),
    ],
)
def test_what_a_control_group_allows(
    tmp_path: Path, group: str, files: dict[str, str], quota: list[int]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    own = tmp_path / "own"
    own.write_text(f"9:pids:/x\n{group}\n")
    assert sorted(environment._quota(tmp_path, own)) == quota
