"""Where windows are kept: the budget from made-up machines, and what is told of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common import environment
from mrkd_ray.training import device_memory
from mrkd_ray.training.branch import Branch
from tests.conftest import TaskMaker, make_cell

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """4 CPUs with 8 GiB available, and no container around."""
    (tmp_path / "meminfo").write_text(
        f"MemTotal:       {16 * 2**20} kB\nMemAvailable:    {8 * 2**20} kB\n"
    )
    monkeypatch.setattr(device_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(device_memory, "CGROUP", tmp_path)
    monkeypatch.setattr(environment, "cpus", lambda: 4)
    return tmp_path


@pytest.mark.parametrize(
    ("branches", "cpus", "overlap", "each"),
    [
        (1, 1, False, 1),
        (4, 1, True, 1),
        (2, 2, True, 2),
        (1, 4, False, 4),
        (8, 1, True, 0.5),
        (1, 9, False, 4),
    ],
)
def test_the_branches_that_fill_a_machine_take_half_of_its_memory_together(
    machine: Path, prepared: Prepared, branches: int, cpus: int, overlap: bool, each: float
) -> None:
    cell = replace(make_cell(*["cqt:vgg_small"] * branches), cpus=cpus, overlap=overlap)
    budgets = [device_memory.budget(task) for task in branch_tasks(cell, prepared)]
    assert budgets == [each * GIB] * branches


@pytest.mark.parametrize(
    ("branches", "gpus", "free", "each"),
    [
        (1, 1.0, 80, 20),  # a card each
        (1, 2.0, 80, 20),
        (4, 0.25, 80, 5),
        (4, None, 80, 5),  # in one process, on one card
        (1, 1.0, 8, 2),  # others hold the card
    ],
)
def test_the_branches_that_fill_a_card_take_a_quarter_of_it_together(
    prepared: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    branches: int,
    gpus: float | None,
    free: int,
    each: int,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * GIB, 80 * GIB))
    cell = make_cell(*["cqt:vgg_small"] * branches, device="cuda")
    budgets = [device_memory.budget(task) for task in branch_tasks(cell, prepared, gpus)]
    assert budgets == [each * GIB] * branches


@pytest.mark.parametrize(("limit", "left"), [("max", 8), (str(5 * GIB), 3), (str(GIB), 0)])
def test_a_containers_limit_counts_and_cached_files_do_not(
    machine: Path, limit: str, left: int
) -> None:
    (machine / "memory.max").write_text(f"{limit}\n")
    (machine / "memory.stat").write_text(f"anon {2 * GIB}\nfile {9 * GIB}\n")
    assert device_memory.available() == left * GIB


@pytest.mark.parametrize(
    ("asked", "needed", "kept"),
    [
        ("auto", GIB, True),
        ("auto", GIB + 1, False),
        ("resident", 9 * GIB, True),
        ("streamed", 1, False),
    ],
)
def test_auto_keeps_what_fits_and_a_wish_is_followed(
    machine: Path, make_tasks: TaskMaker, asked: str, needed: int, kept: bool
) -> None:
    (task,) = make_tasks("cqt:vgg_small")
    assert device_memory.resident(replace(task, window_memory=asked), needed) == kept


def test_resident_and_streamed_branches_are_the_same_and_say_which(
    make_tasks: TaskMaker, tmp_path: Path
) -> None:
    (task,) = make_tasks("logmel64:vgg_small", soft_labels="window")
    states = []
    for kept in ("resident", "streamed"):
        branch = Branch(replace(task, window_memory=kept))
        branch.train(1)
        branch.distil(branch.soft_labels(2.0), 2.0, 1)
        row = branch.end_cycle(tmp_path)
        branch.export(tmp_path)
        said = json.loads((tmp_path / "config.json").read_text())["windows"]
        assert said["kept"] == kept
        assert said["bytes"] > 3 * 4 * 64 * branch.windows.lengths.sum()
        assert row["windows"] == f"{kept}, {said['bytes'] / 2**20:.1f} MiB"
        states.append(branch.network.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
