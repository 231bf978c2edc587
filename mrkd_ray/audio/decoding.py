"""Recordings to waveforms: any format libsndfile or PyAV decodes, any rate, channels and length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mrkd_ray.audio import containers
from mrkd_ray.common.reading import check_regular

if TYPE_CHECKING:
    from soundfile import SoundFile

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
"""Endings, in lower case, of recordings that libsndfile does not read: PyAV does, if installed."""

_UNFINISHED = 0x7FFFF000  # sizes from here on are written by programs that could not go back
BLOCK_FRAMES, BLOCK_CHANNELS = 1 << 20, 8  # bound the memory of a long recording: less of more

SLOWEST, FASTEST = 1000, 768_000  # Hz; a header that says something else is not believed
LONGEST = 7 * 86400  # seconds: a small file may hold years of silence

LONG = 120.0
"""Seconds from which a recording is read from its file as often as it is needed, in parts."""

Waveform = npt.NDArray[np.float32]

Stretch = tuple[float, float]
"""A part of a recording: its start and its end, in seconds."""


class AudioError(ValueError):
    """A recording cannot be used; the message is a short reason without the path."""


class EmptyAudioError(AudioError):
    """The recording holds no samples."""


class Decoding:
    """A file that is decoded once, block by block; its figures stand when all blocks were taken.

    Reads up to the end of the data instead of trusting the header's length, which is wrong in
    cut-off Ogg files.

    Args:
        path: of the file.
        stretch: the part that is wanted: it is sought, and what is before it is not decoded. The
            samples are those of a file that holds nothing else.

    Attributes:
        sample_rate: Hz, native.
        channels: of the file.
        length: samples so far.

    Raises:
        EmptyAudioError: no bytes, or when all is read no samples.
        AudioError: no such file, not audio, or broken.
    """

    def __init__(self, path: Path, stretch: Stretch | None = None) -> None:
        self.path = path
        with _reasons():
            if check_regular(path).st_size == 0:
                raise EmptyAudioError("the file has 0 bytes")
            with _opened(path) as file:
                self.sample_rate, self.channels = int(file.samplerate), int(file.channels)
                is_container = isinstance(file, containers.Container)
                self._promised = int(file.promised if is_container else file.frames)
                self._log = str(file.extra_info)
        if not SLOWEST <= self.sample_rate <= FASTEST:
            raise AudioError(
                f"its header says {self.sample_rate} Hz: rates from {SLOWEST} to {FASTEST} are read"
            )
        self._first, self._last = 0, LONGEST * self.sample_rate + 1
        if stretch is not None:
            self._first, self._last = (round(time * self.sample_rate) for time in stretch)
            self._promised, self._log = self._last - self._first, ""
        self.length = 0
        self._measured = _Measured(self.channels)

    def __iter__(self) -> Iterator[Waveform]:
        """Yield the mean of the channels, float32 [n], at most `BLOCK_FRAMES` at a time."""
        size = BLOCK_FRAMES * BLOCK_CHANNELS // max(BLOCK_CHANNELS, self.channels)
        left = self._last - self._first
        with _reasons(), _opened(self.path) as file:
            if self._first:
                is_container = isinstance(file, containers.Container)
                file.seek(self._first if is_container else min(self._first, file.frames))
            while len(block := file.read(min(size, left), dtype="float32", always_2d=True)):
                left -= len(block)
                self._measured.add(block)
                self.length += len(block)
                if self.length > LONGEST * self.sample_rate:
                    raise AudioError(f"it is longer than {LONGEST // 86400} days")
                yield block.mean(axis=1) if self.channels > 1 else block[:, 0]
        if not self.length:
            end = f" from {self._first / self.sample_rate:g} s on" if self._first else ""
            raise EmptyAudioError(f"holds 0 samples{end} in {self.path.stat().st_size} bytes")

    @property
    def swing(self) -> float:
        """Half of the largest channel's range from peak to peak."""
        return self._measured.swing

    @property
    def power(self) -> float:
        """Variance of a channel, the mean over channels; NaN or inf where samples are."""
        return self._measured.power

    @property
    def missing(self) -> float:
        """Part of the sound that the header or the file's size promises and is not there."""
        return max(_unread(self._log), 1 - self.length / max(self._promised, 1))


def read_suffixes() -> frozenset[str]:
    """Return the endings, in lower case, of what counts as a recording here."""
    return AUDIO_SUFFIXES | UNREAD_SUFFIXES if containers.available() else AUDIO_SUFFIXES


def _opened(path: Path) -> SoundFile | containers.Container:
    """Open a file with libsndfile, or what that does not know with PyAV."""
    from soundfile import LibsndfileError, SoundFile

    try:
        return SoundFile(str(path))
    except LibsndfileError:
        if path.suffix.lower() in UNREAD_SUFFIXES or (containers.available() and not path.suffix):
            return containers.Container(path)
        raise


@contextmanager
def _reasons() -> Iterator[None]:
    """Have what libsndfile and the system say in an AudioError."""
    import soundfile

    try:
        yield
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        if "does not exist" in reason:  # what libsndfile says of a text file named .mp3
            reason = "Format not recognised"
        raise AudioError(f"not readable as audio: {reason}") from error
    except containers.ContainerError as error:
        raise AudioError(f"not readable as audio: {error}") from error
    except UnicodeEncodeError as error:
        raise AudioError("its name is not valid UTF-8: rename it") from error
    except FileNotFoundError as error:
        raise AudioError("no such file") from error
    except OSError as error:
        raise AudioError(f"not readable: {error.strerror or error}") from error
    except MemoryError as error:
        raise AudioError("it takes more memory than there is") from error
    except RuntimeError as error:
        raise AudioError(f"not readable: {error}") from error


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


def read(path: Path, stretch: Stretch | None = None) -> tuple[Waveform, int]:
    """Return a recording as mono float32 `[n]` (mean of the channels) and its native rate in Hz.

    Raises:
        AudioError: as `Decoding`.
    """
    decoding = Decoding(path, stretch)
    return _joined(list(decoding)), decoding.sample_rate


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
        _check_finite(samples)
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


class LongRecording:
    """A recording that is too long to be held: its file is read, block by block, when asked for.

    Attributes:
        path: of the file.
        stretch: the part of it that is meant; None: all of it.
        sample_rate: in Hz, native.
        lowest, highest: of its samples.

    Raises:
        AudioError: as `Decoding`, or it holds NaN or infinite samples.
    """

    def __init__(self, path: Path, stretch: Stretch | None = None) -> None:
        self.path, self.stretch = path, stretch
        self.lowest, self.highest = np.inf, -np.inf
        decoding = Decoding(path, stretch)
        for block in decoding:
            _check_finite(block)
            self.lowest = min(self.lowest, float(block.min(initial=np.inf)))
            self.highest = max(self.highest, float(block.max(initial=-np.inf)))
        self.sample_rate = decoding.sample_rate
        self._length = decoding.length

    def __len__(self) -> int:
        """The samples at its own rate."""
        return self._length

    def blocks(self, sample_rate: int) -> Iterator[Waveform]:
        """Yield float32 mono blocks at `sample_rate` Hz: the bits of `Recording.at`."""
        decoding = Decoding(self.path, self.stretch)
        resampled = resample(decoding, self.sample_rate, sample_rate)
        left = samples_at(self._length, self.sample_rate, sample_rate)
        for block in resampled:
            yield block[:left]
            left -= len(block)
        if left > 0:
            yield np.zeros(left, np.float32)


def resample(blocks: Iterable[Waveform], sample_rate: int, wanted: int) -> Iterator[Waveform]:
    """Yield blocks at another rate; all of them are, bit for bit, the whole at that rate."""
    import soxr

    if sample_rate == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(sample_rate, wanted, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def samples_at(samples: int, sample_rate: int, wanted: int) -> int:
    """Return how many samples a recording of so many samples has at another rate."""
    return (samples * wanted + sample_rate - 1) // sample_rate  # no negative: ONNX rounds those up


def load(path: Path, stretch: Stretch | None = None) -> Recording:
    """Decode a recording, or a part of it, for any sample rate.

    Raises:
        AudioError: as `Decoding`, or the recording holds NaN or infinite samples.
    """
    return Recording(*read(path, stretch))


def seconds_of(path: Path) -> float:
    """Return the length that a file's header tells.

    Raises:
        AudioError: as `Decoding`.
    """
    with _reasons():
        check_regular(path)
        with _opened(path) as file:
            return float(file.frames / file.samplerate)


def load_or_stream(path: Path, stretch: Stretch | None = None) -> Recording | LongRecording:
    """Decode a recording, or from `LONG` seconds on say what it takes to read it in parts.

    Args:
        path: of the file.
        stretch: the part of it that is meant; None: all of it.

    Raises:
        AudioError: as `load`.
    """
    decoding = Decoding(path, stretch)
    held = []
    for block in decoding:
        held.append(block)
        if decoding.length > LONG * decoding.sample_rate:
            return LongRecording(path, stretch)
    return Recording(_joined(held), decoding.sample_rate)


def _joined(blocks: list[Waveform]) -> Waveform:
    return np.ascontiguousarray(blocks[0] if len(blocks) == 1 else np.concatenate(blocks))


def _check_finite(samples: Waveform) -> None:
    if not np.isfinite(samples).all():
        raise AudioError("holds NaN or infinite samples")
