"""How far the front-end is from librosa on real clips: `python -m benchmarks.frontend_error`.

A row for each representation: the largest and the 99.9th percentile difference over all bins and
frames of all clips, in dB. That of mfcc is in its own unit, dB times the cosine transform.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray

from mrkd_ray import audio
from mrkd_ray.representations import compute_clip

AUDIO = Path(__file__).parents[2] / "shared" / "data" / "esc10" / "audio"
COMMON: dict[str, Any] = {"sr": audio.SAMPLE_RATE, "hop_length": 220}

Array = NDArray[np.float32]


def _logmel(waveform: Array, bands: int) -> Array:
    power = librosa.feature.melspectrogram(y=waveform, n_fft=1764, n_mels=bands, **COMMON)
    return np.asarray(librosa.power_to_db(power))


def _mfcc(waveform: Array) -> Array:
    return np.asarray(librosa.feature.mfcc(y=waveform, n_fft=1764, n_mfcc=64, **COMMON))


def _cqt(waveform: Array) -> Array:
    magnitude = np.abs(librosa.cqt(waveform, n_bins=84, **COMMON))
    return np.asarray(librosa.amplitude_to_db(magnitude))


PLAIN: dict[str, Callable[[Array], Array]] = {
    "logmel64": lambda waveform: _logmel(waveform, 64),
    "logmel128": lambda waveform: _logmel(waveform, 128),
    "mfcc": _mfcc,
    "cqt": _cqt,
}


def errors(files: Iterable[Path]) -> dict[str, tuple[float, float]]:
    """Return the largest and the 99.9th percentile difference of each representation."""
    differences: dict[str, list[Array]] = {name: [] for name in PLAIN}
    for file in files:
        waveform = audio.load(file)
        ours = compute_clip(PLAIN, waveform)
        for name, plain in PLAIN.items():
            differences[name].append(np.abs(ours[name].T - plain(waveform)).ravel())
    joined = {name: np.concatenate(parts) for name, parts in differences.items()}
    return {name: (float(d.max()), float(np.quantile(d, 0.999))) for name, d in joined.items()}


def main() -> None:
    """Print the table for the clips of a folder: the argument, or ESC-10's."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else AUDIO
    files = sorted(file for file in folder.iterdir() if file.suffix in audio.AUDIO_SUFFIXES)
    print(
        f"{len(files)} clips\n\n| representation | largest | 99.9 % within |\n| --- | --- | --- |"
    )
    for name, (largest, most) in errors(files).items():
        print(f"| `{name}` | {largest:.4f} | {most:.5f} |")


if __name__ == "__main__":
    main()
