"""A short trial of each kind of cell, on the workers of the run to come: what `plan` measures.

For each cohort two shortened cells follow each other, as many side by side as will be in the
grid, so that branches contend for the machine as they will. Figures are read from the timelines.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mrkd_ray.cells.cell import Cell
from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.splits import Split
from mrkd_ray.features.extraction import CHUNK, Job, extract
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.grid.expand import Gpus
from mrkd_ray.grid.opening import OpenGrid
from mrkd_ray.grid.run import listed, run_cells
from mrkd_ray.plan import costs
from mrkd_ray.plan.measurements import (
    CYCLES,
    Kind,
    Probe,
    ProbedKind,
    Sizes,
    alone,
    kind_of,
    probed_kind,
    read,
    turns_of,
    window_of,
)
from mrkd_ray.plan.window_memory import WindowMemory

BATCHES = 2  # of training clips
WINDOWS = 64  # of test clips: one batch
WAVES = 3  # of chunks of clips on every CPU, to measure what features take


@dataclass(frozen=True)
class _Pair:
    """Two cells that follow each other in the same processes, and how many pairs run at once."""

    first: Cell
    second: Cell
    copies: int


def sample(split: Split, ticks: Mapping[str, int], batch_size: int, window: int) -> Split:
    """Return a split with few of its clips, from all over it.

    Args:
        ticks: of each clip.
        window: ticks of the longest windows: they are to fill a batch.
    """
    whole = Sizes.of(split, (), ticks, window)
    tested = -(-WINDOWS * whole.test // max(1, whole.test_windows))
    return Split(
        fold=split.fold,
        train=_some(split.train, BATCHES * batch_size),
        held_out=_some(split.held_out, tested),
        test=_some(split.test, tested),
    )


def _some(clip_ids: Sequence[str], count: int) -> tuple[str, ...]:
    places = np.linspace(0, len(clip_ids) - 1, min(count, len(clip_ids))).round().astype(int)
    return tuple(clip_ids[i] for i in places)


def run(
    opened: OpenGrid,
    at_once: Sequence[int],
    jobs: Sequence[Job],
    windows: Mapping[Kind, WindowMemory],
    ticks: Mapping[str, int],
) -> Probe:
    """Compute some features and run shortened cells, in a folder that is removed.

    Args:
        opened: its cells are those whose kinds are measured.
        at_once: how many cells like this one fill the workers, for each of them.
        jobs: the clips whose features lack.
        windows: whether they are kept, for each kind.
        ticks: of each clip.

    Raises:
        UserError: a cell failed, as in a run.
    """
    prepared = opened.prepared
    largest = max(cell.training.batch_size for cell in opened.cells)
    lengths = {window_of(cell) for cell in opened.cells}
    few = sample(prepared.splits[0], ticks, largest, max(lengths))
    every = [clip.clip_id for clip in prepared.dataset.unlabelled]
    unlabelled = _some(every, BATCHES * largest)
    wanted = {*few.train, *few.held_out, *few.test, *unlabelled}
    pairs = list(_pairs(opened.cells, at_once, windows, opened.workers.gpus))
    shortened = [cell for pair in pairs for cell in _copies(pair, few.fold)]
    with _temporary(prepared.cache) as folder:
        stores, features = _sample_features(opened, jobs, wanted, folder)
        dataset = prepared.dataset.without(set(every) - wanted)
        small = replace(prepared, dataset=dataset, splits=(few,), stores=stores)
        began = time.time()
        failed = run_cells(replace(opened, cells=shortened, prepared=small), folder, profile=True)
        ended = time.time()
        if failed:
            raise UserError(f"the probe failed, as the grid would:\n{listed(failed)}")
        ran = [read(c, folder / "cells" / c.key, opened.workers.local) for c in shortened]
        kinds: dict[Kind, ProbedKind] = {}
        for cell in shortened:
            kind = kind_of(cell)
            kinds.setdefault(kind, probed_kind([each for each in ran if each.kind == kind]))
    turns = turns_of(ran, began)
    for (condition, branches, options), found in list(kinds.items()):
        for i, spec in enumerate(branches) if condition == "independent" else ():
            kinds.setdefault((condition, (spec,), options), alone(found, branches, i))
            turns.setdefault((spec,), turns[branches])
    end = ended - max(each.end for each in ran)
    sizes = {window: Sizes.of(few, unlabelled, ticks, window) for window in lengths}
    return Probe(sizes, kinds, turns, end, features)


def _pairs(
    todo: Sequence[Cell],
    at_once: Sequence[int],
    windows: Mapping[Kind, WindowMemory],
    gpus: Gpus,
) -> Iterator[_Pair]:
    """Choose the cells: cohorts, once independent and once distilled, then what they do not cover.

    A cohort of independent branches stands for its branches each in a cell of its own, where
    these have as much of the machine: so most branches start once.
    """
    like = Counter(len(cell.branches) for cell in todo)
    kinds: dict[Kind, tuple[Cell, int]] = {}
    for cell, room in zip(todo, at_once, strict=True):
        shown = replace(cell, window_memory=windows[kind_of(cell)].source)
        kinds.setdefault(kind_of(cell), (shown, min(room, like[len(cell.branches)])))
    covered: set[Kind] = set()
    for (condition, branches, _), (cell, copies) in kinds.items():
        if condition == "distilled":
            first = cell
            same = gpus(1) == gpus(len(branches)) and not cell.overlap
            together = replace(cell, condition="independent", temperature=None)
            baselines = {kind_of(replace(together, branches=(spec,))) for spec in branches}
            if same and (baselines & kinds.keys()) - covered:
                first = together
                covered |= baselines
            yield _Pair(first, cell, copies)
    for kind, (cell, copies) in kinds.items():
        if cell.condition == "independent" and kind not in covered:
            yield _Pair(cell, cell, copies)


def _copies(pair: _Pair, fold: int) -> Iterator[Cell]:
    # Every cycle with a teacher: one without takes as long, but for the soft labels.
    early_stop = pair.first.training.early_stop  # all cycles are measured
    stop = {} if early_stop is None else {"early_stop": CYCLES}
    training = pair.first.training.model_copy(update={"cycles": CYCLES, "warm_up": 0} | stop)
    for place, cell in enumerate((pair.first, pair.second)):
        for copy in range(pair.copies):
            seed = place * pair.copies + copy
            yield replace(cell, fold=fold, seed=seed, training=training, content="probe")


@contextmanager
def _temporary(cache: Path) -> Iterator[Path]:
    """Yield a folder that is removed afterwards: in the cache, which every node sees."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".plan-", dir=cache.absolute(), ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def _sample_features(
    opened: OpenGrid, jobs: Sequence[Job], wanted: set[str], folder: Path
) -> tuple[dict[str, FeatureStore], float]:
    """Compute what lacks, for a few clips, in a folder of its own.

    Returns:
        Stores that have the `wanted` clips, and the seconds that all the jobs will take.
    """
    prepared, workers = opened.prepared, opened.workers
    if not jobs:
        return dict(prepared.stores), 0.0
    names = sorted({name for job in jobs for name in job.representations})
    count = WAVES * CHUNK * int(1 if workers.local else workers.cluster.cpus)
    others = (
        jobs[i].clip_id for i in np.linspace(0, len(jobs) - 1, min(count, len(jobs)), dtype=int)
    )
    known = {clip.clip_id for clip in prepared.dataset.recordings}
    dataset = prepared.dataset.without(known - {*wanted, *others})
    show = opened.display.step(f"Probing {', '.join(names)}")
    seen: list[tuple[float, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((time.perf_counter(), done))
        show(done, total)

    stores = {name: FeatureStore(folder, dataset, name, prepared.digests) for name in names}
    extract(dataset, prepared.digests, stores, workers.map, progress)
    return {**prepared.stores, **stores}, costs.extrapolate(seen, len(jobs))
