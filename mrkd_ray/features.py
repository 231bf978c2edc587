"""The store of representations on disk: computed once per content, memory-mapped when read.

One folder per data set and representation version holds `frames.f32` (float32 little-endian,
[total frames, bins]), `index.jsonl` (a line per content: digest, clip_id, offset and frames) and
`meta.json` (what was computed, for people). A line is written only after its frames are safely on
the disk. What a killed writer leaves behind the last whole line is never seen by readers, and the
next writer cuts it off.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mrkd_ray import audio
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.errors import UserError
from mrkd_ray.representations import REPRESENTATIONS, Recording, compute, librosa_version

X = TypeVar("X")
Y = TypeVar("Y")
MapFn: TypeAlias = Callable[[Callable[[X], Y], Sequence[X]], Iterator[Y]]
"""Maps a picklable function over items, maybe elsewhere; yields the results in any order."""

Array = NDArray[np.float32]
CHUNK = 8  # clips per call of the mapped function: some seconds of work, some MB of result
STD_FLOOR = 1e-3  # dB: a bin that (almost) never changes is not blown up by normalisation
_DTYPE = np.dtype("<f4")


@dataclass(frozen=True)
class Bank:
    """The frames of some clips: clip i is `frames[offsets[i] : offsets[i] + lengths[i]]`.

    `frames` is float32 [total, bins], mapped from disk copy-on-write; `offsets` and `lengths` are
    int64 [n], in frames, in the order in which the clips were asked for.
    """

    frames: Array
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]


class _Index(NamedTuple):
    entries: dict[str, tuple[int, int]]  # digest -> (offset, frames)
    frames: int  # end of the last entry in frames.f32
    size: int  # bytes of index.jsonl that are whole


class Row(NamedTuple):
    """One clip's frames [frames, bins], under the digest of its bytes."""

    clip_id: str
    digest: str
    frames: Array


class FeatureStore:
    """One representation of one data set on disk, for any number of readers and one writer.

    Args:
        cache: folder of all caches.
        dataset: its name and root name the folder.
        representation: a registered name.
        digests: clip_id -> digest of the file's bytes: the key of what is stored.

    Raises:
        UserError: nobody registered `representation`.
    """

    def __init__(
        self, cache: Path, dataset: Dataset, representation: str, digests: Mapping[str, str]
    ) -> None:
        entry = REPRESENTATIONS[representation]
        self.representation = representation
        self.version = entry.version
        self.bins = entry.bins
        self.folder = _dataset_folder(cache, dataset) / f"{representation}-{self.version}"
        self.digests = digests
        self._frame_bytes = self.bins * _DTYPE.itemsize

    def bank(self, clip_ids: Sequence[str]) -> Bank:
        """Return the frames of these clips, memory-mapped.

        Raises:
            UserError: a clip is not in the store.
        """
        index = self.index()
        missing = [c for c in clip_ids if self.digests.get(c) not in index.entries]
        if missing:
            raise UserError(
                f"{self.folder}: no {self.representation} is stored for {len(missing)} of "
                f"{len(clip_ids)} clips, the first is {missing[0]!r}. Run `mrkd prepare` first."
            )
        frames: Array = np.zeros((0, self.bins), _DTYPE)
        if index.frames:
            shape = (index.frames, self.bins)
            frames = np.memmap(self.folder / "frames.f32", _DTYPE, mode="c", shape=shape)
        places = np.array([index.entries[self.digests[c]] for c in clip_ids], np.int64)
        offsets, lengths = places.reshape(-1, 2).T.copy()
        return Bank(frames, offsets, lengths)

    def index(self) -> _Index:
        """Return what is whole on disk: the entries before the first torn line or lost frame."""
        try:
            lines = (self.folder / "index.jsonl").read_bytes().splitlines(keepends=True)
            # After the index: frames that are added meanwhile may be there, but none may lack.
            available = (self.folder / "frames.f32").stat().st_size // self._frame_bytes
        except FileNotFoundError:
            return _Index({}, 0, 0)
        entries: dict[str, tuple[int, int]] = {}
        end = size = 0
        for line in lines:
            try:
                row = json.loads(line)
                offset, frames = int(row["offset"]), int(row["frames"])
                digest = str(row["digest"])
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n") or offset != end or end + frames > available:
                break
            entries[digest] = (offset, frames)
            end += frames
            size += len(line)
        return _Index(entries, end, size)

    def repair(self) -> None:
        """Make the store, or cut off what a killed writer left. The caller holds the lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        index = self.index()
        for name, size in (
            ("index.jsonl", index.size),
            ("frames.f32", index.frames * self._frame_bytes),
        ):
            with (self.folder / name).open("ab") as file:
                file.truncate(size)
        self._write_meta()

    def append(self, rows: Sequence[Row]) -> None:
        """Store rows, after `repair`: first all frames, then the index. The caller has the lock."""
        lines = []
        with (self.folder / "frames.f32").open("ab") as file:
            offset = file.tell() // self._frame_bytes
            for clip_id, digest, frames in rows:
                file.write(np.ascontiguousarray(frames, _DTYPE).data)
                place = {"digest": digest, "clip_id": clip_id, "offset": offset}
                lines.append(json.dumps({**place, "frames": len(frames)}) + "\n")
                offset += len(frames)
            file.flush()
            os.fsync(file.fileno())
        with (self.folder / "index.jsonl").open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def _write_meta(self) -> None:
        meta = {
            "representation": self.representation,
            "version": self.version,
            "params": dict(REPRESENTATIONS[self.representation].params),
            "librosa": librosa_version(),
            "bins": self.bins,
            "dtype": _DTYPE.str,
        }
        path = self.folder / "meta.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        part.replace(path)


class Job(NamedTuple):
    """One file to decode, and the representations that are missing for it."""

    clip_id: str
    path: Path
    digest: str
    representations: tuple[str, ...]


class Done(NamedTuple):
    """What became of a job: an array [frames, bins] per representation, or why there is none."""

    job: Job
    arrays: dict[str, Array]
    error: str


def serial_map(function: Callable[[X], Y], items: Sequence[X]) -> Iterator[Y]:
    """Map in this process, in order."""
    return map(function, items)


def extract(
    dataset: Dataset,
    representations: Iterable[str],
    cache: Path,
    digests: Mapping[str, str],
    map_: MapFn[tuple[Job, ...], list[Done]] = serial_map,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, FeatureStore]:
    """Compute what is not stored yet and return the store of each representation.

    Each file is decoded once for all representations that lack it, and clips with the same bytes
    are computed once. One process per data set writes at a time; a second one waits and then
    finds everything there. What is stored stays when the extraction is interrupted or fails.

    Args:
        dataset: the clips.
        representations: registered names.
        cache: folder of all caches.
        digests: clip_id -> digest of the file's bytes, for each clip of the data set.
        map_: maps `compute_chunk` over chunks of jobs.
        progress: called with (clips done, clips to compute) at the start and after each chunk;
            never where all is stored.

    Raises:
        UserError: an unknown representation, or a clip that cannot be decoded.
    """
    stores = {name: FeatureStore(cache, dataset, name, digests) for name in representations}
    if not _missing(dataset, stores, digests):
        return stores
    folder = _dataset_folder(cache, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        jobs = _missing(dataset, stores, digests)
        if jobs:
            _compute_and_store(jobs, stores, map_, progress)
    return stores


def _missing(
    dataset: Dataset, stores: Mapping[str, FeatureStore], digests: Mapping[str, str]
) -> list[Job]:
    stored = {name: store.index().entries for name, store in stores.items()}
    jobs: dict[str, Job] = {}
    for clip in dataset.clips:
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
                Row(result.job.clip_id, result.job.digest, result.arrays[name])
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
        recording = Recording(audio.load(job.path))
    except (ValueError, OSError) as error:
        return Done(job, {}, str(error))
    arrays = {
        name: np.ascontiguousarray(compute(name, recording).T, _DTYPE)
        for name in job.representations
    }
    return Done(job, arrays, "")


def _dataset_folder(cache: Path, dataset: Dataset) -> Path:
    root = hashlib.sha256(str(dataset.root.resolve()).encode()).hexdigest()[:8]
    return cache / "features" / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', dataset.name)}-{root}"


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per channel (static, delta, delta-delta) and bin, in dB.

    Both float32 [3, bins]; `std` is at least `STD_FLOOR`.
    """

    mean: Array
    std: Array


def statistics(bank: Bank) -> Statistics:
    """Return the statistics over all frames of the bank's clips: those of the training part.

    Summed in float64, clip by clip in the order given, on one thread: the same clips in the same
    order give the same bits, wherever they lie in the store.

    Raises:
        ValueError: the bank has no frames.
    """
    import torch

    from mrkd_ray.deltas import MARGIN, with_deltas

    total = int(bank.lengths.sum())
    if total == 0:
        raise ValueError("no frames to take statistics of")
    bins = bank.frames.shape[1]
    sums = np.zeros((2, 3, bins))
    for offset, length in zip(bank.offsets.tolist(), bank.lengths.tolist(), strict=True):
        clip = np.array(bank.frames[offset : offset + length].T, np.float64)
        padded = np.pad(clip, ((0, 0), (MARGIN, MARGIN)), mode="edge")
        channels = with_deltas(torch.from_numpy(padded)[None])[0].numpy()
        sums[0] += channels.sum(axis=-1)
        sums[1] += (channels * channels).sum(axis=-1)
    mean = sums[0] / total
    variance = np.maximum(sums[1] / total - mean * mean, STD_FLOOR**2)
    return Statistics(mean.astype(np.float32), np.sqrt(variance).astype(np.float32))
