"""Where windows are kept: the budget from made-up machines, and what is told about it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TaskMaker

from mrkd_ray import memory
from mrkd_ray.branch import Branch

CPU = torch.device("cpu")
GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """4 CPUs with 8 GiB available, and no container around."""
    (tmp_path / "meminfo").write_text(
        f"MemTotal:       {16 * 2**20} kB\nMemAvailable:    {8 * 2**20} kB\n"
    )
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "cpus", lambda: 4)
    return tmp_path


def test_branches_on_all_cpus_take_half_of_the_memory_together(machine: Path) -> None:
    assert memory.budget(CPU, threads=1) == GIB
    assert memory.budget(CPU, threads=4) == memory.budget(CPU, threads=9) == 4 * GIB


@pytest.mark.parametrize(("limit", "left"), [("max", 8), (str(5 * GIB), 3), (str(GIB), 0)])
def test_a_containers_limit_counts_and_cached_files_do_not(
    machine: Path, limit: str, left: int
) -> None:
    (machine / "memory.max").write_text(f"{limit}\n")
    (machine / "memory.stat").write_text(f"anon {2 * GIB}\nfile {9 * GIB}\n")
    assert memory.available() == left * GIB


def test_auto_keeps_what_fits_and_a_wish_is_followed(
    machine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert memory.resident("auto", GIB, CPU, 1)
    assert not memory.resident("auto", GIB + 1, CPU, 1)
    assert memory.resident("resident", 2 * GIB, CPU, 1)
    assert not memory.resident("streamed", 1, CPU, 1)
    assert "windows resident (asked: auto): 1024.0 MiB on cpu" in caplog.messages[0]
    assert "windows streamed (asked: auto)" in caplog.messages[1]


def test_resident_and_streamed_branches_are_the_same_and_their_export_says_which(
    make_tasks: TaskMaker, tmp_path: Path
) -> None:
    (task,) = make_tasks("logmel64:vgg_small", soft_labels="window")
    states = []
    for kept in ("resident", "streamed"):
        branch = Branch(replace(task, windows=kept))
        branch.train(1)
        branch.distil(branch.soft_labels(2.0), 2.0, 1)
        branch.end_cycle(tmp_path)
        branch.export(tmp_path)
        said = json.loads((tmp_path / "config.json").read_text())["windows"]
        assert said["kept"] == kept
        assert said["bytes"] > 3 * 4 * 64 * branch.windows.lengths.sum()
        states.append(branch.network.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
