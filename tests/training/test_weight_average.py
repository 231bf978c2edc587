"""The running average of weights: what it is of, and that it answers in the network's place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mrkd_ray.inference.model_folder import read_model
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.weight_average import YOUNG, WeightAverage
from tests.conftest import TaskMaker


def test_it_forgets_faster_while_it_is_young_and_averages_batch_norm_too() -> None:
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, 0.9)
    learnt, averaged = network.state_dict(), average.module.state_dict()  # the tensors themselves
    expected = 0.0
    for step in range(200):
        learnt["weight"].fill_(step)
        learnt["running_mean"].fill_(-step)
        learnt["num_batches_tracked"].fill_(step)
        average.update_parameters(network)
        kept = min(0.9, (1 + step) / (YOUNG + step)) if step else 0.0
        expected = kept * expected + (1 - kept) * step
        assert averaged["weight"].item() == pytest.approx(expected, rel=1e-5)
        assert averaged["running_mean"].item() == pytest.approx(-expected, rel=1e-5)
        assert averaged["num_batches_tracked"] == step
    assert expected == pytest.approx(199 - 9, abs=0.1)  # 0.9 is nine steps behind
    assert learnt["weight"].item() == 199


def test_the_average_is_evaluated_teaches_and_is_saved(
    make_tasks: TaskMaker, tmp_path: Path
) -> None:
    (plain,) = make_tasks("logmel64:vgg_small")
    (task,) = make_tasks("logmel64:vgg_small", ema=0.9)
    alone, branch = Branch(plain), Branch(task)
    for each in (alone, branch):
        each.train(2)
    assert branch.average is not None
    learnt = alone.network.state_dict()
    for name, value in branch.network.state_dict().items():
        assert torch.equal(value, learnt[name])  # it changes nothing of what is learnt
    averaged = branch.average.module.state_dict()
    assert not all(torch.equal(averaged[name], learnt[name]) for name in learnt)

    found, taught = branch.probabilities("test"), branch.soft_labels(1.0)
    assert not np.array_equal(found, alone.probabilities("test"))
    alone.network.load_state_dict(averaged)
    np.testing.assert_array_equal(found, alone.probabilities("test"))
    np.testing.assert_array_equal(taught, alone.soft_labels(1.0))

    branch.export(tmp_path)
    saved = read_model(tmp_path, torch.device("cpu")).network.state_dict()
    assert saved.keys() == averaged.keys()
    assert all(torch.equal(saved[name], averaged[name]) for name in averaged)
