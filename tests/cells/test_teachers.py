"""Which branches may teach a student, and which are refused before it trains."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mrkd_ray.cells import teachers
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common.errors import UserError
from mrkd_ray.training.branch_task import FrozenTeacher


@pytest.fixture(scope="module")
def found(taught_cell: Path) -> tuple[FrozenTeacher, ...]:
    return teachers.find([str(taught_cell)])


def refused(*patterns: Path) -> str:
    with pytest.raises(UserError) as caught:
        teachers.find(map(str, patterns))
    return str(caught.value)


def test_the_branches_of_cells_are_found_each_once(
    taught_cell: Path, found: tuple[FrozenTeacher, ...]
) -> None:
    pattern = str(taught_cell.parent / "distilled_*")
    assert teachers.find([pattern, str(taught_cell)]) == found
    assert [teacher.representation for teacher in found] == ["cqt", "logmel64"]
    assert {teacher.fold for teacher in found} == {1}
    assert len({teacher.digest for teacher in found}) == 2


def test_what_is_no_finished_cell_is_named(taught_cell: Path, tmp_path: Path) -> None:
    lost, best = tmp_path / "lost_*", taught_cell / "branches" / "cqt-vgg_small"
    text = refused(taught_cell, lost, best)
    assert f"{lost}: no cell" in text
    assert f"{best}: no cell" in text
    begun = tmp_path / "cells" / "begun"
    (begun / "branches").mkdir(parents=True)
    assert "not finished" in refused(begun)


def test_a_damaged_teacher_is_refused(taught_cell: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(taught_cell, tmp_path / "cells" / "copy"))
    config = copy / "branches" / "cqt-vgg_small" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"classes": ["other"]}))
    assert "config.json" in refused(copy)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"classes": ("dog", "cat", "cow")}, "other classes"),
        ({"multi_label": True}, "other classes"),
        ({"window_ticks": 500}, "--window 4.989"),
        ({"fold": 2}, "fold 1 has no teacher, only 2"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(
    prepared: Prepared, found: tuple[FrozenTeacher, ...], change: dict[str, Any], told: str
) -> None:
    one_fold = replace(prepared, splits=(prepared.split(1),))
    teachers.check(found, one_fold, {1.5})
    with pytest.raises(UserError, match=told):
        teachers.check([replace(teacher, **change) for teacher in found], one_fold, {1.5})


def test_a_teacher_that_has_heard_a_test_clip_is_refused(
    prepared: Prepared, found: tuple[FrozenTeacher, ...]
) -> None:
    one_fold = replace(prepared, splits=(prepared.split(1),))
    tested = prepared.digests[prepared.split(1).test[0]]
    heard = replace(found[1], trained_on=found[1].trained_on | {tested})
    with pytest.raises(UserError, match="trained on 1 of the 12 test clips of fold 1"):
        teachers.check([found[0], heard], one_fold, {1.5})
    other_fold = [replace(teacher, fold=2) for teacher in found]
    with pytest.raises(UserError, match="trained on 12 of the 12 test clips of fold 2"):
        teachers.check([*found, *other_fold], prepared, {1.5})
