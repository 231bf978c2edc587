"""One look at every audio file of a data set, remembered until the file changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mrkd_ray.audio.decoding import (
    SAMPLE_RATE,
    AudioError,
    EmptyAudioError,
    Recording,
    Waveform,
    decode,
)
from mrkd_ray.common.files import write_json
from mrkd_ray.common.parallel_map import MapFn
from mrkd_ray.datasets.base import Dataset

Fault = Literal["unreadable", "empty", "not finite", "silent"]

SILENT = 2 / 32768
"""Two steps of 16 bits, 6e-5 of full scale: dither and the noise of coders reach no further."""
CHUNK = 32  # clips per call of the mapped function
_VERSION = 2  # of the remembered scans: raise it when `fault` or `ClipScan` changes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScan:
    """What one look at a clip's file found."""

    digest: str
    """blake2b of the file's bytes, 16 bytes in hex; "" when the bytes could not be read."""
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


def fault(samples: Waveform) -> tuple[Fault, str] | None:
    """Return what is wrong with decoded samples `[n]`, n >= 1, or None.

    Silent means: no sample is further than two steps of 16 bits from the middle of their range (a
    constant offset is no sound), or from 0 where there is one sample.
    """
    if bad := int(np.count_nonzero(~np.isfinite(samples))):
        return "not finite", f"{bad} of {len(samples)} samples are NaN or infinite"
    low, high = float(samples.min()), float(samples.max())
    if max(-low, high) <= SILENT:
        return "silent", f"peak {abs(max(-low, high)):.1g}, two steps of 16 bits are {SILENT:.1g}"
    if low == high and len(samples) > 1:
        return "silent", f"all samples are {low:.3g}"
    if (high - low) / 2 <= SILENT and len(samples) > 1:
        return "silent", f"all samples are {low:.3g} to within two steps of 16 bits"
    return None


def digest(path: Path) -> str:
    """Return blake2b of a file's bytes, 16 bytes in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def scan_file(path: Path) -> ClipScan:
    """Hash and decode one file."""
    try:
        found = digest(path)
    except OSError as error:
        return ClipScan(digest="", problem="unreadable", detail=str(error.strerror))
    try:
        decoded = decode(path)
    except AudioError as error:
        kind: Fault = "empty" if isinstance(error, EmptyAudioError) else "unreadable"
        return ClipScan(digest=found, problem=kind, detail=str(error))
    samples, rate = decoded.samples, decoded.sample_rate
    problem, detail = fault(samples) or (None, "")
    if problem == "silent" and decoded.channels > 1 and decoded.swing > SILENT:
        problem, detail = None, ""  # there is sound in the channels: `cancelled` says so
    good = problem is None
    mixed = float(samples.var(dtype=np.float64)) if good else 0.0
    return ClipScan(
        digest=found,
        seconds=len(samples) / rate,
        sample_rate=rate,
        channels=decoded.channels,
        problem=problem,
        detail=detail,
        sound=_sound(samples) if good else "",
        cancelled=_lost(mixed, decoded.power) if good and decoded.channels > 1 else 0.0,
        above=_lost(float(Recording(samples, rate).at(SAMPLE_RATE).var(dtype=np.float64)), mixed)
        if good and rate > SAMPLE_RATE
        else 0.0,
        missing=decoded.missing,
    )


def _lost(after: float, before: float) -> float:
    """Return the part of the power that is gone, in [0, 1]."""
    return float(np.clip(1 - after / before, 0, 1)) if before > 0 else 0.0


def _sound(samples: Waveform) -> str:
    steps = np.round(samples * 32768.0).astype("<i4")
    return hashlib.blake2b(steps.data, digest_size=16).hexdigest()


def _stamp(path: Path) -> tuple[str, int, int] | None:
    """Return what changes when a file does, or None where there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return str(path), stat.st_size, stat.st_mtime_ns


def _scan_chunk(chunk: Sequence[tuple[str, Path]]) -> list[tuple[str, ClipScan]]:
    return [(clip_id, scan_file(path)) for clip_id, path in chunk]


def scan(
    dataset: Dataset,
    cache: Path,
    map_: MapFn[Sequence[tuple[str, Path]], list[tuple[str, ClipScan]]],
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
    stamps = {clip.clip_id: _stamp(clip.path) for clip in dataset.recordings}
    found: dict[str, ClipScan] = {}
    todo: list[tuple[str, Path]] = []
    for clip in dataset.recordings:
        entry = known.get(clip.clip_id)
        if entry is not None and entry["stamp"] == list(stamps[clip.clip_id] or ()):
            found[clip.clip_id] = ClipScan(**entry["scan"])
        else:
            todo.append((clip.clip_id, clip.path))
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

    return [str(_VERSION), str(soundfile.__libsndfile_version__)]


def _read_known(file: Path) -> dict[str, dict[str, Any]]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return dict(stored["clips"]) if stored["version"] == _scan_version() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # absent or damaged: scan again


def _write_known(file: Path, known: Mapping[str, dict[str, Any]]) -> None:
    write_json(file, {"version": _scan_version(), "clips": known}, indent=None)
