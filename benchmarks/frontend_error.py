"""How far the front-end is from librosa on real clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.common import Result, Row
from mrkd_ray.audio import decoding
from mrkd_ray.representations.catalogue import compute_clip
from mrkd_ray.representations.filters import FRAME, HOP

NAME = "frontend_error"
COMMON: dict[str, Any] = {"sr": decoding.SAMPLE_RATE, "hop_length": HOP}

Array = NDArray[np.float32]


def _logmel(waveform: Array, bands: int) -> Array:
    power = librosa.feature.melspectrogram(y=waveform, n_fft=FRAME, n_mels=bands, **COMMON)
    return np.asarray(librosa.power_to_db(power))


def _mfcc(waveform: Array) -> Array:
    return np.asarray(librosa.feature.mfcc(y=waveform, n_fft=FRAME, n_mfcc=64, **COMMON))


def _cqt(waveform: Array) -> Array:
    magnitude = np.abs(librosa.cqt(waveform, n_bins=84, **COMMON))
    return np.asarray(librosa.amplitude_to_db(magnitude))


def _pcen(waveform: Array) -> Array:
    magnitude = librosa.feature.melspectrogram(
        y=waveform, n_fft=FRAME, n_mels=64, power=1, **COMMON
    )
    return np.asarray(librosa.pcen(magnitude * 2**31, **COMMON))


PLAIN: dict[str, Callable[[Array], Array]] = {
    "logmel64": lambda waveform: _logmel(waveform, 64),
    "logmel128": lambda waveform: _logmel(waveform, 128),
    "mfcc": _mfcc,
    "cqt": _cqt,
    "pcen64": _pcen,
}


def errors(files: Iterable[Path]) -> dict[str, tuple[float, float]]:
    """Return the largest and the 99.9th percentile difference of each representation."""
    differences: dict[str, list[Array]] = {name: [] for name in PLAIN}
    for file in files:
        recording = decoding.load(file)
        waveform = recording.at(decoding.SAMPLE_RATE)
        ours = compute_clip(PLAIN, recording)
        for name, plain in PLAIN.items():
            differences[name].append(np.abs(ours[name].T - plain(waveform)).ravel())
    joined = {name: np.concatenate(parts) for name, parts in differences.items()}
    return {name: (float(d.max()), float(np.quantile(d, 0.999))) for name, d in joined.items()}


def run(quick: bool = False) -> Result:
    """Compare all clips of ESC-10."""
    root = data.folder("esc10", quick)
    files = sorted(file for file in root.rglob("*") if file.suffix in decoding.AUDIO_SUFFIXES)
    found = errors(files)
    titles = ("largest difference", "99.9 % of bins and frames within")
    return Result(
        name=NAME,
        title="The front-end beside librosa",
        how=f"All bins and frames of {len(files)} clips of ESC-10, in dB. The figures of mfcc "
        "are in its own unit, dB times the orthonormal cosine transform; pcen64 has none. "
        "These are differences, not times. There is one run, since both sides are "
        "deterministic.",
        rows=[
            Row(what=f"{name}: {title}", unit="dB", ours=[value])
            for name, values in found.items()
            for title, value in zip(titles, values, strict=True)
        ],
    )
