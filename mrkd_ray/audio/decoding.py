"""Recordings to waveforms: any format libsndfile decodes, any rate, channels and length."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 22050
"""Hz; of the authors' published code for the paper's reference [64]."""

_READ = (
    "wav wave bwf w64 rf64 flac ogg oga opus mp3 mp2 aif aiff aifc au snd caf voc sph nist "
    "avr htk iff svx 8svx paf pvf sd2 sds sf ircam"
)
_UNREAD = (
    "m4a m4b m4r mp4 m4v mov 3gp 3g2 aac adts amr awb wma wmv asf webm weba mka mkv avi ape "
    "wv tta tak mpc ra rm ac3 eac3 dts dsf dff spx gsm shn"
)

AUDIO_SUFFIXES = frozenset(f".{name}" for name in _READ.split())
"""Endings, in lower case, of what libsndfile reads: what counts as a recording in a folder."""

UNREAD_SUFFIXES = frozenset(f".{name}" for name in _UNREAD.split())
"""Endings, in lower case, of recordings that libsndfile does not read."""

_UNFINISHED = 0x7FFFF000  # sizes from here on are written by programs that could not go back
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
    swing: float  # half of the largest channel's range from peak to peak
    power: float  # variance of a channel, the mean over channels; NaN or inf where samples are
    missing: float  # part of the sound that the header or the file's size promises and is not there


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
            promised, log = int(file.frames), str(file.extra_info)
            measured = _Measured(channels)
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                measured.add(block)
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
        raise EmptyAudioError(f"holds 0 samples in {path.stat().st_size} bytes")
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    missing = max(_unread(log), 1 - len(samples) / max(promised, 1))
    return Decoded(
        np.ascontiguousarray(samples), rate, channels, measured.swing, measured.power, missing
    )


class _Measured:
    """What is known of the channels without keeping them."""

    def __init__(self, channels: int) -> None:
        self._n = 0
        self._low = np.full(channels, np.inf)
        self._high = np.full(channels, -np.inf)
        self._sums = np.zeros((2, channels))  # of samples and of their squares

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Take in samples `[n, channels]`."""
        self._n += len(block)
        self._low = np.fmin(self._low, block.min(axis=0))
        self._high = np.fmax(self._high, block.max(axis=0))
        with np.errstate(all="ignore"):  # samples may be NaN or infinite
            self._sums[0] += block.sum(axis=0, dtype=np.float64)
            self._sums[1] += np.einsum("nc,nc->c", block, block, dtype=np.float64)

    @property
    def swing(self) -> float:
        """Half of the largest range."""
        return float((self._high - self._low).max()) / 2

    @property
    def power(self) -> float:
        """Mean of the variances."""
        with np.errstate(all="ignore"):
            mean, square = self._sums / self._n
            return float((square - mean**2).mean())


def _unread(log: str) -> float:
    """Return the part of a file's bytes that libsndfile's log says it lacks or does not read.

    A header that was never finished, as of a stream, says nothing.
    """
    parts = [0.0]
    for wanted, there in re.findall(r"(?i)(?:riff|form|size) *: (\d+) \(should be (\d+)\)", log):
        if int(there) < int(wanted) < _UNFINISHED:
            parts.append(1 - int(there) / int(wanted))
    length = re.search(r"Length : (\d+)", log)
    stopped = re.search(r"Unknown chunk marker \(\w+\) at position (\d+)", log)
    if length and stopped:
        parts.append(1 - int(stopped[1]) / int(length[1]))
    return max(parts)


def read(path: Path) -> tuple[Waveform, int]:
    """Return a recording as mono float32 `[n]` (mean of the channels) and its native rate in Hz.

    Raises:
        AudioError: as `decode`.
    """
    return decode(path)[:2]


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
