"""Which windows a plan expects to be kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.grid.workers import Workers
from mrkd_ray.plan.window_memory import window_memory_of
from mrkd_ray.training.branch_task import BranchTask
from tests.conftest import make_cell


@pytest.mark.parametrize(
    ("asked", "room", "kept"),
    [
        ("auto", 10**9, (True, True)),
        ("auto", 0, (False, False)),
        ("streamed", 10**9, (False, False)),
        ("resident", 0, (True, True)),
    ],
)
def test_the_budget_is_asked_of_a_process_with_the_branchs_share_of_a_card(
    prepared: Prepared, asked: str, room: int, kept: tuple[bool, bool]
) -> None:
    calls: list[tuple[BranchTask, float]] = []

    def on_a_card(function: Any, items: Sequence[BranchTask], gpus: float = 0) -> Iterator[int]:
        calls.extend((item, gpus) for item in items)
        yield room

    cell = make_cell("logmel64:resnet_small", "cqt:vgg_small")
    cell = replace(cell, device="cuda", window_memory=asked)
    workers = Workers(on_a_card, gpus_per_branch=0.5)
    frames = dict.fromkeys(prepared.dataset.by_id, 200)
    (found,) = window_memory_of([cell], prepared, workers, frames).values()
    assert found.kept == kept
    assert found.needed == (24 * 200 * 64 * 12, 24 * 200 * 84 * 12)
    if asked == "auto":
        ((task, gpus),) = calls
        assert (task.gpus, gpus) == (0.5, 0.5)
