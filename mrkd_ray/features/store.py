"""The store of representations on disk: computed once per content, memory-mapped when read.

One folder per data set and representation version holds `frames.f32` (float32 little-endian,
[total frames, bins]), `index.jsonl` (a line per content: digest, clip_id, offset, frames, ticks and
the sha256 of the frames, which is compared when they are first read, as far as it is there)
and `meta.json` (what was computed, for people). A line is written only after its frames are safely
on the disk. What a killed writer leaves behind the last whole line is never seen by readers, and
the next writer cuts it off.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.failures import naming
from mrkd_ray.common.files import write_json
from mrkd_ray.common.reading import Damaged, Stamp, check_regular, read_bytes, stamp
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
    sums: dict[str, str]  # digest -> sha256 of its frames
    frames: int  # end of the last entry in frames.f32
    size: int  # bytes of index.jsonl that are whole


class _Entry(NamedTuple):
    digest: str
    offset: int
    frames: int
    ticks: int
    sha256: str  # "" in lines of earlier versions


def _entry(line: bytes) -> _Entry | None:
    """Return what a line of the index says, None where it is torn or damaged."""
    try:
        row = json.loads(line)
        frames = row["frames"]
        entry = _Entry(
            row["digest"], row["offset"], frames, row.get("ticks", frames), row.get("sha256", "")
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    numbers, words = (entry.offset, frames, entry.ticks), (entry.digest, entry.sha256)
    whole = line.endswith(b"\n") and all(type(n) is int and n >= 0 for n in numbers)
    return entry if whole and all(isinstance(word, str) for word in words) else None


_CHECKED: dict[tuple[Path, Stamp], set[str]] = {}
"""Digests whose frames this process has compared already, of each state of a file."""


def _parts(frames: Float32 | Path) -> Iterator[bytes | memoryview]:
    """Yield the bytes of frames; a file of them is removed."""
    if not isinstance(frames, Path):
        yield np.ascontiguousarray(frames, DTYPE).data.cast("B")
        return
    with frames.open("rb") as file:
        while part := file.read(_COPIED):
            yield part
    frames.unlink()


def _sha256(file: BinaryIO, size: int) -> str:
    """Return that of the next bytes of a file, a part at a time."""
    content = hashlib.sha256()
    while size > 0 and (part := file.read(min(size, _COPIED))):
        content.update(part)
        size -= len(part)
    return content.hexdigest()


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
        self._file = self.folder / "frames.f32"

    def bank(self, clip_ids: Sequence[str]) -> Bank:
        """Return the frames of these clips, memory-mapped.

        Raises:
            UserError: a clip is not in the store.
            Damaged: the frames of one are not those that were stored.
        """
        index = self.index()
        missing = [c for c in clip_ids if self.digests.get(c) not in index.entries]
        if missing:
            raise UserError(
                f"{self.folder}: no {self.representation} is stored for {len(missing)} of "
                f"{len(clip_ids)} clips, the first is {missing[0]!r}. Run `mrkd prepare` first."
            )
        if bad := self._damaged([self.digests[c] for c in clip_ids], index):
            clip = next(c for c in clip_ids if self.digests[c] in bad)
            raise Damaged(
                self._file,
                f"the frames of {len(bad)} clips, such as {clip!r}, are not those that were "
                "stored. Run again, or `mrkd prepare`: they are computed again",
            )
        frames = self._map(index)
        places = np.array([index.entries[self.digests[c]] for c in clip_ids], np.int64)
        offsets, lengths, ticks = places.reshape(-1, 3).T.copy()
        return Bank(frames, offsets, lengths, ticks)

    def _map(self, index: _Index) -> Float32:
        if not index.frames:
            return np.zeros((0, self.bins), DTYPE)
        return np.memmap(self._file, DTYPE, mode="c", shape=(index.frames, self.bins))

    def damaged(self, digests: Iterable[str]) -> set[str]:
        """Return those of the digests whose frames are not those that were stored."""
        index = self.index()
        return self._damaged([digest for digest in digests if digest in index.entries], index)

    def _damaged(self, digests: Sequence[str], index: _Index) -> set[str]:
        if not digests:
            return set()
        checked = _CHECKED.setdefault((self._file, stamp(self._file)), set())
        wanted = {digest for digest in digests if digest in index.sums} - checked
        found = set()
        with self._file.open("rb") as file:  # pages of a map would count as this process's memory
            for digest in wanted:
                offset, count, _ = index.entries[digest]
                file.seek(offset * self._frame_bytes)
                if _sha256(file, count * self._frame_bytes) != index.sums[digest]:
                    found.add(digest)
        checked |= wanted - found
        return found

    def index(self) -> _Index:
        """Return what is whole on disk: the entries before the first torn line or lost frame."""
        try:
            lines = read_bytes(self.folder / "index.jsonl").splitlines(keepends=True)
            # After the index: frames that are added meanwhile may be there, but none may lack.
            available = check_regular(self._file).st_size // self._frame_bytes
        except (Damaged, OSError):
            return _Index({}, {}, 0, 0)
        entries: dict[str, tuple[int, int, int]] = {}
        sums: dict[str, str] = {}
        end = size = 0
        for line in lines:
            entry = _entry(line)
            if entry is None or entry.offset != end or end + entry.frames > available:
                break
            entries[entry.digest] = (entry.offset, entry.frames, entry.ticks)
            sums.pop(entry.digest, None)  # of an earlier line, of frames that were damaged
            if entry.sha256:
                sums[entry.digest] = entry.sha256
            end += entry.frames
            size += len(line)
        return _Index(entries, sums, end, size)

    def repair(self) -> None:
        """Make the store, or cut off what a killed writer left. The caller holds the lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        index = self.index()
        for path in (self.folder / "index.jsonl", self._file):
            if path.exists() and not path.is_file():
                path.unlink()  # a pipe would wait for a reader
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
        with naming(self._file), self._file.open("ab") as file:
            offset = file.tell() // self._frame_bytes
            for clip_id, digest, frames, ticks in rows:
                content = hashlib.sha256()
                for part in _parts(frames):
                    file.write(part)
                    content.update(part)
                count = file.tell() // self._frame_bytes - offset
                place = {"digest": digest, "clip_id": clip_id, "offset": offset}
                place |= {"frames": count, "ticks": ticks, "sha256": content.hexdigest()}
                lines.append(json.dumps(place) + "\n")
                offset += count
            file.flush()
            os.fsync(file.fileno())
        index = self.folder / "index.jsonl"
        with naming(index), index.open("ab") as file:
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
