"""What the GPU's script trains on: random frames, or ESC-50 decoded without librosa and soxr."""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import DATA
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import published
from mrkd_ray.features.store import Bank
from mrkd_ray.training.branch_task import BranchTask, Part

CLASSES = 50
CLIP = 5 * 22050  # samples


@dataclass(frozen=True)
class _Store:
    """Frames in memory in place of a `FeatureStore`, clip i under the clip_id `str(i)`."""

    representation: str
    frames: Any  # float32 [clips, frames, bins]
    digests: dict[str, str] = field(default_factory=dict)
    version: str = "memory"

    @property
    def bins(self) -> int:
        return int(self.frames.shape[2])

    def bank(self, clip_ids: Sequence[str]) -> Bank:
        length = self.frames.shape[1]
        rows = np.array([int(clip) for clip in clip_ids], np.int64)
        return Bank(
            self.frames.reshape(-1, self.bins), rows * length, np.full(len(rows), length, np.int64)
        )


def random_task(network: str, clips: int, device: str, **options: Any) -> BranchTask:
    """A branch on random frames of 64 bins."""
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(clips, 300, 64)).astype(np.float32)
    labels = rng.integers(0, CLASSES, clips)
    return BranchTask(
        name=network,
        spec=BranchSpec(representation="logmel64", network=network),
        training=published(weights="none", **options),
        store=_Store("logmel64", frames),  # type: ignore[arg-type]
        classes=tuple(f"{i:02d}" for i in range(CLASSES)),
        train=part(np.arange(clips), labels),
        held_out=part(np.zeros(0, np.int64), labels),
        test=part(np.arange(min(clips, 4)), labels),
        fold=1,
        seed=0,
        device=device,
    )


def part(rows: Any, labels: Any) -> Part:
    """The clips of these rows, by their number."""
    return Part(clip_ids=tuple(str(row) for row in rows), labels=labels[rows].astype(np.int64))


def esc50(device: str, names: Iterable[str], quick: bool) -> tuple[dict[str, _Store], Any, Any]:
    """ESC-50 through the front-end on the device: stores, labels, folds; random if quick."""
    from mrkd_ray.representations.catalogue import compute
    from mrkd_ray.representations.spectra import Recordings

    if quick:
        rng = np.random.default_rng(0)
        frames = rng.normal(size=(24, 200, 64)).astype(np.float32)
        store = _Store("logmel64", frames)
        return {"logmel64": store}, rng.integers(0, CLASSES, 24), 1 + np.arange(24) % 2
    root = DATA / "esc50"
    with (root / "meta.csv").open() as file:
        clips = list(csv.DictReader(file))
    classes = sorted({clip["label"] for clip in clips})
    labels = np.array([classes.index(clip["label"]) for clip in clips])
    folds = np.array([int(clip["fold"]) for clip in clips])
    with multiprocessing.get_context("spawn").Pool() as pool:
        files = [root / "audio" / clip["filename"] for clip in clips]
        waveforms = torch.from_numpy(np.stack(pool.map(_decode, files, chunksize=16)))
    found: dict[str, list[Any]] = {name: [] for name in names}
    for some in torch.split(waveforms, 64):
        with torch.inference_mode():
            recordings = Recordings(some.to(device))
            for name, arrays in found.items():
                arrays.append(compute(name, recordings).mT.cpu().numpy())
    stores = {
        name: _Store(name, np.ascontiguousarray(np.concatenate(arrays)))
        for name, arrays in found.items()
    }
    return stores, labels, folds


def _decode(file: Path) -> Any:
    """5 s of mono at 22,050 Hz: ESC-50's 44,100 Hz through a windowed sinc, every other sample."""
    import soundfile

    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    if rate != 44100:
        raise ValueError(f"{file.name}: {rate} Hz; ESC-50 has 44,100")
    place = np.arange(-64, 65)
    taps = np.sinc(place / 2) * np.kaiser(129, 10.0) / 2
    half = np.convolve(samples.mean(axis=1), taps.astype(np.float32), mode="same")[::2]
    return np.pad(half[:CLIP], (0, max(0, CLIP - len(half)))).astype(np.float32)
