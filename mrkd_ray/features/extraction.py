"""Filling the store of representations: each clip decoded once, in parallel, resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from mrkd_ray.audio import decoding
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.parallel_map import MapFn, serial_map
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.features.store import FeatureStore, Row
from mrkd_ray.representations.catalogue import compute_clip
from mrkd_ray.representations.timing import ticks_of

CHUNK = 8  # clips per call of the mapped function: some seconds of work, some MB of result


class Job(NamedTuple):
    """One file to decode, and the representations that are missing for it."""

    clip_id: str
    path: Path
    digest: str
    representations: tuple[str, ...]


class Done(NamedTuple):
    """What became of a job: an array [frames, bins] per representation, or why there is none."""

    job: Job
    arrays: dict[str, Float32]
    ticks: int
    error: str


def extract(
    dataset: Dataset,
    digests: Mapping[str, str],
    stores: Mapping[str, FeatureStore],
    map_: MapFn[tuple[Job, ...], list[Done]] = serial_map,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Compute what is not stored yet.

    Each file is decoded once for all representations that lack it, and clips with the same bytes
    are computed once. One process per data set writes at a time; a second one waits and then
    finds everything there. What is stored stays when the extraction is interrupted or fails.

    Args:
        dataset: the clips, labelled or not.
        digests: clip_id -> digest of the file's bytes, for each clip of the data set.
        stores: of the data set, by representation.
        map_: maps `compute_chunk` over chunks of jobs.
        progress: called with (clips done, clips to compute) at the start and after each chunk;
            never where all is stored.

    Raises:
        UserError: a clip cannot be decoded.
    """
    if not missing(dataset, digests, stores):
        return
    (folder,) = {store.folder.parent for store in stores.values()}
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        jobs = missing(dataset, digests, stores)
        if jobs:
            _compute_and_store(jobs, stores, map_, progress)


def missing(
    dataset: Dataset, digests: Mapping[str, str], stores: Mapping[str, FeatureStore]
) -> list[Job]:
    """Return what is not stored yet: a job for each distinct file, with what it lacks."""
    stored = {name: store.index().entries for name, store in stores.items()}
    jobs: dict[str, Job] = {}
    for clip in dataset.recordings:
        digest = digests[clip.clip_id]
        names = tuple(name for name, entries in stored.items() if digest not in entries)
        if names:
            jobs.setdefault(digest, Job(clip.clip_id, clip.path, digest, names))
    return list(jobs.values())


def _compute_and_store(
    jobs: Sequence[Job],
    stores: Mapping[str, FeatureStore],
    map_: MapFn[tuple[Job, ...], list[Done]],
    progress: Callable[[int, int], None],
) -> None:
    for store in stores.values():
        store.repair()
    done = 0
    progress(done, len(jobs))
    chunks = [tuple(jobs[i : i + CHUNK]) for i in range(0, len(jobs), CHUNK)]
    for results in map_(compute_chunk, chunks):
        for name, store in stores.items():
            rows = [
                Row(result.job.clip_id, result.job.digest, result.arrays[name], result.ticks)
                for result in results
                if name in result.arrays
            ]
            if rows:
                store.append(rows)
        for result in results:
            if result.error:
                raise UserError(
                    f"{result.job.path}: clip {result.job.clip_id!r} cannot be used: "
                    f"{result.error}. Mend or remove the file, or leave it out with --skip-bad."
                )
        done += len(results)
        progress(done, len(jobs))


def compute_chunk(jobs: Sequence[Job]) -> list[Done]:
    """Decode each file once and compute what is missing for it. Reports bad files, not raises."""
    return [_compute_one(job) for job in jobs]


def _compute_one(job: Job) -> Done:
    try:
        recording = decoding.load(job.path)
    except (ValueError, OSError) as error:
        return Done(job, {}, 0, str(error))
    ticks = ticks_of(len(recording), recording.sample_rate)
    return Done(job, compute_clip(job.representations, recording), ticks, "")
