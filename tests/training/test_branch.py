"""One branch: which windows it sees under which labels, and what it makes of its logits."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.method import PRETRAINED_LR, SCRATCH_LR
from mrkd_ray.features.normalisation import statistics
from mrkd_ray.features.window_sources import Index, split
from mrkd_ray.features.windows import Windows
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.method import losses
from mrkd_ray.networks import catalogue as networks
from mrkd_ray.networks.registry import NETWORKS, network
from mrkd_ray.training import branch as branch_module
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.branch_task import BranchTask, Part
from mrkd_ray.training.targets import HardLabels, Teacher
from tests.conftest import TaskMaker, make_cell

LOGMEL, CQT = "logmel64:vgg_small", "cqt:vgg_small"
WINDOW = 150
HEAT = 2.0


def weights(branch: Branch) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in branch.network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


def teacher_for(task: BranchTask) -> Float32:
    """A teacher whose rows all differ."""
    rng = np.random.default_rng(3)
    n = len(task.train.clip_ids)
    return rng.dirichlet(np.ones(len(task.classes)), size=n).astype(np.float32)


def one_hot(task: BranchTask) -> Float32:
    return np.eye(len(task.classes), dtype=np.float32)[task.train.labels]


class Seen:
    """What went through one branch since `clear`, batch by batch."""

    def __init__(self, branch: Branch) -> None:
        self.inputs: list[Tensor] = []
        self.gathered: list[tuple[list[int], list[int]]] = []
        branch.network.register_forward_pre_hook(self._forward)
        batches = branch.windows.batches

        def spy(clips: Index, starts: Index, size: int) -> Iterator[Tensor]:
            parts = zip(split(clips, size), split(starts, size), strict=True)
            self.gathered += [(clips.tolist(), starts.tolist()) for clips, starts in parts]
            return batches(clips, starts, size)

        branch.windows.batches = spy  # type: ignore[method-assign]

    def _forward(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.inputs.append(arguments[0].detach().clone())

    def take(self) -> tuple[list[Tensor], list[dict[int, int]]]:
        """Return the inputs, and the start of each clip's window pass by pass; forget both."""
        passes: list[dict[int, int]] = [{}]
        for clips, starts in self.gathered:
            for clip, start in zip(clips, starts, strict=True):
                if clip in passes[-1]:
                    passes.append({})
                passes[-1][clip] = start
        inputs, self.inputs, self.gathered = self.inputs, [], []
        return inputs, passes


def recorded(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Record the arguments of every call of `owner.name`, which goes on working."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    real = getattr(owner, name)

    def spy(*arguments: Any, **keywords: Any) -> Any:
        calls.append((arguments, keywords))
        return real(*arguments, **keywords)

    monkeypatch.setattr(owner, name, spy)
    return calls


@pytest.fixture
def dropout_network() -> Iterator[str]:
    """A registered network with dropout, for the time of a test."""

    @network("dropout_test", description="for a test", imagenet=True)
    def build(n_classes: int) -> nn.Module:
        layers = (nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.5))
        return nn.Sequential(*layers, nn.Linear(48, n_classes))

    yield "logmel64:dropout_test"
    del NETWORKS._entries["dropout_test"]


@pytest.mark.parametrize("window", [0.8, 3.0])
def test_a_model_hears_windows_as_long_as_in_training(
    make_tasks: TaskMaker, prepared: Prepared, tmp_path: Path, window: float
) -> None:
    (task,) = make_tasks(LOGMEL, window=window, specaugment_time=150)
    branch = Branch(task)
    (minibatch, *_) = branch.minibatches.epoch(0, 0, 0)
    assert minibatch.inputs.shape[3] == round(window * 22_050 / 220)
    branch.train(1)
    branch.export(tmp_path)
    model = Classifier.load(tmp_path)
    files = [prepared.dataset.by_id[i].path for i in task.test.clip_ids]
    found = [each.branches[0] for each in model.predict(files)]
    np.testing.assert_allclose(found, branch.probabilities("test"), rtol=0, atol=1e-5)


def test_balanced_classes_weigh_the_same_however_few_clips_they_have(
    make_tasks: TaskMaker,
) -> None:
    (task,) = make_tasks(LOGMEL, class_weights="balanced")
    few = np.array([0, *[1] * (len(task.train.labels) - 3), 2, 2])
    task = replace(task, train=replace(task.train, labels=few))
    targets = HardLabels(task, torch.device("cpu")).targets(None)
    np.testing.assert_allclose(targets.sum(dim=0), [len(few) / 3] * 3, rtol=1e-6)
    np.testing.assert_array_equal(targets.argmax(dim=1), few)


def test_sampled_classes_are_drawn_as_often_and_weighed_in_distillation(
    make_tasks: TaskMaker,
) -> None:
    (task,) = make_tasks(LOGMEL, class_weights="sampled", mixup=0.0, batch_size=4)
    few = np.array([0, *[1] * (len(task.train.labels) - 3), 2, 2])
    task = replace(task, train=replace(task.train, labels=few))
    minibatches = Branch(task).minibatches
    targets, windows = zip(
        *((batch.targets, batch.inputs.clone()) for batch in minibatches.epoch(0, 0, 0)),
        strict=True,
    )
    seen = torch.cat(targets).sum(dim=0)
    np.testing.assert_array_equal(seen, [len(few) / 3] * 3)  # each window weighs 1
    shown = torch.cat(windows).flatten(1)
    assert len(shown.unique(dim=0)) == len(few)  # a clip that is drawn again shows another window
    teacher = Teacher(torch.from_numpy(teacher_for(task)), None, 1.0)
    distilled = list(minibatches.epoch(0, 0, 0, teacher))
    assert sorted(torch.cat([b.rows for b in distilled]).tolist()) == list(range(len(few)))
    weighed = torch.cat([batch.targets for batch in distilled]).sum(dim=0)
    np.testing.assert_allclose(weighed, [len(few) / 3] * 3, rtol=1e-6)


# Soft labels -----------------------------------------------------------------------------------


def clip_logits(branch: Branch, part: Part) -> Float32:
    """Mean logits over each clip's evenly spaced windows, clip by clip, worked out apart."""
    task, rows = branch.task, []
    branch.network.eval()
    for clip_id in part.clip_ids:
        windows = Windows(
            task.store.bank([clip_id]), branch.windows.statistics, branch.compute.device
        )
        last = int(windows.lengths[0]) - WINDOW
        count = -(-max(int(windows.lengths[0]), 1) // WINDOW)
        starts = np.rint(np.linspace(0, last, count)) if last > 0 else [last // 2]
        begins = np.array(starts, np.int64)
        with torch.no_grad():
            batches = windows.batches(np.zeros(len(begins), np.int64), begins, 1)
            logits = [branch.network(batch) for batch in batches]
        rows.append(torch.cat(logits).mean(dim=0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_labels_of_clips(make_tasks: TaskMaker, temperature: float) -> None:
    (task,) = make_tasks(LOGMEL)
    branch = Branch(task)
    branch.train(1)
    soft = branch.soft_labels(temperature)
    assert soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=0, atol=1e-6)
    logits = clip_logits(branch, task.train)
    expected = scipy.special.softmax(logits / temperature, axis=1)
    np.testing.assert_allclose(soft, expected, rtol=0, atol=1e-5)
    # Rows tell the clips apart: in another order they would not have passed.
    assert np.abs(expected - np.roll(expected, 1, axis=0)).max() > 1e-3
    lengths = branch.windows.lengths
    assert lengths.min() < WINDOW < lengths.max()


def test_soft_labels_follow_the_order_of_the_task(make_tasks: TaskMaker) -> None:
    (task,) = make_tasks(LOGMEL)
    shuffled = np.random.default_rng(0).permutation(len(task.train.clip_ids))
    part = Part(
        clip_ids=tuple(task.train.clip_ids[i] for i in shuffled), labels=task.train.labels[shuffled]
    )
    soft = Branch(task).soft_labels(HEAT)
    other = Branch(replace(task, train=part)).soft_labels(HEAT)
    np.testing.assert_allclose(other, soft[shuffled], rtol=0, atol=1e-5)


def test_soft_labels_of_windows_are_those_that_every_distillation_epoch_trains_on(
    make_tasks: TaskMaker,
) -> None:
    tasks = make_tasks(LOGMEL, CQT, soft_labels="window", b=2, d=2)
    starts = []
    for task in tasks:
        branch = Branch(task)
        seen = Seen(branch)
        for _ in range(2):
            branch.train(2)
            _, first_epochs = seen.take()
            soft = branch.soft_labels(HEAT)
            inputs, (made_with,) = seen.take()
            assert sorted(made_with) == list(range(len(task.train.clip_ids)))
            with torch.no_grad():
                logits = torch.cat([branch.network.eval()(x) for x in inputs])
            expected = scipy.special.softmax(logits.numpy() / HEAT, axis=1)
            np.testing.assert_allclose(soft, expected, rtol=0, atol=1e-6)
            seen.take()
            branch.distil(teacher_for(task), HEAT, 2)
            _, trained_on = seen.take()
            assert trained_on == [made_with, made_with]
            assert made_with not in first_epochs
            assert first_epochs[0] != first_epochs[1]
            starts.append([*first_epochs, made_with])
            branch.cycle += 1
    one, next_cycle, other_representation, _ = starts
    assert one == other_representation
    assert all(a != b for a in one for b in next_cycle)


def test_distillation_on_soft_labels_of_clips_draws_a_new_window_each_epoch(
    make_tasks: TaskMaker,
) -> None:
    (task,) = make_tasks(LOGMEL, d=2)
    branch = Branch(task)
    seen = Seen(branch)
    branch.train(1)
    branch.distil(teacher_for(task), HEAT, 2)
    first, second, third = seen.take()[1]
    assert first != second != third != first


def test_virtual_samples_are_what_soft_labels_are_of_and_what_is_trained_on(
    make_tasks: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"soft_labels": "virtual", "mixup": 1.0, "batch_size": 5}
    drawn = []
    for task in make_tasks(LOGMEL, CQT, **options):
        branch = Branch(task)
        branch.train(1)
        seen, mixed = Seen(branch), recorded(monkeypatch, losses, "mix")
        soft = branch.soft_labels(HEAT)
        inputs, (made_with,) = seen.take()
        shares = [call[0][1] for call in mixed[::2]]  # inputs, then hard labels
        with torch.no_grad():
            logits = torch.cat([branch.network.eval()(x) for x in inputs]).numpy()
        expected = scipy.special.softmax(logits / HEAT, axis=1)
        np.testing.assert_allclose(soft[list(made_with)], expected, rtol=0, atol=1e-6)
        seen.take()
        mixed.clear()
        lost = recorded(monkeypatch, losses, "distillation_loss")
        branch.distil(soft, HEAT, 1)
        again, (trained_on,) = seen.take()
        assert list(trained_on.items()) == list(made_with.items())  # order and windows
        for one, other in zip(inputs, again, strict=True):
            assert torch.equal(one, other)
        assert [call[0][1] for call in mixed[::2]] == shares  # hard labels are mixed, no teacher
        assert min(shares) >= 0.5  # a row is mostly its own clip's
        for ((_, targets, teacher), _), clips in zip(lost, split_of(made_with, 5), strict=True):
            np.testing.assert_array_equal(teacher, soft[clips])  # as it is
            assert targets.sum(dim=1) == pytest.approx(np.ones(len(clips)))
        drawn.append((list(made_with.items()), shares))
    assert drawn[0] == drawn[1]  # in another representation too


def split_of(clips: dict[int, int], size: int) -> list[Index]:
    return split(np.array(list(clips)), size)


@pytest.mark.parametrize("unverified", [(), (1, 4)])
def test_trust_weighs_hard_labels_that_nobody_verified(
    make_tasks: TaskMaker, monkeypatch: pytest.MonkeyPatch, unverified: tuple[int, ...]
) -> None:
    (task,) = make_tasks(LOGMEL, mixup=0.0, trust=True)
    task = replace(task, train=replace(task.train, unverified=unverified))
    teacher = np.full((len(task.train.clip_ids), 3), 0.25, np.float32)
    teacher[:, 0] = 0.5
    branch = Branch(task)
    seen, lost = Seen(branch), recorded(monkeypatch, losses, "distillation_loss")
    branch.distil(teacher, HEAT, 1)
    weights = np.where(task.train.labels == 0, 1.0, 0.5)
    if unverified:  # where people verified some, those are believed
        weights[[i for i in range(len(weights)) if i not in unverified]] = 1.0
    for ((_, targets, _), _), (clips, _) in zip(lost, seen.gathered, strict=True):
        np.testing.assert_allclose(targets, one_hot(task)[clips] * weights[clips][:, None])


def test_teachers_are_remembered_over_cycles(
    make_tasks: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = make_tasks(LOGMEL, mixup=0.0, teacher_momentum=0.75, trust=True, cycles=3)
    rng = np.random.default_rng(0)
    teachers = rng.dirichlet(np.ones(3), (3, len(task.train.clip_ids))).astype(np.float32)
    branch = Branch(task)
    seen, lost = Seen(branch), recorded(monkeypatch, losses, "distillation_loss")
    for branch.cycle, teacher in enumerate(teachers):
        branch.distil(teacher, HEAT, 1)
    belief = 0.75 * (0.75 * teachers[0] + 0.25 * teachers[1]) + 0.25 * teachers[2]
    of_label = belief[np.arange(len(belief)), task.train.labels] / belief.max(axis=1)
    calls = list(zip(lost, seen.gathered, strict=True))
    for ((_, targets, soft), _), (clips, _) in calls[-(len(calls) // 3) :]:
        np.testing.assert_allclose(soft, belief[clips], rtol=1e-5)
        np.testing.assert_allclose(targets.sum(dim=1), of_label[clips], rtol=1e-5)


def test_soft_labels_and_evaluation_change_nothing(make_tasks: TaskMaker) -> None:
    (task,) = make_tasks("logmel64:resnet_small")
    branch = Branch(task)
    branch.train(1)
    before = weights(branch)
    soft = branch.soft_labels(HEAT)
    branch.probabilities("test")
    assert same(weights(branch), before)  # running statistics of BatchNorm as well
    np.testing.assert_array_equal(branch.soft_labels(HEAT), soft)


# Distillation ----------------------------------------------------------------------------------


def test_without_the_teachers_weight_distillation_is_training(make_tasks: TaskMaker) -> None:
    outcomes = {}
    for kl_weight in (0.0, 1.0):
        (task,) = make_tasks(LOGMEL, kl_weight=kl_weight)
        distilled, alone = Branch(task), Branch(task)
        for branch in (distilled, alone):
            for _ in range(2):
                if branch is alone:
                    branch.train(2)
                else:
                    branch.train(1)
                    branch.distil(teacher_for(task), HEAT, 1)
                branch.cycle += 1
        outcomes[kl_weight] = same(weights(distilled), weights(alone))
    assert outcomes == {0.0: True, 1.0: False}  # bit for bit: only the teacher tells them apart


def test_an_independent_branch_sees_the_batches_of_its_distilled_twin(
    make_tasks: TaskMaker,
) -> None:
    (task,) = make_tasks(LOGMEL, b=1, d=2)
    distilled, alone = Branch(task), Branch(task)
    batches = []
    for branch in (distilled, alone):
        seen = Seen(branch)
        for _ in range(2):
            if branch is alone:
                branch.train(3)
            else:
                branch.train(1)
                branch.distil(teacher_for(task), HEAT, 2)
            branch.cycle += 1
        batches.append(seen.take()[0])
    assert len(batches[0]) == 2 * 3 * 2  # cycles, epochs, batches
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
    for i, batch in enumerate(batches[0]):  # and no batch comes twice, in no epoch or cycle
        assert not any(torch.equal(batch, other) for other in batches[0][:i])


def test_every_epoch_shows_every_clip_once_in_a_new_order(make_tasks: TaskMaker) -> None:
    (task,) = make_tasks(LOGMEL, batch_size=5)
    branch = Branch(task)
    seen = Seen(branch)
    branch.train(2)
    clips = [clip for clips, _ in seen.gathered for clip in clips]
    n = len(task.train.clip_ids)
    assert [len(clips) for clips, _ in seen.gathered] == [4, 4, 4] * 2  # none left with one clip
    assert sorted(clips[:n]) == sorted(clips[n:]) == list(range(n))
    assert clips[:n] != clips[n:]


# Unlabelled clips ------------------------------------------------------------------------------


def unlabelled_tasks(prepared: Prepared, **options: Any) -> tuple[BranchTask, BranchTask]:
    """A distilled branch with 6 labelled and 6 + 5 unlabelled clips, and its baseline."""
    cell = make_cell(LOGMEL, **{"labelled": 0.5, "mixup": 0.0, **options})
    alone = replace(cell, condition="independent", temperature=None)
    (task,), (baseline,) = (branch_tasks(each, prepared) for each in (cell, alone))
    return task, baseline


@pytest.mark.parametrize("soft_labels", ["clip", "window", "virtual"])
def test_distillation_is_a_pass_over_all_clips_and_training_as_many_steps(
    with_sounds: Prepared, soft_labels: str
) -> None:
    epochs = {}
    for task in unlabelled_tasks(with_sounds, soft_labels=soft_labels, augment_gain=6.0):
        branch = Branch(task)
        seen = Seen(branch)
        branch.train(1)
        pairs = [(c, s) for part in seen.gathered for c, s in zip(*part, strict=True)]
        assert Counter(Counter(clip for clip, _ in pairs).values()) == {3: 5, 2: 1}  # 17 of 6
        assert len(set(pairs)) > 10  # windows differ from pass to pass
        epochs[task.unlabelled] = pairs, [len(part[0]) for part in seen.gathered]
        if task.unlabelled:
            seen.take()
            soft = branch.soft_labels(HEAT)
            windows = seen.take()[1][0]
            made_with = {} if soft_labels == "clip" else windows
            branch.distil(soft, HEAT, 1)
            trained_on = {c: s for part in seen.gathered for c, s in zip(*part, strict=True)}
            assert made_with in ({}, trained_on)
            assert sorted(c for part in seen.gathered for c in part[0]) == list(range(17))
            assert [len(part[0]) for part in seen.gathered] == epochs[task.unlabelled][1]
    distilled, alone = epochs.values()
    assert distilled == alone  # training epochs are the baseline's


def test_unlabelled_clips_have_soft_labels_and_no_hard_ones(
    with_sounds: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = unlabelled_tasks(with_sounds, unverified_kl=0.5)
    branch = Branch(task)
    soft = branch.soft_labels(HEAT)
    everything = Part(clip_ids=task.taught, labels=np.zeros(17, np.int64))
    expected = scipy.special.softmax(clip_logits(branch, everything) / HEAT, axis=1)
    np.testing.assert_allclose(soft, expected, rtol=0, atol=1e-5)
    seen = Seen(branch)
    lost = recorded(monkeypatch, losses, "distillation_loss")
    branch.distil(soft, HEAT, 1)
    labels = np.concatenate([one_hot(task), np.zeros((11, 3), np.float32)])
    for ((_, targets, teacher), options), (clips, _) in zip(lost, seen.gathered, strict=True):
        assert targets.tolist() == labels[clips].tolist()
        assert teacher.tolist() == soft[clips].tolist()
        assert options["weights"].tolist() == [1] * len(clips)
    labelled = statistics(task.store.bank(task.train.clip_ids))
    np.testing.assert_array_equal(
        branch.windows.statistics.mean, labelled.mean
    )  # as in the baseline


def test_hidden_labels_do_not_leak(with_sounds: Prepared) -> None:
    dataset, train = with_sounds.dataset, with_sounds.splits[0].train
    task, _ = unlabelled_tasks(with_sounds)
    hidden = [clip_id for clip_id in train if clip_id not in task.train.clip_ids]
    swaps = (  # two hidden labels changed for each other, such that the same clips stay hidden
        {a: dataset.by_id[b].label, b: dataset.by_id[a].label}
        for a, b in itertools.combinations(hidden, 2)
        if dataset.by_id[a].label != dataset.by_id[b].label
    )
    for swap in swaps:
        clips = tuple(replace(c, labels=(swap.get(c.clip_id, c.label),)) for c in dataset.clips)
        changed = replace(with_sounds, dataset=replace(dataset, clips=clips))
        other, _ = unlabelled_tasks(changed)
        if other.train.clip_ids == task.train.clip_ids:
            break
    else:
        pytest.fail("no labels to swap")
    trained = []
    for each in (task, other):
        branch = Branch(each)
        branch.train(1)
        branch.distil(branch.soft_labels(HEAT), HEAT, 1)
        trained.append(weights(branch))
    assert same(*trained)


def test_a_model_was_trained_on_its_unlabelled_clips(with_sounds: Prepared, tmp_path: Path) -> None:
    for task in unlabelled_tasks(with_sounds):
        Branch(task).export(tmp_path / task.name)
        digests = (tmp_path / task.name / "trained_on.txt").read_text().split()
        assert digests == [task.store.digests[clip_id] for clip_id in task.taught]


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_inputs_labels_and_teacher_stay_together(
    make_tasks: TaskMaker, monkeypatch: pytest.MonkeyPatch, mixup: float
) -> None:
    (task,) = make_tasks(LOGMEL, mixup=mixup)
    branch = Branch(task)
    seen = Seen(branch)
    mixed = recorded(monkeypatch, losses, "mix")
    lost = recorded(monkeypatch, losses, "distillation_loss")
    branch.distil(one_hot(task), HEAT, 1)
    assert len(lost) == 2
    labels = torch.from_numpy(one_hot(task))
    for batch, ((_, targets, soft), options) in enumerate(lost):
        assert options["temperature"] == HEAT
        assert torch.equal(targets, soft)  # this teacher is the labels, so it must stay so
        clips, starts = (np.array(values) for values in seen.gathered[batch])
        (plain,) = Windows.batches(branch.windows, clips, starts, len(clips))
        if mixup:
            (share, *others) = [call[0][1] for call in mixed[3 * batch : 3 * batch + 3]]
            assert others == [share, share]
            assert 0 < share < 1
            own = labels[clips]
            inputs = share * plain + (1 - share) * plain.roll(-1, dims=0)
            expected = share * own + (1 - share) * own.roll(-1, dims=0)
        else:
            inputs, expected = plain, labels[clips]
        assert torch.allclose(targets, expected)
        assert torch.allclose(seen.inputs[batch], inputs, atol=1e-5)
    assert len(mixed) == (6 if mixup else 0)


def test_training_without_mixup_takes_the_plain_labels(
    make_tasks: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = make_tasks(LOGMEL, mixup=0.0)
    branch = Branch(task)
    seen = Seen(branch)
    lost = recorded(monkeypatch, losses, "cross_entropy")
    branch.train(1)
    for ((_, targets), _), (clips, _) in zip(lost, seen.gathered, strict=True):
        assert targets.tolist() == one_hot(task)[clips].tolist()


def test_a_teacher_in_the_object_store_is_read_only(make_tasks: TaskMaker) -> None:
    (task,) = make_tasks(LOGMEL)
    teacher = teacher_for(task)
    teacher.flags.writeable = False
    before = teacher.copy()
    Branch(task).distil(teacher, HEAT, 1)
    np.testing.assert_array_equal(teacher, before)


@pytest.mark.parametrize("options", [{"divergence": "forward"}, {"t_squared": True}, {"gce": 0.7}])
def test_options_of_the_loss_reach_it(
    make_tasks: TaskMaker, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = make_tasks(LOGMEL, kl_weight=0.25, **options)
    lost = recorded(monkeypatch, losses, "distillation_loss")
    Branch(task).distil(teacher_for(task), 3.0, 1)
    expected = {"kind": "reverse", "t_squared": False, "ce_weight": 1.0, "q": 0.0} | {
        {"divergence": "kind", "gce": "q"}.get(name, name): value for name, value in options.items()
    }
    assert lost[0][1] == {**expected, "temperature": 3.0, "kl_weight": 0.25, "weights": None}


def test_clips_without_a_verified_label_weigh_less_in_ce_and_more_in_kl(
    make_tasks: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = make_tasks(LOGMEL, mixup=0.0, unverified_ce=0.25, unverified_kl=3.0)
    task = replace(task, train=replace(task.train, unverified=(1, 4)))
    branch = Branch(task)
    seen = Seen(branch)
    lost = recorded(monkeypatch, losses, "distillation_loss")
    branch.distil(one_hot(task), HEAT, 1)
    for ((_, targets, soft), options), (clips, _) in zip(lost, seen.gathered, strict=True):
        doubtful = np.isin(clips, (1, 4))
        assert targets.sum(dim=1).tolist() == np.where(doubtful, 0.25, 1.0).tolist()
        assert soft.sum(dim=1).tolist() == [1.0] * len(clips)
        assert options["weights"].tolist() == np.where(doubtful, 3.0, 1.0).tolist()


def test_weights_of_the_teacher_are_mixed_as_its_rows_are(
    make_tasks: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = make_tasks(LOGMEL, mixup=0.4, unverified_kl=3.0)
    task = replace(task, train=replace(task.train, unverified=(0, 1, 2, 3, 4)))
    lost = recorded(monkeypatch, losses, "distillation_loss")
    trusted = np.zeros((len(task.train.clip_ids), 3), np.float32)
    trusted[:5, 0] = 1  # a teacher whose first class says which clips are not verified
    trusted[5:, 1] = 1
    Branch(task).distil(trusted, HEAT, 1)
    for (_, _, soft), options in lost:
        assert torch.allclose(options["weights"], 1 + 2 * soft[:, 0])


# Randomness ------------------------------------------------------------------------------------


def outcome(task: BranchTask) -> dict[str, Tensor]:
    branch = Branch(task)
    branch.train(2)
    branch.distil(branch.soft_labels(HEAT), HEAT, 1)
    return weights(branch)


def test_dropout_and_initial_weights_come_from_the_seed_and_leave_torchs_generator_alone(
    make_tasks: TaskMaker, dropout_network: str
) -> None:
    (task,) = make_tasks(dropout_network, weights="none")
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = outcome(task)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert same(outcome(task), first)
    assert not same(outcome(replace(task, seed=1)), first)
    assert not same(outcome(replace(task, name="another")), first)


def test_dropout_drops_others_in_each_epoch(make_tasks: TaskMaker, dropout_network: str) -> None:
    (task,) = make_tasks(dropout_network, weights="none")
    branch = Branch(task)
    states: list[Tensor] = []
    (layer,) = (m for m in branch.network.modules() if isinstance(m, nn.Dropout))
    layer.register_forward_pre_hook(lambda *_: states.append(torch.random.get_rng_state()))
    branch.train(2)
    branch.cycle += 1
    branch.train(1)
    assert len(states) == 6
    for i, state in enumerate(states):
        assert not any(torch.equal(state, other) for other in states[:i])


@pytest.mark.parametrize("change", [{"fold": 2}, {"seed": 1}])
def test_another_fold_or_seed_draws_other_windows(
    make_tasks: TaskMaker, change: dict[str, int]
) -> None:
    (task,) = make_tasks(LOGMEL)
    drawn = []
    for variant in (task, replace(task, **change)):  # the same clips
        branch = Branch(variant)
        seen = Seen(branch)
        branch.train(1)
        drawn.append(seen.take()[1])
    assert drawn[0] != drawn[1]


# Learning rate, weights, figures ---------------------------------------------------------------


def test_learning_rate_is_annealed_by_cycles_and_used_by_every_epoch(
    make_tasks: TaskMaker, tmp_path: Path
) -> None:
    (task,) = make_tasks(LOGMEL, cycles=3, lr=0.04)
    branch = Branch(task)
    reported, used = [], []

    def note(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        used.append(optimiser.param_groups[0]["lr"])

    branch.optimiser.register_step_pre_hook(note)
    for _ in range(3):
        branch.train(1)
        branch.distil(teacher_for(task), HEAT, 1)
        reported.append(branch.end_cycle(tmp_path)["lr"])
    assert reported == [0.04, pytest.approx(0.03), pytest.approx(0.01)]  # cos 60 and 120 degrees
    assert used == [rate for rate in reported for _ in range(4)]


def test_rate_and_weights_where_none_are_given(
    make_tasks: TaskMaker,
    dropout_network: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    real = networks.build

    def build(name: str, n_classes: int, weights: str, **windows: Any) -> Any:
        asked.append(weights)
        return real(name, n_classes, "none" if weights == "imagenet" else weights, **windows)

    monkeypatch.setattr(branch_module, "build", build)
    file = tmp_path / "pretrained.safetensors"
    given = weights(Branch(make_tasks(LOGMEL)[0]))
    save_file({key: value.contiguous() for key, value in given.items()}, file)
    asked.clear()
    cases: list[tuple[str, dict[str, Any], str, float]] = [
        (LOGMEL, {}, "none", SCRATCH_LR),
        (dropout_network, {}, "imagenet", PRETRAINED_LR),
        (dropout_network, {"weights": "none"}, "none", SCRATCH_LR),
        (LOGMEL, {"weights": str(file)}, str(file), PRETRAINED_LR),
        (LOGMEL, {"weights": str(file), "lr": 0.5}, str(file), 0.5),
        (LOGMEL, {"lr": 0.5}, "none", 0.5),
    ]
    for spec, options, wanted, rate in cases:
        (task,) = make_tasks(spec, **{"lr": None, **options})
        branch = Branch(task)
        branch.train(1)
        assert (asked.pop(), branch.optimiser.param_groups[0]["lr"]) == (wanted, rate)


def test_loss_goes_down(make_tasks: TaskMaker, tmp_path: Path) -> None:
    (task,) = make_tasks(LOGMEL, cycles=4, lr=0.02, mixup=0.0)
    branch = Branch(task)
    rows = []
    for _ in range(4):
        branch.train(1)
        branch.distil(branch.soft_labels(HEAT), HEAT, 1)
        rows.append(branch.end_cycle(tmp_path))
    assert rows[-1]["loss_ce"] < 0.5 * rows[0]["loss_ce"]
    assert rows[-1]["loss_distil_ce"] < 0.5 * rows[0]["loss_ce"]


def test_losses_are_means_over_the_last_epochs_batches(
    make_tasks: TaskMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts: list[list[float]] = []
    real = losses.distillation_loss

    def spy(*arguments: Tensor, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
        result = real(*arguments, **options)
        parts.append([x.item() for x in result])
        return result

    monkeypatch.setattr(losses, "distillation_loss", spy)
    (task,) = make_tasks(LOGMEL, d=2, kl_weight=0.5, t_squared=True)
    branch = Branch(task)
    branch.distil(teacher_for(task), HEAT, 2)
    row = branch.end_cycle(tmp_path)
    _, ce, kl = np.mean(parts[2:], axis=0)  # unweighted
    assert row["loss_distil_ce"] == pytest.approx(ce, rel=1e-6)
    assert row["loss_distil_kl"] == pytest.approx(kl, rel=1e-6)
    assert "loss_ce" not in row


def test_figures_are_of_the_test_clips_and_probabilities_of_temperature_one(
    make_tasks: TaskMaker, tmp_path: Path
) -> None:
    (task,) = make_tasks(LOGMEL)
    held_out = slice(4, 9)
    part = Part(clip_ids=task.test.clip_ids[held_out], labels=task.test.labels[held_out].copy())
    branch = Branch(replace(task, held_out=part))
    branch.train(1)
    with torch.no_grad():  # even the classes out, so that guesses differ from clip to clip
        (*_, head) = (m for m in branch.network.modules() if isinstance(m, nn.Linear))
        head.bias -= torch.from_numpy(clip_logits(branch, task.test).mean(axis=0))
    expected = scipy.special.softmax(clip_logits(branch, task.test), axis=1)
    found = branch.probabilities("test"), branch.probabilities("held_out")
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1], expected[held_out], rtol=0, atol=1e-5)
    guesses = expected.argmax(axis=1)
    assert (guesses[held_out] != guesses[:5]).any()
    for wrong in (0, 2, 5):  # the first ones of the held-out clips
        part.labels[:] = (guesses[held_out] + (np.arange(5) < wrong)) % 3
        assert branch.held_out_accuracy() == pytest.approx(1 - wrong / 5)
    row = branch.end_cycle(tmp_path)
    assert row["accuracy"] == np.mean(guesses == task.test.labels)
    assert (row["cycle"], row["branch"]) == (0, task.name)


def test_normalisation_comes_from_the_training_clips_alone(make_tasks: TaskMaker) -> None:
    (task,) = make_tasks(LOGMEL)
    branch = Branch(task)
    seen = Seen(branch)
    branch.probabilities("test")
    inputs, _ = seen.take()
    own = statistics(task.store.bank(task.train.clip_ids))
    everything = statistics(task.store.bank([*task.train.clip_ids, *task.test.clip_ids]))
    assert np.abs(own.mean - everything.mean).max() > 1e-2
    alone = Windows(task.store.bank(task.test.clip_ids), own, torch.device("cpu"))
    clips = np.arange(len(task.test.clip_ids), dtype=np.int64)
    owners, starts = alone.even_starts(clips)
    torch.testing.assert_close(
        torch.cat(inputs),
        torch.cat([x.clone() for x in alone.batches(owners, starts, 64)]),
        rtol=0,
        atol=1e-5,
    )


def test_the_number_of_threads_is_put_back(make_tasks: TaskMaker) -> None:
    (task,) = make_tasks(LOGMEL)
    inside: list[int] = []
    branch = Branch(replace(task, threads=2))
    branch.network.register_forward_pre_hook(lambda *_: inside.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        branch.train(1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(inside) == {2}


def test_a_device_with_too_little_memory_names_the_batches_that_fit(
    make_tasks: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = make_tasks("logmel64:resnet_small", batch_size=12)
    branch = Branch(task)
    logits = branch.compute.logits

    def limited(network: torch.nn.Module, windows: torch.Tensor) -> torch.Tensor:
        if len(windows) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(network, windows)

    monkeypatch.setattr(branch.compute, "logits", limited)
    with pytest.raises(UserError, match=r"logmel64-resnet_small: cpu .* batches of 12 .*-size 3 f"):
        branch.train(1)
    with pytest.raises(UserError, match=r"cpu has too little memory \(soft labels, 64 windows"):
        branch.soft_labels(1.0)


def test_a_batch_fits_where_a_whole_step_does(
    make_tasks: TaskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = make_tasks("logmel64:resnet_small", batch_size=12)
    branch = Branch(task)

    def full(*given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(branch.optimiser, "step", full)  # no room for the momentum
    with pytest.raises(UserError, match=r"batches of 12 .* not even two windows fit"):
        branch.train(1)
