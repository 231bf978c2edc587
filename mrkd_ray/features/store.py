"""The store of representations on disk: computed once per content, memory-mapped when read.

One folder per data set and representation version holds `frames.f32` (float32 little-endian,
[total frames, bins]), `index.jsonl` (a line per content: digest, clip_id, offset, frames and ticks)
and `meta.json` (what was computed, for people). A line is written only after its frames are safely
on the disk. What a killed writer leaves behind the last whole line is never seen by readers, and
the next writer cuts it off.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import write_json
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.representations import filters
from mrkd_ray.representations.catalogue import FRONTEND, REPRESENTATIONS

DTYPE = np.dtype("<f4")
_COPIED = 1 << 22  # bytes at a time


@dataclass(frozen=True)
class Bank:
    """The frames of some clips: clip i is `frames[offsets[i] : offsets[i] + lengths[i]]`.

    `frames` is float32 [total, bins], mapped from disk copy-on-write; `offsets` and `lengths` are
    int64 [n], in frames, in the order in which the clips were asked for; `ticks` are their lengths
    in ticks (`representations.timing`), which are frames where they are not given.
    """

    frames: Float32
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    ticks: NDArray[np.int64] | None = None


class _Index(NamedTuple):
    entries: dict[str, tuple[int, int, int]]  # digest -> (offset, frames, ticks)
    frames: int  # end of the last entry in frames.f32
    size: int  # bytes of index.jsonl that are whole


class Row(NamedTuple):
    """One clip's frames [frames, bins], under the digest of its bytes, and its length in ticks."""

    clip_id: str
    digest: str
    frames: Float32 | Path  # or a file of them, which `append` removes
    ticks: int


class FeatureStore:
    """One representation of one data set on disk, for any number of readers and one writer.

    Args:
        cache: folder of all caches.
        dataset: its `cache_name` names the folder.
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
        self.timing = entry.timing
        self.folder = cache / "features" / dataset.cache_name / f"{representation}-{self.version}"
        self.digests = digests
        self._frame_bytes = self.bins * DTYPE.itemsize

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
        frames: Float32 = np.zeros((0, self.bins), DTYPE)
        if index.frames:
            shape = (index.frames, self.bins)
            frames = np.memmap(self.folder / "frames.f32", DTYPE, mode="c", shape=shape)
        places = np.array([index.entries[self.digests[c]] for c in clip_ids], np.int64)
        offsets, lengths, ticks = places.reshape(-1, 3).T.copy()
        return Bank(frames, offsets, lengths, ticks)

    def index(self) -> _Index:
        """Return what is whole on disk: the entries before the first torn line or lost frame."""
        try:
            lines = (self.folder / "index.jsonl").read_bytes().splitlines(keepends=True)
            # After the index: frames that are added meanwhile may be there, but none may lack.
            available = (self.folder / "frames.f32").stat().st_size // self._frame_bytes
        except FileNotFoundError:
            return _Index({}, 0, 0)
        entries: dict[str, tuple[int, int, int]] = {}
        end = size = 0
        for line in lines:
            try:
                row = json.loads(line)
                offset, frames = int(row["offset"]), int(row["frames"])
                digest, ticks = str(row["digest"]), int(row.get("ticks", frames))
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n") or offset != end or end + frames > available:
                break
            entries[digest] = (offset, frames, ticks)
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
            for clip_id, digest, frames, ticks in rows:
                if isinstance(frames, Path):
                    with frames.open("rb") as parts:
                        shutil.copyfileobj(parts, file, _COPIED)
                    frames.unlink()
                else:
                    file.write(np.ascontiguousarray(frames, DTYPE).data)
                count = file.tell() // self._frame_bytes - offset
                place = {"digest": digest, "clip_id": clip_id, "offset": offset}
                lines.append(json.dumps({**place, "frames": count, "ticks": ticks}) + "\n")
                offset += count
            file.flush()
            os.fsync(file.fileno())
        with (self.folder / "index.jsonl").open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def _write_meta(self) -> None:
        entry = REPRESENTATIONS[self.representation]
        meta = {
            "representation": self.representation,
            "version": self.version,
            "params": dict(entry.params),
            "constants": {key: filters.digest(key) for key in entry.constants},
            "frontend": FRONTEND,
            "bins": self.bins,
            "dtype": DTYPE.str,
        }
        write_json(self.folder / "meta.json", meta)
