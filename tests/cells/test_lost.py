"""What a cell has lost, read again: whole, or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrkd_ray.cells import lost
from mrkd_ray.common.reading import Damaged


def test_attempts_are_counted_in_one_run(tmp_path: Path) -> None:
    assert [lost.attempt(tmp_path, run) for run in ("a", "a", "b", "b", "a")] == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("text", ["", "[1]", '{"run": "a"}', '{"run": "a", "attempts": "x"}'])
def test_attempts_that_are_damaged_are_counted_anew(tmp_path: Path, text: str) -> None:
    lost.attempt(tmp_path, "a")
    (tmp_path / "checkpoint" / lost.ATTEMPTS).write_text(text)
    assert lost.attempt(tmp_path, "a") == 1


@pytest.mark.parametrize("each", ["1", '{"cycle": "1", "error": "x"}', '{"cycle": 1}'])
def test_a_list_of_lost_branches_that_is_another_is_damaged(tmp_path: Path, each: str) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / lost.FILE).write_text(f'{{"a": {each}}}')
    with pytest.raises(Damaged, match=r"lost\.json: damaged: not a list"):
        lost.read(tmp_path)
