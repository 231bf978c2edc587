"""Which recordings are meant: files, folders and patterns; samples in memory; open files."""

from __future__ import annotations

import glob
import io
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.audio.decoding import FASTEST, SLOWEST, AudioError, Recording, Stretch, Waveform
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import printable
from mrkd_ray.datasets.audio_files import is_audio, no_recordings, unread, visible_files

Input = str | Path | NDArray[Any] | IO[bytes]
"""A path, samples, or a file that is open for reading bytes."""

LOUDEST = 100.0  # of float samples, which lie in -1..1: from here on they are integers' values


@dataclass(frozen=True)
class Source:
    """One recording.

    Attributes:
        name: for people: the path, or `input N` (from 1) where it has none.
        sound: its file, its samples, or an open file.
        stretch: the part of a file that is meant; None: all of it.
    """

    name: str
    sound: Path | Recording | IO[bytes]
    stretch: Stretch | None = None

    @contextmanager
    def opened(self) -> Iterator[Path | Recording]:
        """Give its file or its samples; an open file is read from where it stands, into a file."""
        if isinstance(self.sound, Path | Recording):
            yield self.sound
            return
        with tempfile.NamedTemporaryFile(suffix=Path(self.name).suffix) as copy:
            shutil.copyfileobj(self.sound, copy)
            copy.flush()
            yield Path(copy.name)


def is_one(inputs: Input | Iterable[Input]) -> bool:
    """Say whether one recording is meant, and not a folder, a pattern or several inputs."""
    if isinstance(inputs, str | Path):
        return Path(inputs).expanduser().is_file() or not (
            Path(inputs).expanduser().is_dir() or glob.has_magic(str(inputs))
        )
    return not isinstance(inputs, Iterable) or hasattr(inputs, "__array__") or _is_open(inputs)


def sources(inputs: Input | Iterable[Input], sample_rate: int | None) -> list[Source]:
    """Return the recordings that are meant, in order; each file once.

    Args:
        inputs: one or several; paths as of `recordings`, samples as of `recording_of`.
        sample_rate: of the samples, in Hz.

    Raises:
        UserError: an input that is nothing of these; samples without their rate, or a rate
            without samples.
    """
    single = isinstance(inputs, str | Path) or is_one(inputs)
    given: list[Any] = [inputs] if single else list(inputs)  # type: ignore[arg-type]
    paths = [each for each in given if isinstance(each, str | Path)]
    files = iter(_recordings(paths))
    found: dict[object, Source] = {}
    rated = False
    for number, each in enumerate(given, 1):
        if isinstance(each, str | Path):
            found |= {file: Source(str(file), file) for file in next(files) if file not in found}
        elif _is_open(each):
            name = getattr(each, "name", None)
            name = name if isinstance(name, str) else f"input {number}"
            if isinstance(each, io.TextIOBase):
                raise UserError(f"{name}: open it for bytes: open(path, 'rb')")
            found[number] = Source(name, each)
        else:
            rated = True
            found[number] = _samples(each, f"input {number}", sample_rate)
    if sample_rate is not None and not rated:
        raise UserError("sample_rate: it is of samples: a file says its own")
    return list(found.values())


def _samples(values: Any, name: str, sample_rate: int | None) -> Source:
    if not hasattr(values, "__array__"):
        raise UserError(
            f"{name}: a path, an array of samples or an open file is taken, not a "
            f"{type(values).__name__}"
        )
    if sample_rate is None:
        raise UserError(f"{name}: say the samples' rate in Hz: sample_rate=44100")
    try:
        return Source(name, recording_of(np.asarray(values), sample_rate))
    except AudioError as error:
        raise UserError(f"{name}: {error}") from None


def recording_of(samples: NDArray[Any], sample_rate: int) -> Recording:
    """Return samples as a recording: the mean of the channels, float32 in -1..1.

    Args:
        samples: [n] or [channels, n]; floats in -1..1, signed integers of the whole range of
            their type, or unsigned bytes around 128.
        sample_rate: of them, in Hz.

    Raises:
        AudioError: anything else; samples that are not finite.
    """
    if isinstance(sample_rate, bool) or not SLOWEST <= sample_rate <= FASTEST:
        raise AudioError(f"sample_rate {sample_rate}: rates from {SLOWEST} to {FASTEST} Hz")
    if sample_rate != int(sample_rate):
        raise AudioError(f"sample_rate {sample_rate}: a whole number of Hz")
    if samples.ndim not in (1, 2) or 0 in samples.shape:
        raise AudioError(f"samples are [n] or [channels, n], not of shape {samples.shape}")
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        raise AudioError(
            f"samples are [channels, n], and these of shape {samples.shape} have more channels "
            "than samples: transpose them (samples.T)"
        )
    mono = _scaled(samples).mean(axis=0) if samples.ndim == 2 else _scaled(samples)
    return Recording(np.ascontiguousarray(mono), int(sample_rate))


def _scaled(samples: NDArray[Any]) -> Waveform:
    kind = samples.dtype.kind
    if kind == "f":
        peak = float(np.abs(samples).max())
        if np.isfinite(peak) and peak > LOUDEST:
            raise AudioError(
                f"float samples lie in -1..1, and these go up to {peak:g}: divide them by the "
                "largest value that they may have, 32768 for 16 bits"
            )
        return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - np.float32(128)) / np.float32(128)
    if kind == "i":
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    raise AudioError(f"samples are floats, signed integers or unsigned bytes, not {samples.dtype}")


def _is_open(value: object) -> bool:
    return hasattr(value, "read")


def recordings(inputs: Iterable[str | Path]) -> list[Path]:
    """Return the files that are meant, each once, in order.

    Args:
        inputs: files, taken as they are; folders, of which all recordings at any depth are taken,
            by name, with a note on the other files; and patterns with `*`, `?` or `[` (`**` for
            any depth) where no such file is.

    Raises:
        UserError: names each of them that is nothing of these.
    """
    return list(dict.fromkeys(file for files in _recordings(inputs) for file in files))


def _recordings(inputs: Iterable[str | Path]) -> Sequence[list[Path]]:
    """Return the files of each input, in order; as `recordings`."""
    found: list[list[Path]] = []
    wrong = []
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_file():
            own = [path]
        elif path.is_dir():
            files = list(visible_files(path))
            own = list(filter(is_audio, files))
            for note in unread(files, path) if own else ():
                print(printable(f"note: {given}: {note}"), file=sys.stderr)
        else:
            matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
            own = [match for match in matches if match.is_file()]
        if not own:
            why = no_recordings(path) if path.is_dir() else "no such file"
            wrong.append(f"{given}: {why}")
        found.append(own)
    if wrong:
        raise UserError("\n".join(wrong))
    return found
