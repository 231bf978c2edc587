"""The constants of the representations: librosa's filters, built once and shipped in a file.

A constant is one array with a key such as `mel-64`: a kind and its numbers. Those in `SHIPPED` lie
in `filters.npz`, so that librosa is needed neither for training nor for inference; any other is
built by the installed librosa on first use and kept in memory. To write the file anew::

    python -m mrkd_ray.representations.filters
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.audio.decoding import SAMPLE_RATE
from mrkd_ray.common.files import replacing

FRAME = 1764  # samples: 80 ms at 22,050 Hz, the paper's frame
HOP = 220  # samples: the paper's 10 ms, rounded down
OCTAVE = 12  # bins of the constant-Q transform in an octave
HALVINGS = 2  # how often the hop can be halved, and with it the sample rate
REACH = 192  # samples on each side, of the filter before halving the sample rate
FILE = Path(__file__).with_name("filters.npz")
SHIPPED = ("mel-64", "mel-128", "dct-64-128", "halving", *(f"cqt-84-{i}" for i in range(7)))

Array = NDArray[Any]


@functools.cache
def get(key: str) -> Array:
    """Return a constant: from the file, or built if it is not there. Not to be written to.

    Raises:
        KeyError: there is no such kind of constant.
    """
    return _shipped()[key] if key in _shipped() else build(key)


def digest(key: str) -> str:
    """Return what a constant's values depend on: its hash if shipped, or librosa's version."""
    if key not in _shipped():
        return f"librosa {importlib.metadata.version('librosa')}"
    array = _shipped()[key]
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()


def build(key: str) -> Array:
    """Build a constant with the installed librosa. Raises KeyError as `get`."""
    kind, *numbers = key.split("-")
    return _BUILDERS[kind](*map(int, numbers))


@functools.cache
def _shipped() -> dict[str, Array]:
    with np.load(FILE) as file:
        return {key: file[key] for key in file.files}


def _mel(bands: int) -> Array:
    """Mel filters, float32 [bands, 1 + FRAME // 2]."""
    import librosa

    filters: Array = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FRAME, n_mels=bands)
    return filters


def _dct(coefficients: int, bands: int) -> Array:
    """The orthonormal cosine transform of `librosa.feature.mfcc`, float32 [coefficients, bands]."""
    angles = np.pi / bands * np.outer(np.arange(coefficients), np.arange(bands) + 0.5)
    matrix: Array = np.sqrt(2 / bands) * np.cos(angles)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def _halving() -> Array:
    """Taps, float32 [1 + 2 * REACH], of the low-pass in librosa's resampling to half the rate.

    It is soxr's, read off its answers to an impulse on an even and on an odd sample; what lies
    beyond `REACH` is below its precision.
    """
    import librosa

    impulses = np.zeros((2, 8 * REACH))
    impulses[[0, 1], [4 * REACH, 4 * REACH + 1]] = 1
    even, odd = librosa.resample(impulses, orig_sr=2, target_sr=1, res_type="soxr_hq", scale=True)
    taps = np.empty(1 + 2 * REACH, np.float32)
    taps[::2] = even[2 * REACH - REACH // 2 : 2 * REACH + REACH // 2 + 1]
    taps[1::2] = odd[2 * REACH - REACH // 2 + 1 : 2 * REACH + REACH // 2 + 1]
    return taps


def _cqt(bins: int, octave: int) -> Array:
    """One octave of `librosa.cqt`'s filters as spectra, complex64 [12, 1 + n // 2], top octave 0.

    They are multiplied with spectra of n samples at `SAMPLE_RATE / 2**min(octave, HALVINGS)`, and
    hold all of librosa's scaling. Sparsified as librosa's: that decides how much of loud sounds
    leaks into quiet bins.
    """
    import librosa

    lowest = float(librosa.note_to_hz("C1")) * 2 ** (bins // OCTAVE - 1 - octave)
    frequencies = librosa.cqt_frequencies(OCTAVE, fmin=lowest)
    rate = SAMPLE_RATE / 2 ** min(octave, HALVINGS)
    filters, lengths = librosa.filters.wavelet(freqs=frequencies, sr=rate)
    size = filters.shape[1]
    filters *= lengths[:, None] / size
    spectra = np.fft.fft(filters, axis=1)[:, : size // 2 + 1]
    sparse = librosa.util.sparsify_rows(spectra, quantile=0.01).toarray()
    # Both scalings of librosa's in one: for the lower rate, and by the lengths at the full rate.
    scaled: Array = sparse / np.sqrt(lengths)[:, None]
    return scaled.astype(np.complex64)


_BUILDERS: dict[str, Callable[..., Array]] = {
    "mel": _mel,
    "dct": _dct,
    "halving": _halving,
    "cqt": _cqt,
}


def main() -> None:
    """Write the file of shipped constants."""
    with replacing(FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{key: build(key) for key in SHIPPED})  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
