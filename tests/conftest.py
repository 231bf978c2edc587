"""Fixtures: a small data set of real files, its features, and one Ray cluster for the session."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before anything imports ray: it would write a token into the home folder otherwise.
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")  # as `mrkd serve` sets it
os.environ.pop("RAY_ADDRESS", None)  # tests start clusters of their own
os.environ["MRKD_WEIGHTS"] = tempfile.gettempdir() + "/no-weights"  # those of the user are not used

import numpy as np
import psutil
import pytest
import soundfile
from rich.console import Console

from mrkd_ray.cells.cell import Cell, branch_names
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common.parallel_map import serial_map
from mrkd_ray.common.progress import Display
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import PAPER, Training, published
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.run import Run
from mrkd_ray.datasets.splits import Splitter
from mrkd_ray.grid.preparation import open_data, prepare
from mrkd_ray.training.branch_task import BranchTask

TOO_SLOW = "this machine is too slow for Ray, whose node did not start within its 30 s"
STARTED = time.monotonic()
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
FAST: dict[str, Any] = published().model_dump(include=PAPER.keys())
"""The paper's method, in few epochs: the plainest case, with every phase of Algorithm 1."""
FAST |= {"cycles": 2, "batch_size": 8, "lr": 0.02}

TaskMaker = Callable[..., list[BranchTask]]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the project."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there: no real data to test on")
    return SHARED


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of 3 classes in 2 folds with a meta.csv: lengths 0.3 to 2 s, some below a window."""
    root = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(7)
    rows = ["filename,fold,label"]
    for i in range(24):
        t = np.arange(int(22050 * rng.uniform(0.3, 2.0))) / 22050
        kind = ("tone", "noise", "clicks")[i % 3]
        sound = {
            "tone": np.sin(2 * np.pi * rng.uniform(200, 800) * t),
            "noise": rng.normal(size=len(t)) / 3,
            "clicks": (np.floor(t * 40) % 8 == 0) * rng.normal(size=len(t)),
        }[kind]
        sound = 0.5 * sound + 0.02 * rng.normal(size=len(t))
        soundfile.write(root / f"{i:02d}.wav", np.clip(sound, -1, 1), 22050)
        rows.append(f"{i:02d}.wav,{1 + i // 3 % 2},{kind}")
    (root / "meta.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="session")
def sounds(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7 recordings without labels at several depths: 5 new ones, a copy, and one of `clips`."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(8)
    for i, name in enumerate(("a.wav", "in/b.wav", "in/c.wav", "in/deep/d.wav", "z.flac")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, rng.normal(size=9000 * (i + 1)) / 9, 22050)
    shutil.copy(root / "a.wav", root / "in/copy.wav")
    shutil.copy(clips / "00.wav", root / "in/00.wav")
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the whole session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def prepared(clips: Path, cache: Path) -> Prepared:
    """The small data set, checked, with logmel64 and cqt computed, both folds."""
    return prepare_clips(data=str(clips), cache=cache)


@pytest.fixture(scope="session")
def with_sounds(clips: Path, sounds: Path, cache: Path) -> Prepared:
    """The same, and 5 unlabelled clips."""
    return prepare_clips(data=str(clips), cache=cache, unlabelled=sounds)


def prepare_clips(console: Console | None = None, **fields: object) -> Prepared:
    """Check a data set and compute its logmel64 and cqt."""
    config = parse(Run, fields, "test")
    console = console or Console(quiet=True)
    with Display(console) as display:
        return prepare(
            open_data(config, config.unlabelled, console),
            ["logmel64", "cqt"],
            Splitter(folds=config.folds, seed=config.split_seed),
            cache=config.cache,
            skip_bad=config.skip_bad,
            map_=serial_map,
            display=display,
            console=console,
        )


@pytest.fixture(scope="session")
def make_tasks(prepared: Prepared) -> TaskMaker:
    """Return a function of branches and training options that makes the tasks of a cell."""

    def make(*branches: str, seed: int = 0, **options: object) -> list[BranchTask]:
        return branch_tasks(make_cell(*branches, seed=seed, **options), prepared)

    return make


@pytest.fixture(scope="session")
def taught_cell(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cell of two branches, one cycle old."""
    cell = make_cell("logmel64:vgg_small", "cqt:vgg_small", cycles=1)
    from mrkd_ray.cells.run import run_cell
    from mrkd_ray.training.local_cohort import LocalCohort

    tasks = branch_tasks(cell, prepared)
    folder = tmp_path_factory.mktemp("teachers") / "cells" / cell.key
    for _ in run_cell(cell, tasks, LocalCohort(tasks, folder), folder):
        pass
    return folder


def make_cell(
    *branches: str,
    seed: int = 0,
    fold: int = 1,
    temperature: float | None = 2.0,
    device: str = "cpu",
    **options: object,
) -> Cell:
    """A cell of the small data set, distilled unless temperature is None."""
    specs = tuple(
        BranchSpec(representation=r, network=n) for r, n in (b.split(":") for b in branches)
    )
    return Cell(
        condition="distilled" if temperature else "independent",
        branches=specs,
        names=branch_names(specs),
        temperature=temperature,
        fold=fold,
        seed=seed,
        training=Training(**{**FAST, **options}),
        device=device,
        content="test",
    )


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The session's cluster of 4 logical CPUs; returns its address, for `--address`."""
    import ray

    from mrkd_ray.distributed.cluster import SLOW_START

    folder = tempfile.mkdtemp(prefix="mrkd")  # short: Ray puts Unix sockets below it
    try:
        context = ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=folder,
        )
    except Exception as error:
        ray.shutdown()
        end_processes_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if SLOW_START not in str(error):
            raise
        pytest.skip(TOO_SLOW)
    yield context.address_info["gcs_address"]
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def end_processes_of(folder: str) -> None:
    """Kill what a node that did not start has left running."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            if any(folder in word for word in process.cmdline()):
                process.kill()


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "start no test marked slow or cluster after so many minutes, but skip it"
    parser.addoption("--minutes", type=float, default=float("inf"), help=text)


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--minutes")
    heavy = {"slow", "cluster"} & {mark.name for mark in item.iter_markers()}
    if heavy and time.monotonic() > STARTED + 60 * minutes:
        pytest.skip(f"--minutes {minutes:g} were over before this test's turn")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the tests between processes (`pytest -n 2 --dist loadgroup`), the long ones first.

    The files that use the session's cluster stay in one process, the tests of another file in one
    as well, so that a fixture of the session or of a file is made where it is needed, and no more.
    """

    def rank(item: pytest.Item) -> int:
        marks = {mark.name for mark in item.iter_markers()}
        return 0 if "cluster" in marks else 1 if item.path in slow else 2

    slow = {item.path for item in items if item.get_closest_marker("slow")}
    joined = {item.path for item in items if "ray_cluster" in getattr(item, "fixturenames", ())}
    items.sort(key=rank)
    for item in items:
        together = rank(item) == 0 and item.path in joined
        group = "cluster" if together else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
