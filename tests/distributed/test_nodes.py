"""Grids on several nodes: who gets which device, the same bits, nodes that come and go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import run as grid
from tests.conftest import FAST, ROOT, TOO_SLOW
from tests.distributed import growing_cluster
from tests.distributed.test_ray_cohort import same_files

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="its GPUs are declared only"),
]

NAMES = ("logmel64-vgg_small", "cqt-vgg_small", "logmel64-resnet_small")
PATIENCE = 900  # s


@pytest.fixture(scope="module")
def folder(clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of all grids, and what `growing_cluster` said of them."""
    folder = tmp_path_factory.mktemp("nodes")
    values = {**FAST, "data": str(clips), "cache": str(cache)}
    (folder / "grid.json").write_text(json.dumps(values))
    with tempfile.TemporaryDirectory(prefix="mrkd", ignore_cleanup_errors=True) as short:
        done = subprocess.run(
            [sys.executable, "-m", "tests.distributed.growing_cluster", str(folder)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=ROOT,
            env={**os.environ, "RAY_TMPDIR": short, "PYTHONPATH": str(ROOT)},
        )
    if "timed out during startup" in done.stderr:
        pytest.skip(TOO_SLOW)
    assert done.returncode == 0, done.stderr
    fields = {"folds": [1], "independent": False, "runner": "local"}
    fields |= {"cohorts": [growing_cluster.THREE]}
    elastic = {"temperatures": [1, 2], "cycles": 4}
    for name, more in (("local", {}), ("undisturbed", elastic)):
        own = {"name": name, "output": folder / name}
        grid.run(parse(GridConfig, {**values, **fields, **more, **own}, "test"))
    return folder


@pytest.fixture
def said(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "said.json").read_text())
    return found


def test_branches_of_a_small_cluster_share_a_card(said: dict[str, Any]) -> None:
    placed = said["placed"]["one"]
    assert [placed[name] for name in NAMES] == [["A", ["0"]]] * 3


def test_a_cohort_too_large_for_a_node_is_spread_with_a_card_each(said: dict[str, Any]) -> None:
    two = [placed for name, placed in said["placed"]["two"].items() if name in NAMES]
    assert sorted(two) == [["A", ["0"]], ["B", ["0"]], ["B", ["1"]]]
    three = [placed for name, placed in said["placed"]["three"].items() if name in NAMES]
    assert sorted(node for node, _ in three) == ["A", "B", "C"]
    assert all(len(cards) == 1 for _, cards in three)


def test_a_cohort_that_a_node_has_room_for_is_kept_there(said: dict[str, Any]) -> None:
    packed = said["placed"]["packed"]
    assert sorted(packed[name] for name in NAMES[:2]) == [["B", ["0"]], ["B", ["1"]]]


def test_a_branch_with_two_cards_has_a_process_on_each(said: dict[str, Any]) -> None:
    placed = said["placed"]["parallel"]
    assert sorted([placed[NAMES[0]], placed[f"{NAMES[0]} rank 1"]]) == [["B", ["0"]], ["B", ["1"]]]


def test_each_node_of_a_cohort_has_an_aggregator(said: dict[str, Any]) -> None:
    for placed in said["placed"].values():
        nodes = {placed[name][0] for name in NAMES if name in placed}
        assert sorted(placed["AggregatorActor"]) == sorted(nodes)


def test_the_coordinator_is_where_the_folders_are(said: dict[str, Any]) -> None:
    for placed in said["placed"].values():
        assert placed["Coordinator"] == placed["FilesActor"] == ["head"]


def cells(folder: Path) -> list[Path]:
    return sorted((folder / folder.name / "cells").iterdir())


def test_one_node_two_and_three_give_the_same_bits(folder: Path) -> None:
    (alone,) = cells(folder / "local")
    for name in ("one", "two", "three"):
        (cell,) = cells(folder / name)
        same_files(alone, cell, NAMES)


def test_a_node_that_joins_is_taken_and_one_that_leaves_costs_nothing(
    folder: Path, said: dict[str, Any]
) -> None:
    events = said["events"]
    joined, gone = events.index([1, 0]), events.index(["lost", 1])
    assert events[0] == [0, 0]
    assert [0, 1] not in events[: joined + 2]  # the first cell stood still until then
    assert sorted(events[joined + 2]) == ["A"] * 3 + ["D"] * 3
    after = [event for event in events[gone:] if event[0] == 1]
    assert after == [[1, 2], [1, 3]]  # not from the beginning: the first two cycles were kept
    undisturbed, elastic = cells(folder / "undisturbed"), cells(folder / "elastic")
    assert len(elastic) == 2
    for one, other in zip(undisturbed, elastic, strict=True):
        assert one.name == other.name
        same_files(one, other, NAMES)
