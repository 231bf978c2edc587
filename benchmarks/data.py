"""Real clips, or made ones for smoke runs, prepared into the benchmarks' cache."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import CACHE, DATA, Skip, cores
from mrkd_ray.cells.cell import Cell, branch_names
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import published

if TYPE_CHECKING:
    from mrkd_ray.training.branch_task import BranchTask, Part


def folder(name: str, quick: bool) -> Path:
    """The folder of a data set: ESC's, or for a smoke run a few made clips.

    Raises:
        Skip: the data set is not there.
    """
    if quick:
        return _made_clips(CACHE / "made")
    path = DATA / name
    if not path.is_dir():
        raise Skip(f"{name} is not there; MRKD_BENCH_DATA names the folder that holds it")
    return path


def clip(quick: bool) -> Path:
    """The first clip of ESC-10, or of a smoke run's. Raises Skip: as `folder`."""
    return min(folder("esc10", quick).rglob("*.wav" if quick else "*.ogg"))


def prepared(name: str, representations: Sequence[str], quick: bool) -> Prepared:
    """Return a data set, checked, with its folds and features; computed on the first call."""
    from rich.console import Console

    from mrkd_ray.common.progress import Display
    from mrkd_ray.datasets.opening import open_dataset
    from mrkd_ray.datasets.splits import Splitter
    from mrkd_ray.grid.preparation import prepare

    console = Console(quiet=True)
    with Display(console) as display:
        return prepare(
            open_dataset(folder(name, quick), CACHE),
            list(representations),
            Splitter(),
            cache=CACHE,
            skip_bad=False,
            map_=pool_map,
            display=display,
            console=console,
        )


def cell(
    *branches: str,
    temperature: float | None = 2.0,
    threads: int = 1,
    fold: int = 1,
    seed: int = 0,
    **options: Any,
) -> Cell:
    """Return a cell on the CPU; `options` are those of `Training`."""
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
        training=published(**options),
        device="cpu",
        cpus=threads,
        content="benchmark",
    )


def tasks(
    name: str, branches: Sequence[str], quick: bool, *, threads: int = 1, **options: Any
) -> list[BranchTask]:
    """Return the tasks of a cohort on a data set's first fold."""
    names = sorted({branch.partition(":")[0] for branch in branches})
    return branch_tasks(cell(*branches, threads=threads, **options), prepared(name, names, quick))


def clips(task: BranchTask, part: Part) -> list[Any]:
    """Return a part's clips as a network takes them: normalised float32 [3, bins, frames]."""
    import torch

    from mrkd_ray.features.deltas import MARGIN, with_deltas
    from mrkd_ray.features.normalisation import statistics

    stats = statistics(task.store.bank(task.train.clip_ids))
    bank = task.store.bank(part.clip_ids)
    found = []
    for offset, length in zip(bank.offsets, bank.lengths, strict=True):
        frames = bank.frames[offset : offset + length].T
        padded = np.pad(frames, ((0, 0), (MARGIN, MARGIN)), mode="edge")
        channels = with_deltas(torch.from_numpy(padded)[None])[0].numpy()
        normal = (channels - stats.mean[..., None]) / stats.std[..., None]
        found.append(normal.astype(np.float32))
    return found


def pool_map(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Map over processes, one for each core; none of them shares this one's threads."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores(), mp_context=context) as pool:
        yield from pool.map(function, items)


def _made_clips(root: Path) -> Path:
    """Write 24 clips of noise, 3 classes, 2 folds, unless they are there."""
    import soundfile

    if (root / "meta.csv").is_file():
        return root
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    rows = ["filename,fold,label"]
    for i in range(24):
        sound = rng.normal(size=int(22050 * rng.uniform(0.5, 2.0))) / 8
        soundfile.write(root / f"{i:02d}.wav", sound, 22050)
        rows.append(f"{i:02d}.wav,{1 + i // 3 % 2},{'abc'[i % 3]}")
    (root / "meta.csv").write_text("\n".join(rows) + "\n")
    return root
