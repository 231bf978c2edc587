"""`LocalCohort` is the reference: `RayCohort` must give the same bits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import Row, run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.cells.teachers import find
from mrkd_ray.distributed import ray_cohort
from mrkd_ray.distributed.ray_cohort import Actors, RayCohort
from mrkd_ray.method import algorithm
from mrkd_ray.training import checkpoints
from mrkd_ray.training.local_cohort import LocalCohort
from tests.conftest import TaskMaker, make_cell


def same_files(one: Path, other: Path, names: tuple[str, ...]) -> None:
    """Weights, the last teacher and all predictions are equal bit for bit."""
    for name in names:
        a, b = (load_file(f / "branches" / name / "model.safetensors") for f in (one, other))
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=f"{name} {key}")
    for file in ("predictions.csv", "predicted.npy"):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    if (one / "soft_labels.npz").exists():
        with np.load(one / "soft_labels.npz") as a, np.load(other / "soft_labels.npz") as b:
            np.testing.assert_array_equal(a["clip_id"], b["clip_id"])
            np.testing.assert_array_equal(a["teacher"], b["teacher"])


TWO = ("logmel64:resnet_small", "cqt:vgg_small")


@contextmanager
def actors_of(*branches: str) -> Iterator[Actors]:
    """The processes of a cohort, ended afterwards."""
    # Half a CPU each: `two` and three others at once fit into the cluster.
    processes = Actors.start(make_cell(*branches).branches, cpus=0.5)
    try:
        yield processes
    finally:
        processes.close()


@pytest.fixture(scope="module")
def two(ray_cluster: str) -> Iterator[Actors]:
    """The processes of `TWO`, for all tests that do not ask for fresh ones: each imports torch."""
    with actors_of(*TWO) as processes:
        yield processes


def in_each(processes: Sequence[Any], function: Callable[[Any], Any]) -> list[Any]:
    """Call a function of the actor in each of them."""
    import ray

    return ray.get([process.__ray_call__.remote(function) for process in processes])


class Recorded:
    """Stands in for an actor: writes down which of its methods are submitted, runs none."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def __getattr__(self, method: str) -> Any:
        def remote(*_: object) -> Any:
            self._log.append(method)
            return {} if method == "end_cycle" else method

        return SimpleNamespace(remote=remote, options=lambda **_: SimpleNamespace(remote=remote))


def test_a_cycle_is_submitted_before_the_one_before_is_waited_for(
    make_tasks: TaskMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    def get(refs: object) -> object:
        if isinstance(refs, list):
            log.append("wait")
            return refs
        return np.zeros((12, 3), np.float32)  # a shard of the last teacher

    monkeypatch.setattr(ray_cohort, "ray", SimpleNamespace(get=get))
    tasks = make_tasks(*TWO, cycles=3)
    stand_ins = Actors(make_cell(*TWO).branches, (Recorded(log), Recorded(log)), (Recorded(log),))
    cohort = RayCohort(stand_ins, tasks, tmp_path)
    figures = cohort.figures(algorithm.distilled(cohort, tasks[0].training, 2.0))
    calls = ("train", "soft_labels", "average", "distil", "end_cycle")
    cycle = [name for name in calls for _ in range(1 if name == "average" else 2)]
    submitted = [["start"] * 2 + cycle * 2, cycle, []]
    for number, expected in enumerate(submitted, 1):
        next(figures)
        assert log == [*expected, "wait"]
        assert checkpoints.cycle_of(checkpoints.latest(tmp_path / "checkpoint")) == number
        log.clear()
    assert next(figures, None) is None


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("branches", "options"),
    [
        (TWO, {}),
        (TWO, {"soft_labels": "window", "average": "leave_one_out", "divergence": "forward"}),
        (TWO, {"average": "weighted", "held_out": 0.3, "t_squared": True, "b": 2, "d": 2}),
        (("logmel64:vgg_small",), {"average": "logits"}),
        (TWO, {"soft_labels": "virtual", "b": 0, "trust": True, "cycles": 3}),
        (TWO, {"teacher_momentum": 0.5, "average": "leave_one_out", "cycles": 3, "warm_up": 0.3}),
        (TWO, {"average": "weighted", "held_out": 0.3, "teacher_momentum": 0.5, "cycles": 3}),
        (TWO, {"labelled": 0.5, "teacher_momentum": 0.5}),
        (TWO, {"early_stop": 1, "held_out": 0.3, "cycles": 9, "lr": 0.1}),  # stops
        (("cqt:vgg_small", "cqt:vgg_small", "logmel64:vgg_small"), {"cycles": 1}),
    ],
)
def test_ray_cohort_gives_the_bits_of_local_cohort(
    branches: tuple[str, ...],
    options: dict[str, object],
    prepared: Prepared,
    two: Actors,
    tmp_path: Path,
) -> None:
    cell = make_cell(*branches, **options)
    if "held_out" in options:
        prepared = with_held_out(prepared)
    tasks = branch_tasks(cell, prepared)
    local = LocalCohort(tasks, tmp_path / "local")
    histories = {"local": list(run_cell(cell, tasks, local, tmp_path / "local"))}
    with nullcontext(two) if branches == TWO else actors_of(*branches) as processes:
        cohort = RayCohort(processes, tasks, tmp_path / "ray")
        histories["ray"] = list(run_cell(cell, tasks, cohort, tmp_path / "ray"))
    if "early_stop" in options:
        assert len(histories["local"]) < cell.training.cycles
    same_files(tmp_path / "local", tmp_path / "ray", cell.names)
    timeless = [
        [
            {k: v for k, v in row.items() if k != "peak_bytes" and not k.startswith("seconds")}
            for rows in history
            for row in rows
        ]
        for history in histories.values()
    ]
    assert timeless[0] == timeless[1]


def with_held_out(prepared: Prepared) -> Prepared:
    from mrkd_ray.datasets.splits import make_splits

    splits = tuple(make_splits(prepared.dataset, "all", 0, 0.3))
    assert all(split.held_out for split in splits)
    return replace(prepared, splits=splits)


@pytest.mark.cluster
def test_a_student_of_frozen_teachers_gets_the_same_bits_on_ray(
    prepared: Prepared, taught_cell: Path, ray_cluster: str, tmp_path: Path
) -> None:
    cell = make_cell("logmel64:vgg_small", soft_labels="virtual", b=0, cycles=1)
    cell = replace(cell, teachers=find([str(taught_cell)]))
    tasks = branch_tasks(cell, prepared)
    local = LocalCohort(tasks, tmp_path / "local")
    list(run_cell(cell, tasks, local, tmp_path / "local"))
    with actors_of("logmel64:vgg_small") as processes:
        cohort = RayCohort(processes, tasks, tmp_path / "ray")
        list(run_cell(cell, tasks, cohort, tmp_path / "ray"))
    same_files(tmp_path / "local", tmp_path / "ray", cell.names)


@pytest.mark.cluster
def test_soft_labels_in_shards_change_nothing(
    make_tasks: TaskMaker, two: Actors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = make_tasks(*TWO, average="leave_one_out", cycles=1)
    local = LocalCohort(tasks, tmp_path / "local")
    monkeypatch.setattr(ray_cohort, "SHARD_BYTES", 5 * 3 * 4)  # five clips of three classes
    sharded = RayCohort(two, tasks, tmp_path / "ray")
    for cohort in (local, sharded):
        list(cohort.figures(algorithm.distilled(cohort, tasks[0].training, 2.0)))
    assert len(sharded.soft_labels(2.0)[0]) == 3  # 12 training clips
    for a, b in zip(local.test_probabilities(), sharded.test_probabilities(), strict=True):
        np.testing.assert_array_equal(a, b)
    one, other = (
        np.load(checkpoints.latest(tmp_path / name / "checkpoint") / "soft_labels.npz")["teacher"]
        for name in ("local", "ray")
    )
    assert one.shape == (2, 12, 3)
    np.testing.assert_array_equal(one, other)


@pytest.fixture
def three_ranges(two: Actors) -> Iterator[Actors]:
    """The branches of `two` with three aggregators, as on three nodes."""
    import ray

    ranges = tuple(Actors.start([]).aggregators[0] for _ in range(3))
    yield replace(two, aggregators=ranges)
    for aggregator in ranges:
        ray.kill(aggregator)


@pytest.mark.cluster
def test_an_aggregator_for_each_range_of_clips_changes_nothing(
    prepared: Prepared,
    two: Actors,
    three_ranges: Actors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither where one of them is lost: the cell goes on from its last checkpoint."""
    import ray

    monkeypatch.setattr(ray_cohort, "SHARD_BYTES", 2 * 3 * 4)  # two clips of three classes
    cell = make_cell(*TWO, average="leave_one_out", cycles=3)
    tasks = branch_tasks(cell, prepared)
    list(run_cell(cell, tasks, RayCohort(two, tasks, tmp_path / "one"), tmp_path / "one"))
    cohort = RayCohort(three_ranges, tasks, tmp_path / "three")
    figures = run_cell(cell, tasks, cohort, tmp_path / "three")
    next(figures)
    spans = cohort.spans()
    averaged = [len(spans[name]) for name in ("aggregator", "aggregator-2", "aggregator-3")]
    assert min(averaged) >= 2  # of 12 training clips four each
    ray.kill(three_ranges.aggregators[1])
    with pytest.raises(ray.exceptions.RayActorError):
        list(figures)
    assert cohort.dead() == []
    again = RayCohort(two, tasks, tmp_path / "three")
    assert again.cycle >= 1
    list(run_cell(cell, tasks, again, tmp_path / "three"))
    same_files(tmp_path / "one", tmp_path / "three", cell.names)


@pytest.mark.cluster
def test_a_branch_in_two_processes_learns_what_it_learns_in_one(
    prepared: Prepared, ray_cluster: str, tmp_path: Path
) -> None:
    """And goes on, bit for bit, where one of them is lost."""
    import ray

    cell = replace(make_cell("logmel64:vgg_small", cycles=3), ranks=2)
    tasks = branch_tasks(cell, prepared)
    list(run_cell(cell, tasks, LocalCohort(tasks, tmp_path / "one"), tmp_path / "one"))
    actors = Actors.start(cell.branches, cpus=0.5, ranks=2)
    try:
        list(run_cell(cell, tasks, RayCohort(actors, tasks, tmp_path / "two"), tmp_path / "two"))
        cohort = RayCohort(actors, tasks, tmp_path / "lost")  # the next cell in these processes
        figures = run_cell(cell, tasks, cohort, tmp_path / "lost")
        next(figures)
        ray.kill(actors.mates[0][1])
        with pytest.raises((ray.exceptions.RayActorError, ray.exceptions.RayTaskError)):
            list(figures)
        assert cohort.dead() == ["logmel64-vgg_small"]
    finally:
        actors.close()
    actors = Actors.start(cell.branches, cpus=0.5, ranks=2)
    try:
        again = RayCohort(actors, tasks, tmp_path / "lost")
        assert again.cycle >= 1
        list(run_cell(cell, tasks, again, tmp_path / "lost"))
    finally:
        actors.close()
    same_files(tmp_path / "two", tmp_path / "lost", cell.names)
    model = "branches/logmel64-vgg_small/model.safetensors"
    one, two = (load_file(tmp_path / name / model) for name in ("one", "two"))
    for key in one:
        np.testing.assert_allclose(two[key], one[key], rtol=1e-3, atol=1e-4, err_msg=key)


def test_the_same_seed_twice_gives_the_same_bits_and_another_seed_does_not(
    prepared: Prepared, tmp_path: Path
) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        cell = make_cell(*TWO, seed=seed, cycles=1)
        tasks = branch_tasks(cell, prepared)
        list(run_cell(cell, tasks, LocalCohort(tasks, tmp_path / folder), tmp_path / folder))
    same_files(tmp_path / "a", tmp_path / "b", cell.names)
    with pytest.raises(AssertionError):
        same_files(tmp_path / "a", tmp_path / "c", cell.names)


@pytest.mark.cluster
def test_a_cell_in_used_actors_gives_the_bits_of_fresh_ones(
    prepared: Prepared, two: Actors, tmp_path: Path
) -> None:
    def run(processes: Actors, cell: Cell, folder: Path) -> list[int]:
        """Run a cell; return the ids of the branches' processes."""
        tasks = branch_tasks(cell, prepared)
        list(run_cell(cell, tasks, RayCohort(processes, tasks, folder), folder))
        return in_each(processes.branches, lambda _: os.getpid())

    cell = make_cell(*TWO, fold=2)
    before = run(two, make_cell(*TWO, seed=5, temperature=1.0), tmp_path / "before")
    assert run(two, cell, tmp_path / "used") == before
    with actors_of(*TWO) as fresh:
        assert not set(run(fresh, cell, tmp_path / "fresh")) & set(before)
    same_files(tmp_path / "used", tmp_path / "fresh", cell.names)
    assert (tmp_path / "used" / "predictions.csv").read_bytes() != (
        tmp_path / "before" / "predictions.csv"
    ).read_bytes()


@pytest.mark.cluster
def test_actors_have_readable_names(two: Actors) -> None:
    """The dashboard shows an actor's repr."""
    assert in_each((*two.branches, *two.aggregators), repr) == [
        *("Branch(logmel64, resnet_small)", "Branch(cqt, vgg_small)", "Aggregator")
    ]


@pytest.mark.cluster
def test_only_branches_that_overlap_leave_their_core_when_they_wait(two: Actors) -> None:
    def policy(_: object) -> str | None:
        return os.environ.get("OMP_WAIT_POLICY")

    assert in_each(two.branches, policy) == [os.environ.get("OMP_WAIT_POLICY")] * 2
    overlapping = Actors.start(make_cell(TWO[1]).branches, overlap=True)
    try:
        assert in_each(overlapping.branches, policy) == ["passive"]
    finally:
        overlapping.close()


@pytest.mark.cluster
def test_a_cohort_of_equal_branches_differs_in_its_initial_weights(
    make_tasks: TaskMaker, tmp_path: Path
) -> None:
    cohort = LocalCohort(make_tasks("cqt:vgg_small", "cqt:vgg_small"), tmp_path)
    one, other = cohort.test_probabilities()
    assert np.abs(one - other).max() > 1e-4


@pytest.mark.gpu
def test_a_cohort_learns_on_a_gpu(prepared: Prepared, tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    cell = make_cell(*TWO, cycles=6, device="cuda")
    tasks = branch_tasks(cell, prepared)
    history: list[list[Row]] = []
    history += run_cell(cell, tasks, LocalCohort(tasks, tmp_path), tmp_path)
    for first, last in zip(history[0], history[-1], strict=True):
        assert last["loss_ce"] < first["loss_ce"]
