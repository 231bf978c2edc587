"""Precision, memory format and compilation: what changes with them, and what must not."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mrkd_ray.config.method import Training
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.compute import Compute
from tests.conftest import TaskMaker

CPU = torch.device("cpu")
LOGMEL = "logmel64:resnet_small"


class Spy(nn.Module):
    """Keeps its input and what a convolution makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convolution(x)
        self.seen += [x, out]
        return out.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("asked", "dtype"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)],
)
def test_the_network_computes_in_the_precision_and_logits_are_fp32(
    asked: str, dtype: torch.dtype
) -> None:
    compute, network = Compute(Training(precision=asked), CPU, 1), Spy()
    assert compute.logits(compute.place(network), torch.randn(2, 3, 8, 8)).dtype == torch.float32
    assert network.seen[1].dtype == dtype
    assert network.convolution.weight.dtype == torch.float32


@pytest.mark.parametrize("wanted", [True, False])
def test_weights_and_inputs_are_channels_last_or_not(wanted: bool) -> None:
    compute, network = Compute(Training(channels_last=wanted), CPU, 1), Spy()
    windows = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    compute.logits(compute.place(network), windows)
    for tensor in (network.convolution.weight, *network.seen):
        assert tensor.is_contiguous(memory_format=torch.channels_last) == wanted


def test_bf16_trains_near_fp32_and_its_soft_labels_are_float32(make_tasks: TaskMaker) -> None:
    soft = []
    for precision in ("fp32", "bf16"):
        branch = Branch(make_tasks(LOGMEL, precision=precision)[0])
        branch.train(2)
        soft.append(branch.soft_labels(2.0))
    assert soft[1].dtype == soft[0].dtype == "float32"
    assert 0 < abs(soft[1] - soft[0]).max() < 0.1
    assert abs(soft[1].sum(axis=1) - 1).max() < 1e-6


@pytest.mark.slow
def test_a_compiled_branch_trains_as_an_eager_one_under_the_same_names(
    make_tasks: TaskMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphs are torch's own, run without Inductor: its C++ takes minutes to compile."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    branches = []
    for compile in (False, True):
        branch = Branch(make_tasks(LOGMEL, compile=compile, batch_size=5)[0])
        branch.train(2)
        branches.append(branch)
    eager, compiled = (branch.soft_labels(2.0) for branch in branches)
    assert abs(eager - compiled).max() < 1e-3
    # Batches of 4 and 5 and one graph: one for training and one for evaluation.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    folder = tmp_path / "cycle-000001"
    branches[1].end_cycle(folder)
    fresh = Branch(make_tasks(LOGMEL)[0])
    assert fresh.resume(folder) == 1
    assert abs(fresh.probabilities("test") - branches[1].probabilities("test")).max() < 1e-3
