"""One look at every audio file of a data set, remembered until the file changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mrkd_ray.audio.decoding import AudioError, EmptyAudioError, Waveform, decode
from mrkd_ray.common.files import write_json
from mrkd_ray.common.parallel_map import MapFn
from mrkd_ray.datasets.base import Dataset

Fault = Literal["unreadable", "empty", "not finite", "silent"]

SILENT_PEAK = 1e-6
"""Full scale is 1; one step of 16 bits is 3e-5."""
CHUNK = 32  # clips per call of the mapped function
_VERSION = 1  # of the remembered scans: raise it when `fault` or `ClipScan` changes


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


def fault(samples: Waveform) -> tuple[Fault, str] | None:
    """Return what is wrong with decoded samples `[n]`, n >= 1, or None.

    Silent means: a peak below 1e-6 of full scale, or several samples that are all equal (a
    constant offset is no sound). It is asked of the mean of the channels, which is what the
    representations are computed from.
    """
    if bad := int(np.count_nonzero(~np.isfinite(samples))):
        return "not finite", f"{bad} of {len(samples)} samples are NaN or infinite"
    low, high = float(samples.min()), float(samples.max())
    if max(-low, high) < SILENT_PEAK:
        return "silent", f"peak {max(-low, high):.1g}"
    if low == high and len(samples) > 1:
        return "silent", f"all samples are {low:.3g}"
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
        samples, rate, channels = decode(path)
    except AudioError as error:
        kind: Fault = "empty" if isinstance(error, EmptyAudioError) else "unreadable"
        return ClipScan(digest=found, problem=kind, detail=str(error))
    problem, detail = fault(samples) or (None, "")
    return ClipScan(
        digest=found,
        seconds=len(samples) / rate,
        sample_rate=rate,
        channels=channels,
        problem=problem,
        detail=detail,
    )


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
