"""Recordings that libsndfile does not read, decoded by PyAV (FFmpeg): m4a, webm, amr, wma, ...

A file may come from a stranger. FFmpeg gets it as an open file and never as a name, and only the
demuxers of `_DEMUXERS` look at it: none that opens other files or addresses, as playlists would.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

INSTALL = "pip install -e '.[formats]'"

_DEMUXERS = (
    "mov aac amr amrnb amrwb asf matroska webm avi ape wv tta mpc mpc8 rm ac3 eac3 dts dsf iff "
    "gsm ogg caf mp3 wav flac shn spx"
)
PRIMING = 8192  # samples that an encoder may have put before and behind, beyond what was promised


class ContainerError(ValueError):
    """A file that cannot be read; the message is a short reason."""


@functools.cache  # it is asked for every name of a file, and looks through folders
def available() -> bool:
    """Say whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


class Container:
    """The first audio stream of a file, as `soundfile.SoundFile` gives one.

    Attributes:
        samplerate: Hz.
        channels: of the stream.
        frames: about so many samples there are; 0 where nobody knows.
        promised: at least so many are promised.
        extra_info: "".

    Raises:
        ContainerError: PyAV is not installed, or the file is none that it reads.
    """

    extra_info = ""

    def __init__(self, path: Path) -> None:
        if not available():
            raise ContainerError(f"of a kind that needs PyAV: {INSTALL}")
        import av

        self._held = ExitStack()
        try:
            file = self._held.enter_context(path.open("rb"))
            only = {"format_whitelist": ",".join(_DEMUXERS.split())}
            self._container: Any = self._held.enter_context(av.open(file, container_options=only))
            if not self._container.streams.audio:
                raise ContainerError("it has no sound")
            stream = self._container.streams.audio[0]
            self.samplerate, self.channels = int(stream.rate), len(stream.layout.channels)
            seconds = (getattr(self._container, "duration", None) or 0) / av.time_base
            self.promised = 0
            if stream.duration is not None and stream.time_base is not None:
                seconds = stream.duration * stream.time_base
                self.promised = max(0, round(seconds * self.samplerate) - PRIMING)
            self.frames = round(seconds * self.samplerate)
            self._blocks = self._decoded(stream)
        except BaseException as error:
            self._held.close()
            if isinstance(error, av.FFmpegError):
                raise ContainerError(_reason(error)) from error
            raise
        self._waiting: NDArray[np.float32] = np.zeros((0, self.channels), np.float32)

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def seek(self, frames: int) -> None:
        """Leave out the first samples, before any was read; they are decoded all the same.

        Streams cannot be cut anywhere: the first samples behind a cut are others.
        """
        while frames and len(gone := self.read(min(frames, 1 << 20))):
            frames -= len(gone)

    def read(self, size: int, **_: Any) -> NDArray[np.float32]:
        """Return the next samples, float32 [n, channels]: `size`, or fewer at the end."""
        parts, count = [self._waiting], len(self._waiting)
        while count < size and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            count += len(block)
        joined = np.concatenate(parts)
        self._waiting = joined[size:]
        return joined[:size]

    def _decoded(self, stream: Any) -> Iterator[NDArray[np.float32]]:
        import av

        alike: Any = av.AudioResampler(format="fltp", layout=stream.layout, rate=self.samplerate)
        try:
            for frame in self._container.decode(stream):
                for each in alike.resample(frame):
                    yield each.to_ndarray().T
            for each in alike.resample(None):
                yield each.to_ndarray().T
        except av.FFmpegError as error:
            raise ContainerError(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).rstrip(".")
