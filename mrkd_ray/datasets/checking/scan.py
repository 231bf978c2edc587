"""One look at every audio file of a data set, remembered until the file changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mrkd_ray.audio import containers
from mrkd_ray.audio.decoding import (
    SAMPLE_RATE,
    AudioError,
    Decoding,
    EmptyAudioError,
    Stretch,
    Waveform,
    resample,
)
from mrkd_ray.common.environment import versions
from mrkd_ray.common.files import write_json
from mrkd_ray.common.parallel_map import MapFn
from mrkd_ray.common.reading import Damaged, opened, read_json, stamp
from mrkd_ray.datasets.base import Clip, Dataset

Fault = Literal["unreadable", "empty", "not finite", "silent"]

SILENT = 2 / 32768
"""Two steps of 16 bits, 6e-5 of full scale: dither and the noise of coders reach no further."""
CHUNK = 32  # clips per call of the mapped function
LOUDEST = 1e12
"""Full scale is 1; the power of what is larger is more than a float32 holds."""
_TRIES = 3  # to scan a file that is written to meanwhile
SHORTEST = 0.01
"""Seconds: a hop. Of what is shorter a network sees padding alone."""
_VERSION = 4  # of the remembered scans: raise it when `fault` or `ClipScan` changes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScan:
    """What one look at a clip's file found."""

    digest: str
    """Of what it holds, 16 bytes in hex (see `digest`); "" when that could not be read."""
    seconds: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    problem: Fault | None = None
    detail: str = ""
    """Why, when there is a problem."""
    sound: str = ""
    """blake2b of the samples in steps of 16 bits, at the file's rate, 16 bytes in hex."""
    cancelled: float = 0.0
    """Part of the channels' energy that is not in their mean."""
    above: float = 0.0
    """Part of the energy that resampling takes away: it lies above half of `SAMPLE_RATE`."""
    missing: float = 0.0
    """Part of the sound that the header or the file's size promises, and that is not there."""
    peak: float = 0.0
    """Of the samples, where full scale is 1."""


class Heard:
    """What is known of a recording's samples without keeping them."""

    def __init__(self) -> None:
        self.count = self.bad = 0
        self._low, self._high = np.inf, -np.inf
        self._sums = np.zeros(2)  # of samples and of their squares
        self._sound = hashlib.blake2b(digest_size=16)

    def add(self, samples: Waveform) -> None:
        """Take in the next samples [n], n >= 1."""
        self.count += len(samples)
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        self.bad += bad
        if self.bad:
            return
        self._low = min(self._low, float(samples.min()))
        self._high = max(self._high, float(samples.max()))
        self._sums += samples.sum(dtype=np.float64), np.einsum("n,n", samples, samples, dtype=float)
        with np.errstate(invalid="ignore"):  # 1e25 is no number of steps
            self._sound.update(np.round(samples * 32768.0).astype("<i4").data)

    @property
    def peak(self) -> float:
        """The largest magnitude."""
        return float(max(-self._low, self._high))

    @property
    def power(self) -> float:
        """The variance."""
        mean, square = self._sums / self.count
        return max(0.0, float(square - mean**2))

    @property
    def sound(self) -> str:
        """Hash of the samples in steps of 16 bits, 16 bytes in hex."""
        return self._sound.hexdigest()

    @property
    def fault(self) -> tuple[Fault, str] | None:
        """What is wrong with the samples, or None.

        Silent means: no sample is further than two steps of 16 bits from the middle of their range
        (a constant offset is no sound), or from 0 where there is one sample.
        """
        low, high = self._low, self._high
        if self.bad:
            return "not finite", f"{self.bad} of {self.count} samples are NaN or infinite"
        if self.peak > LOUDEST:
            return "not finite", f"samples reach {self.peak:.1g}, and full scale is 1"
        if self.peak <= SILENT:
            peak = f"{abs(self.peak):.1g}"
            return "silent", f"peak {peak}, two steps of 16 bits are {SILENT:.1g}"
        if low == high and self.count > 1:
            return "silent", f"all samples are {low:.3g}"
        if (high - low) / 2 <= SILENT and self.count > 1:
            return "silent", f"all samples are {low:.3g} to within two steps of 16 bits"
        return None


def digest(path: Path, stretch: Stretch | None = None) -> str:
    """Return blake2b of a file's bytes, 16 bytes in hex; of a part of it, of its rate and samples.

    So the parts of one file are told apart, and none of them needs the rest of it.

    Raises:
        OSError: it cannot be read.
        AudioError: a part of it is asked for, and cannot be decoded.
    """
    if stretch is None:
        with opened(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    decoding = Decoding(path, stretch)
    found = hashlib.blake2b(f"{decoding.sample_rate} Hz".encode(), digest_size=16)
    for block in decoding:
        found.update(np.ascontiguousarray(block, "<f4").data)
    return found.hexdigest()


def scan_file(path: Path, stretch: Stretch | None = None) -> ClipScan:
    """Hash and decode one file, or a part of it: what is hashed is what is decoded.

    That nobody wrote to it meanwhile is seen from what the file system says.
    """
    for _ in range(_TRIES):
        try:
            before = stamp(path)
            found = _scan_once(path, stretch)
            if stamp(path) == before:
                return found
        except OSError as error:
            return ClipScan(digest="", problem="unreadable", detail=str(error.strerror))
    return ClipScan(digest="", problem="unreadable", detail="it is being written to")


def _scan_once(path: Path, stretch: Stretch | None) -> ClipScan:
    heard, resampled = Heard(), Heard()
    found = ""
    try:
        found = digest(path, stretch)
        decoding = Decoding(path, stretch)
        rate = decoding.sample_rate
        for block in resample(_taken_in(decoding, heard), rate, min(rate, SAMPLE_RATE)):
            if len(block) and rate > SAMPLE_RATE:
                resampled.add(block)
    except AudioError as error:
        kind: Fault = "empty" if isinstance(error, EmptyAudioError) else "unreadable"
        return ClipScan(digest=found, problem=kind, detail=str(error))
    problem, detail = heard.fault or (None, "")
    if problem is None and heard.count < SHORTEST * rate:
        problem = "empty"
        detail = f"{heard.count} samples, {1000 * heard.count / rate:.2g} ms: 10 ms are one frame"
    if problem == "silent" and decoding.channels > 1 and decoding.swing > SILENT:
        problem, detail = None, ""  # there is sound in the channels: `cancelled` says so
    good = problem is None
    return ClipScan(
        digest=found,
        seconds=heard.count / rate,
        sample_rate=rate,
        channels=decoding.channels,
        problem=problem,
        detail=detail,
        sound=heard.sound if good else "",
        cancelled=_lost(heard.power, decoding.power) if good and decoding.channels > 1 else 0.0,
        above=_lost(resampled.power, heard.power) if good and rate > SAMPLE_RATE else 0.0,
        missing=decoding.missing,
        peak=heard.peak if good else 0.0,
    )


def _taken_in(blocks: Iterable[Waveform], heard: Heard) -> Iterator[Waveform]:
    """Yield the blocks again, taken in."""
    for block in blocks:
        heard.add(block)
        yield block


def _lost(after: float, before: float) -> float:
    """Return the part of the power that is gone, in [0, 1]."""
    return float(np.clip(1 - after / before, 0, 1)) if before > 0 else 0.0


def _stamp(clip: Clip) -> tuple[object, ...] | None:
    """Return what changes when a clip's file does, or None where there is no file."""
    try:
        stat = clip.path.stat()
    except OSError:
        return None
    return str(clip.path), stat.st_size, stat.st_mtime_ns, *(clip.stretch or ())


def _scan_chunk(chunk: Sequence[Clip]) -> list[tuple[str, ClipScan]]:
    return [(clip.clip_id, scan_file(clip.path, clip.stretch)) for clip in chunk]


def scan(
    dataset: Dataset,
    cache: Path,
    map_: MapFn[Sequence[Clip], list[tuple[str, ClipScan]]],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, ClipScan]:
    """Read every clip once, and only the files that changed since the last scan.

    Args:
        cache: remembers the scans in `cache/scans/`, also those of an interrupted call.
        map_: carries the work out.
        progress: called with the number of clips done and the number of all clips.

    Returns:
        A scan for each clip_id, in the data set's order.
    """
    file = cache / "scans" / f"{dataset.cache_name}.json"
    known = _read_known(file)
    stamps = {clip.clip_id: _stamp(clip) for clip in dataset.recordings}
    found: dict[str, ClipScan] = {}
    todo: list[Clip] = []
    for clip in dataset.recordings:
        entry = known.get(clip.clip_id)
        if entry is not None and entry["stamp"] == list(stamps[clip.clip_id] or ()):
            found[clip.clip_id] = ClipScan(**entry["scan"])
        else:
            todo.append(clip)
    chunks = [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]
    if progress is not None:
        progress(len(found), len(stamps))
    try:
        for results in map_(_scan_chunk, chunks) if chunks else ():
            for clip_id, result in results:
                found[clip_id] = result
                if stamp := stamps[clip_id]:
                    known[clip_id] = {"stamp": list(stamp), "scan": asdict(result)}
            if progress is not None:
                progress(len(found), len(stamps))
    finally:
        if todo:
            _write_known(file, known)
    return {clip_id: found[clip_id] for clip_id in stamps}


def _scan_version() -> list[str]:
    import soundfile

    more = [str(versions(["av"])["av"])] if containers.available() else []
    return [str(_VERSION), str(soundfile.__libsndfile_version__), *more]


def _read_known(file: Path) -> dict[str, dict[str, Any]]:
    try:
        stored = read_json(file, "version", "sha256", "clips")
        whole = stored["version"] == _scan_version() and stored["sha256"] == _sum(stored["clips"])
        return dict(stored["clips"]) if whole else {}
    except Damaged:
        return {}  # absent or damaged: scan again


def _write_known(file: Path, known: Mapping[str, dict[str, Any]]) -> None:
    stored = {"version": _scan_version(), "sha256": _sum(known), "clips": known}
    write_json(file, stored, indent=None)


def _sum(clips: Any) -> str:
    return hashlib.sha256(json.dumps(clips).encode()).hexdigest()
