"""Frozen teachers answer for the very windows that their student will learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.cells.teachers import check, find
from mrkd_ray.common.errors import UserError
from mrkd_ray.features.windows import Windows
from mrkd_ray.inference.clip_logits import window_logits
from mrkd_ray.inference.model_folder import read_model
from mrkd_ray.method import losses
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.branch_task import BranchTask
from mrkd_ray.training.local_cohort import LocalCohort
from tests.conftest import TaskMaker, make_cell

LOGMEL, CQT = "logmel64:vgg_small", "cqt:vgg_small"
MATCHING: dict[str, Any] = {
    "b": 0,
    "d": 1,
    "warm_up": 0.0,
    "soft_labels": "virtual",
    "mixup": 0.3,
    "augment_gain": 6.0,
    "augment_shift": 0.5,
    "batch_size": 8,
    "average": "logits",
    "divergence": "forward",
    "t_squared": True,
}


@pytest.fixture
def student(taught_cell: Path, with_sounds: Prepared) -> BranchTask:
    """A task with unlabelled clips whose teachers are the branches of `taught_cell`."""
    cell = replace(make_cell(LOGMEL, **MATCHING, seed=3), teachers=find([str(taught_cell)]))
    (task,) = branch_tasks(cell, with_sounds)
    return task


def test_soft_labels_are_the_mean_logits_of_what_the_teachers_make_of_the_students_windows(
    student: BranchTask, taught_cell: Path, make_tasks: TaskMaker
) -> None:
    assert len(student.teachers) == 2
    assert student.unlabelled
    expected = torch.zeros(len(student.taught), len(student.classes))
    for teacher, store in student.teachers:  # a branch in its place, with its weights
        spec = student.spec.model_copy(update={"representation": teacher.representation})
        twin = Branch(replace(student, spec=spec, store=store, teachers=()))
        whole = Branch(make_tasks(LOGMEL, CQT)[teacher.representation == "cqt"])
        np.testing.assert_array_equal(whole.windows.statistics.mean, twin.windows.statistics.mean)
        (taught,) = [b for b in _models(taught_cell) if b.representation == teacher.representation]
        twin.network.load_state_dict(taught.network.state_dict())
        twin.network.eval()
        expected += twin._virtual_logits(0) / 2
    found = torch.from_numpy(Branch(student).soft_labels(2.0))
    torch.testing.assert_close(found, losses.soften(expected, 2.0), atol=1e-5, rtol=1e-4)


def _models(cell: Path) -> list[Any]:
    return [read_model(folder, torch.device("cpu")) for folder in (cell / "branches").iterdir()]


def test_teachers_of_one_representation_share_their_windows(student: BranchTask) -> None:
    again = replace(student, teachers=student.teachers * 2)
    teachers = Branch(again).teachers
    assert teachers is not None
    assert [len(group.networks) for group in teachers._groups] == [2, 2]
    once, twice = (Branch(task).soft_labels(2.0) for task in (student, again))
    np.testing.assert_allclose(once, twice, atol=1e-6)


def test_teachers_learn_nothing_and_the_student_comes_nearer(student: BranchTask) -> None:
    task = replace(student, training=student.training.model_copy(update={"cycles": 30, "lr": 0.05}))
    branch = Branch(task)
    assert branch.teachers is not None
    networks = [net for group in branch.teachers._groups for net, _ in group.networks]
    before = [tensor.clone() for net in networks for tensor in net.state_dict().values()]
    distances = []
    for _ in range(12):
        branch.distil(branch.soft_labels(2.0), 2.0, 1)
        distances.append(branch._figures["loss_distil_kl"])
        branch.cycle += 1
    assert np.mean(distances[-3:]) < 0.8 * np.mean(distances[:3])
    after = [tensor for net in networks for tensor in net.state_dict().values()]
    assert all(map(torch.equal, before, after))


def test_a_model_names_all_that_it_and_its_teachers_have_heard(
    student: BranchTask, tmp_path: Path
) -> None:
    (first, store), *_ = student.teachers
    elsewhere = replace(first, trained_on=first.trained_on | {"f" * 64})
    Branch(replace(student, teachers=((elsewhere, store),))).export(tmp_path / "model")
    heard = (tmp_path / "model" / "trained_on.txt").read_text().split()
    own = {student.store.digests[clip_id] for clip_id in student.taught}
    assert len(heard) == len(set(heard))
    assert set(heard) == own | {"f" * 64}


def test_a_resumed_student_goes_on_bit_for_bit(
    taught_cell: Path, prepared: Prepared, tmp_path: Path
) -> None:
    teachers = find([str(taught_cell)])
    cell = replace(make_cell(LOGMEL, **MATCHING, cycles=3), teachers=teachers)
    tasks = branch_tasks(cell, prepared)

    def run(folder: Path, cycles: int) -> None:
        steps = run_cell(cell, tasks, LocalCohort(tasks, folder), folder)
        for _, _rows in zip(range(cycles), steps, strict=False):
            pass

    run(tmp_path / "whole", 9)
    run(tmp_path / "stopped", 2)
    assert not (tmp_path / "stopped" / "result.json").exists()
    run(tmp_path / "stopped", 9)
    one, other = (
        (tmp_path / name / "predictions.csv").read_bytes() for name in ("whole", "stopped")
    )
    assert one == other


def test_the_embedding_that_a_frozen_teacher_hears_is_learnt_offline_and_on_unlabelled_clips(
    taught_cell: Path, with_sounds: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = replace(REPRESENTATIONS["cqt"], weights="mn04")
    monkeypatch.setitem(REPRESENTATIONS._entries, "cqt", frozen)
    options = MATCHING | {"mixup": 0.0, "embedding_weight": 5.0, "batch_size": 4}
    cell = replace(make_cell(LOGMEL, **options), teachers=find([str(taught_cell)]))
    (task,) = branch_tasks(cell, with_sounds)
    assert task.embeddings == (with_sounds.stores["cqt"],)
    without_files = replace(task, teachers=task.teachers[1:])  # the head on it cannot be read here
    branch = Branch(without_files)
    assert branch.embeddings is not None
    teacher = branch.memory.take(torch.from_numpy(branch.soft_labels(2.0)), 2.0)
    starts = branch.minibatches.starts(0, 0, np.arange(len(task.taught)))
    seen = []
    for batch in branch.minibatches.epoch(0, 0, 0, teacher):
        rows = batch.rows.numpy()
        (expected,) = branch.embeddings.batches(rows, starts[rows], 4)
        torch.testing.assert_close(batch.embeddings, expected)
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(task.taught)))
    assert len(task.unlabelled) == 5


def test_teachers_without_a_part_answer_only_for_clips_that_they_have_not_heard(
    prepared: Prepared, tmp_path: Path
) -> None:
    for part in ("1/2", "2/2"):
        cell = make_cell(LOGMEL, cross_fit=part, cycles=1, batch_size=8, temperature=None)
        tasks = branch_tasks(cell, prepared)
        folder = tmp_path / cell.key
        for _ in run_cell(cell, tasks, LocalCohort(tasks, folder), folder):
            pass
    teachers = find([str(tmp_path / "*")])
    train = prepared.split(1).train
    digests = {prepared.digests[clip_id] for clip_id in train}
    first, second = (teacher.trained_on for teacher in teachers)
    assert first | second == digests
    assert not first & second
    matching = MATCHING | {"soft_labels": "window"}
    cell = replace(make_cell(LOGMEL, **matching), teachers=teachers)
    of_one = replace(prepared, splits=[prepared.split(1)])
    check(teachers, of_one, [cell.training.window])
    (task,) = branch_tasks(cell, prepared)
    branch = Branch(task)
    found = branch.soft_labels(2.0)
    rows = np.arange(len(train))
    starts = branch.minibatches.starts(0, 0, rows)
    for teacher in teachers:
        model = read_model(teacher.folder, torch.device("cpu"))
        windows = Windows(
            task.store.bank(train), model.statistics, torch.device("cpu"), ticks=task.window_ticks
        )
        logits = window_logits(model.network.eval(), windows, rows, starts)
        expected = losses.soften(logits, 2.0)
        new = np.array([prepared.digests[c] not in teacher.trained_on for c in train])
        assert 0 < new.sum() < len(train)
        np.testing.assert_allclose(found[new], expected[new], atol=1e-5)
    with pytest.raises(UserError, match=r"teachers of the parts \d/2: give those of all parts"):
        check(teachers[:1], of_one, [cell.training.window])
    with pytest.raises(UserError, match=r"out of fold \(cross_fit: \d/2\).*soft_labels: window"):
        check(teachers, of_one, [cell.training.window], virtual=True)
    whole = replace(teachers[0], cross_fit=None, trained_on=frozenset(digests))
    with pytest.raises(UserError, match="it has heard all training clips of fold 1"):
        check([*teachers, whole], of_one, [cell.training.window])
