"""Filling the store of representations: each clip decoded once, in parallel, resumable."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from mrkd_ray.audio import decoding
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.failures import naming
from mrkd_ray.common.parallel_map import MapFn, serial_map
from mrkd_ray.common.reading import stamp
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.checking.scan import digest
from mrkd_ray.features.store import DTYPE, FeatureStore, Row
from mrkd_ray.representations.catalogue import compute_clip
from mrkd_ray.representations.timing import ticks_of

CHANGED = "it was written to since it was checked; run again"

_PARTS = ".parts"  # ending of files that are not in a store yet
CHUNK = 8  # clips per call of the mapped function: some seconds of work, some MB of result


class Job(NamedTuple):
    """One file, or part of it, to decode, and the representations that are missing for it."""

    clip_id: str
    path: Path
    digest: str
    representations: tuple[str, ...]
    folder: Path  # for what is too long to be handed over in memory
    stretch: decoding.Stretch | None = None


class Done(NamedTuple):
    """What became of a job: frames [frames, bins] per representation, or why there are none."""

    job: Job
    arrays: dict[str, Float32 | Path]  # of a long recording a file of them, to be removed
    ticks: int
    error: str


def extract(
    dataset: Dataset,
    digests: Mapping[str, str],
    stores: Mapping[str, FeatureStore],
    map_: MapFn[tuple[Job, ...], list[Done]] = serial_map,
    progress: Callable[[int, int], None] = lambda done, total: None,
    waiting: Callable[[str], AbstractContextManager[None]] = lambda what: nullcontext(),
) -> None:
    """Compute what is not stored yet.

    Each file is decoded once for all representations that lack it, and clips with the same bytes
    are computed once. One process per data set writes at a time; a second one waits and then
    finds everything there. What is stored stays when the extraction is interrupted or fails. What
    is damaged is computed again.

    Args:
        dataset: the clips, labelled or not.
        digests: clip_id -> digest of the file's bytes, for each clip of the data set.
        stores: of the data set, by representation.
        map_: maps `compute_chunk` over chunks of jobs.
        progress: called with (clips done, clips to compute) at the start and after each chunk;
            never where all is stored.
        waiting: shows what is waited for while its block runs.

    Raises:
        UserError: a clip cannot be decoded.
    """
    bad = {name: store.damaged(digests.values()) for name, store in stores.items()}
    if not missing(dataset, digests, stores, bad):
        return
    (folder,) = {store.folder.parent for store in stores.values()}
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        lock = FileLock(folder / "lock")
        try:
            held.enter_context(lock.acquire(timeout=0))
        except Timeout:
            with waiting(f"Waiting for another run that computes features in {folder}"):
                held.enter_context(lock.acquire())
        bad = {name: store.damaged(digests.values()) for name, store in stores.items()}
        jobs = missing(dataset, digests, stores, bad)
        if jobs:
            _compute_and_store(jobs, stores, map_, progress)


def missing(
    dataset: Dataset,
    digests: Mapping[str, str],
    stores: Mapping[str, FeatureStore],
    damaged: Mapping[str, set[str]] | None = None,
) -> list[Job]:
    """Return what is not stored yet: a job for each distinct file, with what it lacks.

    Args:
        damaged: of each representation the digests whose frames are stored and not good.
    """
    damaged = damaged or {}
    stored = {name: store.index().entries for name, store in stores.items()}
    folder = next((store.folder.parent for store in stores.values()), Path())
    jobs: dict[str, Job] = {}
    for clip in dataset.recordings:
        content = digests[clip.clip_id]
        names = tuple(
            name
            for name, entries in stored.items()
            if content not in entries or content in damaged.get(name, ())
        )
        if names:
            job = Job(clip.clip_id, clip.path, content, names, folder, clip.stretch)
            jobs.setdefault(content, job)
    return list(jobs.values())


def _compute_and_store(
    jobs: Sequence[Job],
    stores: Mapping[str, FeatureStore],
    map_: MapFn[tuple[Job, ...], list[Done]],
    progress: Callable[[int, int], None],
) -> None:
    for store in stores.values():
        store.repair()
    for left in jobs[0].folder.glob(f"*{_PARTS}"):  # by one that was killed
        left.unlink(missing_ok=True)
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
    arrays: dict[str, Float32 | Path] = {}
    try:
        before = stamp(job.path)
        if digest(job.path, job.stretch) != job.digest:
            raise decoding.AudioError(CHANGED)
        recording = decoding.load_or_stream(job.path, job.stretch)
        ticks = ticks_of(len(recording), recording.sample_rate)
        if isinstance(recording, decoding.LongRecording):
            arrays = _write_parts(job, recording)
        else:
            made = compute_clip(job.representations, recording)
            _check_finite(made)
            arrays = {**made}
        if stamp(job.path) != before:  # what was decoded is what was hashed
            raise decoding.AudioError(CHANGED)
    except (ValueError, OSError, MemoryError) as error:
        for made_file in arrays.values():
            if isinstance(made_file, Path):
                made_file.unlink(missing_ok=True)
        if isinstance(error, OSError) and str(error.filename).endswith(_PARTS):
            raise  # the disk is full, and the clip is not to blame
        return Done(job, {}, 0, str(error) or "it takes more memory than there is")
    return Done(job, arrays, ticks, "")


def _check_finite(frames: Mapping[str, Float32]) -> None:
    for name, values in frames.items():
        if not np.isfinite(values).all():
            raise decoding.AudioError(f"its {name} is not finite: samples are far too large")


def _write_parts(job: Job, recording: decoding.LongRecording) -> dict[str, Float32 | Path]:
    """Write the frames of a long recording to files beside the stores, part by part."""
    from mrkd_ray.representations.parts import compute_parts  # loads PyTorch

    token = secrets.token_hex(8)
    files = {name: job.folder / f".{token}-{name}{_PARTS}" for name in job.representations}
    try:
        with ExitStack() as stack:
            open_ = {name: stack.enter_context(file.open("wb")) for name, file in files.items()}
            for name, frames in compute_parts(job.representations, recording):
                _check_finite({name: frames})
                with naming(files[name]):
                    open_[name].write(np.ascontiguousarray(frames, DTYPE).data)
    except BaseException:
        for file in files.values():
            file.unlink(missing_ok=True)
        raise
    return {**files}
