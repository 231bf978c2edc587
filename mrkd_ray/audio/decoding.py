"""Recordings to waveforms: any format libsndfile decodes, any rate, channels and length."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 22050
"""Hz; of the authors' published code for the paper's reference [64]."""

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"}
)
"""What counts as a recording in a folder (lower case); everything else is ignored."""

BLOCK_FRAMES = 1 << 20  # bounds the memory of a long recording with many channels

Waveform = npt.NDArray[np.float32]


class AudioError(ValueError):
    """A recording cannot be used; the message is a short reason without the path."""


class EmptyAudioError(AudioError):
    """The recording holds no samples."""


class Decoded(NamedTuple):
    """A decoded recording."""

    samples: Waveform  # [n], n >= 1, mean of the channels, as stored (full scale is 1)
    sample_rate: int  # Hz, native
    channels: int


def decode(path: Path) -> Decoded:
    """Decode a recording at its native rate.

    Reads in blocks up to the end of the data instead of trusting the header's length, which is
    wrong in cut-off Ogg files.

    Raises:
        EmptyAudioError: no bytes or no samples.
        AudioError: no such file, not audio, or broken.
    """
    import soundfile

    try:
        if not path.is_file():
            raise AudioError("no such file")
        if path.stat().st_size == 0:
            raise EmptyAudioError("the file has 0 bytes")
        blocks: list[Waveform] = []
        with soundfile.SoundFile(str(path)) as file:
            rate, channels = int(file.samplerate), int(file.channels)
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                blocks.append(block.mean(axis=1) if channels > 1 else block[:, 0])
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        if "does not exist" in reason:  # what libsndfile says of a text file named .mp3
            reason = "Format not recognised"
        raise AudioError(f"not readable as audio: {reason}") from error
    except UnicodeEncodeError as error:
        raise AudioError("its name is not valid UTF-8: rename it") from error
    except (OSError, RuntimeError) as error:
        raise AudioError(f"not readable: {error}") from error
    if not blocks:
        raise EmptyAudioError("holds 0 samples")
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return Decoded(np.ascontiguousarray(samples), rate, channels)


def read(path: Path) -> tuple[Waveform, int]:
    """Return a recording as mono float32 `[n]` (mean of the channels) and its native rate in Hz.

    Raises:
        AudioError: as `decode`.
    """
    samples, rate, _ = decode(path)
    return samples, rate


class Recording:
    """A recording at whatever rate is asked for; each rate is made once.

    Args:
        samples: float32 mono [n], n >= 1, all finite.
        sample_rate: of them, in Hz.

    Raises:
        AudioError: the samples are something else.
    """

    def __init__(self, samples: Waveform, sample_rate: int = SAMPLE_RATE) -> None:
        if samples.ndim != 1 or samples.size == 0:
            raise AudioError(f"expected mono samples, at least one, not shape {samples.shape}")
        if not np.isfinite(samples).all():
            raise AudioError("holds NaN or infinite samples")
        self.sample_rate = sample_rate
        self._made = {sample_rate: samples.astype(np.float32, copy=False)}

    def __len__(self) -> int:
        """The samples at its own rate."""
        return len(self._made[self.sample_rate])

    def at(self, sample_rate: int) -> Waveform:
        """Return float32 mono [n], contiguous, at `sample_rate` Hz. Not to be written to."""
        if sample_rate not in self._made:
            import soxr

            samples = self._made[self.sample_rate]
            made: Waveform = soxr.resample(samples, self.sample_rate, sample_rate, quality="HQ")
            # soxr rounds the length, and we count every sample begun.
            length = samples_at(len(samples), self.sample_rate, sample_rate)
            made = np.pad(made, (0, max(0, length - len(made))))[:length]
            self._made[sample_rate] = made
        return self._made[sample_rate]


def samples_at(samples: int, sample_rate: int, wanted: int) -> int:
    """Return how many samples a recording of so many samples has at another rate."""
    return -(-samples * wanted // sample_rate)


def load(path: Path) -> Recording:
    """Decode a recording, for any sample rate.

    Raises:
        AudioError: as `decode`, or the recording holds NaN or infinite samples.
    """
    return Recording(*read(path))
