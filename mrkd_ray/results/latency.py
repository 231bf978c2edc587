"""The time that models take for a clip as long as those of the run's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from mrkd_ray.audio.decoding import AudioError, seconds_of
from mrkd_ray.common import environment
from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.base import Clip
from mrkd_ray.datasets.opening import EMBEDDED, open_dataset
from mrkd_ray.results import best as best_folder
from mrkd_ray.results.best import Best, Latency

LOOKED_AT = 100  # clips whose lengths are read, at most
WITHOUT_DATA = 5.0  # seconds of a clip where the data set is not here to look at


def typical_seconds(config: Mapping[str, Any]) -> float:
    """Return the median length of a run's clips, of at most `LOOKED_AT` evenly apart.

    `WITHOUT_DATA` where the data set cannot be read here.

    Args:
        config: the run's, of `grid.yaml`.
    """
    data, cache = str(config["data"]), Path(config["cache"])
    if data in EMBEDDED and not cache.is_dir():
        return WITHOUT_DATA  # looking makes no data
    try:
        clips = open_dataset(data, cache).clips
        some = clips[:: -(-len(clips) // LOOKED_AT)]
        return float(median(map(_seconds, some)))
    except (UserError, OSError, AudioError):
        return WITHOUT_DATA


def _seconds(clip: Clip) -> float:
    if clip.stretch is None:
        return seconds_of(clip.path)
    start, end = clip.stretch
    return end - start


def measure(folders: Sequence[Path], seconds: float) -> Latency | None:
    """Measure a model on this machine; None where it cannot be loaded with this installation.

    Loads PyTorch: for commands, not for a run's driver.
    """
    from mrkd_ray.inference.latency import milliseconds

    try:
        took = milliseconds(folders, seconds)
    except UserError:
        return None
    return Latency(milliseconds=took, seconds=seconds, processor=environment.processor())


def with_latency(results: Path, best: Best, config: Mapping[str, Any]) -> Best:
    """Return what `best.json` says, its latency measured, and kept there, where it lacked."""
    if best.latency is not None or best.bytes is None:
        return best
    folders = sorted((results / best_folder.NAME / "branches").iterdir())
    latency = measure(folders, typical_seconds(config))
    if latency is None:
        return best
    return best_folder.note_latency(results, best, latency)
