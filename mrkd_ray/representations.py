"""Representations: a recording to an array [bins, frames] in dB, one function each.

All representations share the sample rate and the hop, so frame t is the same moment in each. Only
the static channel is computed here; deltas are derived where they are needed (`deltas.py`).

To add one, decorate a function with its name, its number of bins and a line of description::

    @representation("logmel40", bins=40, description="40 Mel bands, dB")
    def logmel(recording: Recording, bins: int) -> np.ndarray: ...

Everything that changes its result is a keyword of the decorator, which hands it to the function:
stored features are keyed by these keywords, so a new value means new features.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.audio import SAMPLE_RATE
from mrkd_ray.registry import Registry

FRAME = 1764  # samples: 80 ms at 22,050 Hz, the paper's frame
HOP = 220  # samples: the paper's 10 ms, rounded down
WINDOW_FRAMES = 150  # frames: the 1.5 s that a network sees at once
DELTA_WIDTH = 9  # frames: librosa's default width of a delta

Array = NDArray[np.float32]

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


class Recording:
    """One waveform, with what several representations of it share.

    Args:
        waveform: float32 mono [samples] at `SAMPLE_RATE`, at least one sample, all finite.

    Raises:
        ValueError: the waveform is not that.
    """

    def __init__(self, waveform: Array) -> None:
        if waveform.ndim != 1 or waveform.size == 0:
            raise ValueError(f"expected mono samples, at least one, not shape {waveform.shape}")
        if not np.isfinite(waveform).all():
            raise ValueError("the recording has NaN or infinite samples")
        self.waveform = np.asarray(waveform, dtype=np.float32)

    @property
    def frames(self) -> int:
        """The number of frames that each representation of this recording has."""
        return 1 + len(self.waveform) // HOP

    @functools.cached_property
    def power(self) -> Array:
        """|STFT|², float32 [1 + FRAME // 2, frames], centred frames, Hann window."""
        import librosa

        stft = librosa.stft(self.waveform, n_fft=FRAME, hop_length=HOP)
        power: Array = np.abs(stft) ** 2
        return power


@dataclass(frozen=True)
class Representation:
    """A registered representation: its function, with all that decides its result."""

    name: str
    bins: int
    description: str
    transform: Callable[[Recording], Array]
    params: Mapping[str, Any]
    gain: tuple[float, ...] = ()  # of each bin for 1 dB of gain; empty: 1 everywhere

    @property
    def levels(self) -> Array:
        """Return how far each bin moves when the recording gets 1 dB louder, [bins]."""
        return np.array(self.gain or [1.0] * self.bins, np.float32)

    @property
    def version(self) -> str:
        """Short hash that changes with the name, the bins, a parameter or librosa's version."""
        key = [self.name, self.bins, self.params, librosa_version()]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def librosa_version() -> str:
    """Return the installed version of librosa, without importing it."""
    return importlib.metadata.version("librosa")


REPRESENTATIONS: Registry[Representation] = Registry("representation")


def representation(
    name: str, *, bins: int, description: str, gain: Sequence[float] = (), **params: Any
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Register the decorated `function(recording, bins, **params)` as the representation `name`.

    It returns [bins, recording.frames] in dB. `params` go to the function and into the version;
    they must be JSON values. `gain` is how far each bin moves when the recording gets 1 dB louder,
    for augmentation; by default 1 in every bin.

    Raises:
        ValueError: the name is registered already.
    """

    def decorate(function: Callable[..., Array]) -> Callable[..., Array]:
        REPRESENTATIONS.add(
            name,
            Representation(
                name=name,
                bins=bins,
                description=description,
                transform=functools.partial(function, bins=bins, **params),
                params={"sample_rate": SAMPLE_RATE, "frame": FRAME, "hop": HOP, **params},
                gain=tuple(gain),
            ),
        )
        return function

    return decorate


def compute(name: str, recording: Recording) -> Array:
    """Return the representation `name` of a recording: float32 [bins, 1 + samples // HOP], dB.

    On one BLAS thread: their number changes the last bits, and differs between a worker and a
    user's process.

    Raises:
        UserError: nobody registered `name`.
        ValueError: the function returned another shape (an error in that function).
    """
    entry = REPRESENTATIONS[name]
    with _blas().limit(limits=1), warnings.catch_warnings():
        # Recordings shorter than a frame are padded with zeros, as they should be.
        warnings.filterwarnings("ignore", message="n_fft=.* is too large", category=UserWarning)
        result = np.asarray(entry.transform(recording), dtype=np.float32)
    expected = (entry.bins, recording.frames)
    if result.shape != expected:
        raise ValueError(f"representation {name!r} has shape {result.shape}, not {expected}")
    return result


@functools.cache
def _blas() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  loads SciPy's BLAS, to be found beside NumPy's
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@functools.cache
def _mel_filters(bins: int) -> Array:
    import librosa

    filters: Array = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FRAME, n_mels=bins)
    return filters


@representation("logmel64", bins=64, description="64 Mel bands, the paper's log-Mel, dB")
@representation("logmel128", bins=128, description="128 Mel bands, dB")
def logmel(recording: Recording, bins: int) -> Array:
    """Power in Mel bands, dB, floored at 80 dB under the recording's maximum."""
    import librosa

    decibels: Array = librosa.power_to_db(_mel_filters(bins) @ recording.power)
    return decibels


@representation(
    "mfcc",
    bins=64,
    description="64 cepstral coefficients of 128 Mel bands",
    bands=128,
    gain=[128**0.5] + [0.0] * 63,  # the orthonormal cosine transform of a constant
)
def mfcc(recording: Recording, bins: int, bands: int) -> Array:
    """Mel frequency cepstral coefficients: the cosine transform of the log-Mel bands.

    librosa's default of 128 bands, as in the code published for the paper's reference [64]
    (github.com/Cocoxili/DCASE2018Task2), where only the number of coefficients is 64.
    """
    import librosa

    coefficients: Array = librosa.feature.mfcc(S=logmel(recording, bands), n_mfcc=bins)
    return coefficients


@representation("cqt", bins=84, description="constant-Q transform, 7 octaves of 12 bins, dB")
def cqt(recording: Recording, bins: int) -> Array:
    """Magnitude of the constant-Q transform from C1 (32.7 Hz) up, dB, floored as `logmel`."""
    import librosa

    transform = librosa.cqt(recording.waveform, sr=SAMPLE_RATE, hop_length=HOP, n_bins=bins)
    decibels: Array = librosa.amplitude_to_db(np.abs(transform))
    return decibels
