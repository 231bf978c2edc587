"""Embeddings as teachers: of which windows they are, and what is left of them in a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.features.normalisation import statistics
from mrkd_ray.features.window_sources import split
from mrkd_ray.method import losses, neighbours
from mrkd_ray.networks.catalogue import build
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.branch_task import BranchTask
from mrkd_ray.training.embeddings import Embeddings, Predictor, clip_embeddings
from mrkd_ray.training.targets import HardLabels, Teacher
from tests.conftest import TaskMaker, make_cell

LOGMEL, CQT = "logmel64:vgg_small", "cqt:vgg_small"


@pytest.fixture
def pupil(make_tasks: TaskMaker) -> BranchTask:
    """A task of log-Mel that learns the CQT of its windows, as if that were an embedding."""
    return _pupil(make_tasks)


def _pupil(make_tasks: TaskMaker, **options: Any) -> BranchTask:
    task, mate = make_tasks(LOGMEL, CQT, embedding_weight=3.0, **options)
    return replace(task, embeddings=(mate.store,))


def test_an_embedding_is_the_standardised_mean_of_the_windows_own_frames(
    pupil: BranchTask,
) -> None:
    (store,) = pupil.embeddings
    rows = np.array([2, 0])
    starts = store.bank([pupil.taught[row] for row in rows]).lengths - 150 - np.array([0, 1])
    (found,) = Embeddings(pupil, torch.device("cpu")).batches(rows, starts, 8)
    normal = statistics(store.bank(pupil.train.clip_ids))
    for row, start, embedding in zip(rows, starts, found, strict=True):
        bank = store.bank([pupil.taught[row]])
        frames = bank.frames[bank.offsets[0] :][: bank.lengths[0]]
        own = frames[max(0, start) : start + 150]  # padding counts as the mean
        expected = ((own - normal.mean[0]) / normal.std[0]).sum(axis=0) / 150
        assert embedding.numpy() == pytest.approx(expected, abs=1e-5)


def test_embeddings_are_those_of_the_rows_of_a_minibatch_and_mixed_as_its_windows(
    make_tasks: TaskMaker,
) -> None:
    task = _pupil(make_tasks, mixup=1.0, batch_size=4)
    branch = Branch(task)
    assert branch.embeddings is not None
    plain = iter(branch.minibatches.epoch(0, 0, 0))
    rng = task.rng(0, "order", task.name, 0)
    n = len(task.train.clip_ids)
    order = rng.permutation(n)
    parts = split(order, 4)
    shares = rng.beta(1.0, 1.0, len(parts))
    starts = branch.minibatches.starts(0, 0, np.arange(n))
    for part, share, batch in zip(parts, shares.tolist(), plain, strict=True):
        (own,) = branch.embeddings.batches(part, starts[part], 4)
        assert batch.embeddings is not None
        assert torch.allclose(batch.embeddings, losses.mix(own, share))


def test_soft_labels_need_no_embeddings(pupil: BranchTask) -> None:
    batches = Branch(pupil).minibatches.epoch(0, 0, 0, virtual=True)
    assert all(batch.embeddings is None for batch in batches)


def test_a_branch_learns_them_and_its_model_has_nothing_of_it(
    pupil: BranchTask, tmp_path: Path
) -> None:
    branch, alone = Branch(pupil), Branch(replace(pupil, embeddings=()))
    distances = []
    for _ in range(6):
        branch.train(1)
        distances.append(branch._figures["loss_embedding"])
    alone.train(6)
    assert distances[-1] < 0.8 * distances[0]
    assert "loss_embedding" not in alone._figures
    for each in (branch, alone):
        each.export(tmp_path / str(each is branch))
    kept = [safe_open(tmp_path / f"{flag}/model.safetensors", "pt") for flag in (True, False)]
    assert [*kept[0].keys()] == [*kept[1].keys()]


def test_a_resumed_branch_goes_on_bit_for_bit(pupil: BranchTask, tmp_path: Path) -> None:
    def cycles(branch: Branch, count: int) -> Branch:
        for _ in range(count):
            branch.train(1)
            folder = tmp_path / f"cycle-{branch.cycle + 1:06d}"
            folder.mkdir(exist_ok=True)
            branch.end_cycle(folder)
        return branch

    whole = cycles(Branch(pupil), 2)
    resumed = Branch(pupil)
    assert resumed.resume(tmp_path / "cycle-000001") == 1
    cycles(resumed, 1)
    assert whole.predictor is not None
    assert resumed.predictor is not None
    for one, other in ((whole.network, resumed.network), (whole.predictor, resumed.predictor)):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize("name", ["vgg_small", "squeezenet1_1"])
def test_any_networks_last_features_are_used(name: str) -> None:
    network, _ = build(name, 3)
    predictor = Predictor(network, 5)
    network(torch.randn(2, 3, 64, 150))
    assert predictor().shape == (2, 5)


def test_mates_of_a_frozen_representation_get_its_store_in_a_cohort(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = replace(REPRESENTATIONS["cqt"], weights="mn04")
    monkeypatch.setitem(REPRESENTATIONS._entries, "cqt", frozen)

    def stores(*branches: str, **options: Any) -> list[tuple[Any, ...]]:
        return [task.embeddings for task in branch_tasks(make_cell(*branches, **options), prepared)]

    weight = {"embedding_weight": 3.0}
    assert stores(LOGMEL, CQT, **weight) == [(prepared.stores["cqt"],), ()]
    assert stores(LOGMEL, CQT) == [(), ()]
    assert stores(LOGMEL, **weight, temperature=None) == [()]


@pytest.fixture
def neighbourly(
    with_sounds: Prepared, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., BranchTask]:
    """Tasks with unlabelled clips that ask neighbours in the CQT, as if it were an embedding."""
    frozen = replace(REPRESENTATIONS["cqt"], weights="mn04")
    monkeypatch.setitem(REPRESENTATIONS._entries, "cqt", frozen)

    def make(**options: Any) -> BranchTask:
        cell = make_cell(LOGMEL, CQT, neighbours=3, **options)
        task = branch_tasks(cell, with_sounds)[0]
        assert [store.representation for store in task.neighbourhood] == ["cqt"]
        assert task.unlabelled
        return task

    return make


def test_unlabelled_clips_learn_what_spreads_to_them_whatever_is_trusted(
    neighbourly: Callable[..., BranchTask],
) -> None:
    for trust in (False, True):
        task = neighbourly(trust=trust)
        n = len(task.train.clip_ids)
        says = torch.eye(len(task.classes), dtype=torch.int64)[task.train.labels]
        all_say = torch.cat([says, says.new_zeros(len(task.unlabelled), says.shape[1])])
        embeddings = clip_embeddings(task.neighbourhood, task)
        expected = neighbours.spread(embeddings, all_say, 3)[n:]
        targets = HardLabels(task, torch.device("cpu")).targets(None)
        torch.testing.assert_close(targets[n:], expected)


def test_trust_asks_neighbours_from_the_first_cycle_and_then_the_teacher_as_well(
    neighbourly: Callable[..., BranchTask],
) -> None:
    task = neighbourly(trust=True, label_noise=0.4)
    n, m = len(task.train.clip_ids), len(task.classes)
    hard = HardLabels(task, torch.device("cpu"))
    says = torch.eye(m)[task.train.labels]
    rng = torch.Generator().manual_seed(0)
    rows = torch.rand(len(task.taught), m, generator=rng).softmax(1)
    agreement = neighbours.agreement(
        clip_embeddings(task.neighbourhood, task),
        torch.cat([says, torch.zeros(len(task.unlabelled), m)]).long(),
        3,
    )
    first = hard.targets(None)[:n]
    assert first.sum() < n - 1  # wrong labels are doubted
    torch.testing.assert_close(first, says * losses.trust(says, agreement[:n]))
    later = hard.targets(Teacher(rows, rows, 1.0))[:n]
    torch.testing.assert_close(later, says * losses.trust(says, agreement[:n] * rows[:n]))


def test_a_clips_embedding_is_its_mean_standardised_over_the_clips(pupil: BranchTask) -> None:
    (store,) = pupil.embeddings
    found = clip_embeddings([store, store], pupil)
    means = np.stack(
        [
            bank.frames[bank.offsets[0] :][: bank.lengths[0]].mean(axis=0)
            for bank in (store.bank([clip_id]) for clip_id in pupil.taught)
        ]
    )
    expected = (means - means.mean(axis=0)) / means.std(axis=0)
    assert found.numpy() == pytest.approx(np.hstack([expected, expected]), abs=1e-4)
