"""A branch in several processes learns what it learns in one, and goes on bit for bit."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from torch import nn

from mrkd_ray.common.errors import UserError
from mrkd_ray.networks.registry import NETWORKS, network
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.branch_task import BranchTask
from mrkd_ray.training.data_parallel import ALONE, Ranks
from tests.conftest import ROOT, TaskMaker

SIZE = 3  # with two, sums have one order only
CYCLES = 3
PLAIN = "plain_test"  # a network without BatchNorm
EVERYTHING = {
    "soft_labels": "virtual",
    "b": 1,
    "batch_size": 4,  # of which the first process has two
    "cycles": CYCLES,
    "mixup": 0.5,
    "trust": True,
    "ema": 0.5,
    "augment_gain": 6.0,
    "augment_shift": 0.2,
    "specaugment_time": 20,
}


def run(task: BranchTask, folder: Path, ranks: Ranks, found: Path | None = None) -> None:
    """Train a branch that is taught by itself; each cycle has a checkpoint in `folder`."""
    branch = Branch(task, ranks)
    for cycle in range(branch.resume(found) if found else 0, CYCLES):
        branch.train(1)
        branch.distil(branch.soft_labels(2.0), 2.0, 1)
        there = folder / f"cycle-{cycle + 1:06d}"
        there.mkdir(parents=True, exist_ok=True)
        row = branch.end_cycle(there)
        scores = branch.probabilities("test")
        if ranks.first:
            np.savez(there / "said", scores=scores, ce=row["loss_ce"], kl=row["loss_distil_kl"])
    branch.export(folder / "model")


def in_one_of_several(rank: int, folder: Path) -> None:
    """What each process does: the branches that `folder` has, from the beginning and resumed."""
    network(PLAIN, description="for a test")(without_batchnorm)
    ranks = Ranks.join(rank, SIZE, folder / "meet", "cpu")
    for name in ("plain", "everything"):
        task = pickle.loads((folder / name).read_bytes())
        run(task, folder / f"{name}-several", ranks)
        run(task, folder / f"{name}-resumed", ranks, folder / f"{name}-several" / "cycle-000001")


def without_batchnorm(n_classes: int) -> nn.Module:
    pool = nn.AdaptiveAvgPool2d(4)
    return nn.Sequential(pool, nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, n_classes))


@pytest.fixture(scope="module")
def folder(make_tasks: TaskMaker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both branches in one process and in several."""
    network(PLAIN, description="for a test")(without_batchnorm)
    folder = tmp_path_factory.mktemp("ranks")
    plain = {"cycles": CYCLES, "batch_size": 4, "soft_labels": "clip"}
    asked = {
        "plain": make_tasks(f"logmel64:{PLAIN}", **plain),
        "everything": make_tasks("logmel64:resnet_small", **EVERYTHING),
    }
    for name, (task,) in asked.items():
        (folder / name).write_bytes(pickle.dumps(task))
    python = [sys.executable, "-m", "tests.training.test_data_parallel", str(folder)]
    processes = [subprocess.Popen([*python, str(rank)], cwd=ROOT) for rank in range(SIZE)]
    try:
        for name, (task,) in asked.items():
            run(task, folder / f"{name}-one", ALONE)
        assert [process.wait(timeout=600) for process in processes] == [0] * SIZE
    finally:
        for process in processes:
            process.kill()
    yield folder
    del NETWORKS._entries[PLAIN]


def tensors(folder: Path, cycles: int = CYCLES) -> dict[str, np.ndarray]:
    """The checkpoint after so many cycles of six steps."""
    (file,) = (folder / f"cycle-{cycles:06d}").glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize(("name", "cycles"), [("plain", CYCLES), ("everything", 1)])
def test_several_processes_learn_what_one_learns(folder: Path, name: str, cycles: int) -> None:
    """Rounding grows from step to step where there are ReLUs, so that is looked at early."""
    one, several = (tensors(folder / f"{name}-{how}", cycles) for how in ("one", "several"))
    assert one.keys() == several.keys()
    for key in one:
        if not key.startswith("momentum"):
            np.testing.assert_allclose(several[key], one[key], rtol=1e-3, atol=1e-4, err_msg=key)
    place = f"cycle-{cycles:06d}/said.npz"
    said, other = (np.load(folder / f"{name}-{how}" / place) for how in ("one", "several"))
    for key in said:
        np.testing.assert_allclose(other[key], said[key], rtol=1e-3, atol=1e-4, err_msg=key)
    assert (folder / f"{name}-several" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_a_branch_that_is_resumed_gets_the_same_bits(folder: Path, name: str) -> None:
    whole, resumed = (tensors(folder / f"{name}-{how}") for how in ("several", "resumed"))
    for key in whole:
        np.testing.assert_array_equal(whole[key], resumed[key], err_msg=key)


def test_shares_are_of_every_row_once() -> None:
    ranks = [Ranks(rank, 4) for rank in range(4)]
    for count in range(10):
        own = [range(count)[each.share(count)] for each in ranks]
        assert [row for rows in own for row in rows] == list(range(count))
        assert max(map(len, own)) - min(map(len, own)) <= 1
    with pytest.raises(UserError, match="branch x: a batch of 3 windows has too few for 4"):
        ranks[0].check([4, 3], "x")


def test_a_batchnorm_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="BatchNorm3d, which cannot be shared"):
        Ranks(0, 2).share_batch_statistics(nn.Sequential(nn.BatchNorm3d(2)), "x")


if __name__ == "__main__":
    in_one_of_several(int(sys.argv[2]), Path(sys.argv[1]))
