"""Requests to recordings: files of any format, raw PCM; limits on bytes and seconds. No PyTorch."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from mrkd_ray.audio.containers import INSTALL, available
from mrkd_ray.audio.decoding import (
    AUDIO_SUFFIXES,
    UNREAD_SUFFIXES,
    AudioError,
    Decoding,
    EmptyAudioError,
    Recording,
    Waveform,
)
from mrkd_ray.inference.inputs import recording_of

FASTEST_COUNTED = 48_000  # Hz: samples are limited to so many a second of `max_seconds`
ENCODINGS = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4", "u8": "u1"}
"""Raw PCM by name, and NumPy's name of it."""
FILES = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"caff", b"ID3", b"\x1aE\xdf\xa3")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class TooLarge(Exception):
    """A request or a recording is above a limit; the message says which."""


class NotAudio(Exception):
    """A request holds no recording; the message says why."""


def counted(receive: Receive, most: int) -> Receive:
    """Return what receives a request's body as `receive`, up to `most` bytes.

    Its callers get a TooLarge as soon as there are more.
    """
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise TooLarge(too_many_bytes(most))
        return message

    return bounded


def too_many_bytes(most: int) -> str:
    """Say that a request is too large."""
    return f"the request is larger than {most / 1e6:g} MB, which is the limit here"


def suffix_of(name: str | None) -> str:
    """Return the ending of a file's name where it is one of recordings, else ""."""
    suffix = Path(name or "").suffix.lower()
    return suffix if suffix in AUDIO_SUFFIXES | UNREAD_SUFFIXES else ""


def decoded(path: Path, seconds: float) -> Recording:
    """Decode a file of at most so many seconds, and no more of it.

    Raises:
        TooLarge: it is longer.
        NotAudio: it is no recording.
    """
    held: list[Waveform] = []
    try:
        decoding = Decoding(path)
        most = math.ceil(seconds * min(decoding.sample_rate, FASTEST_COUNTED))
        for block in decoding:
            held.append(block)
            if decoding.length > most:
                raise TooLarge(_too_long(seconds, decoding.sample_rate))
        return Recording(np.concatenate(held), decoding.sample_rate)
    except EmptyAudioError:
        raise NotAudio("the recording is empty") from None
    except AudioError as error:
        hint = "" if available() else f" (more formats: {INSTALL} where the server runs)"
        raise NotAudio(f"{error}{hint}") from None


def pcm(path: Path, rate: int, encoding: str, channels: int, seconds: float) -> Recording:
    """Read raw samples, whose channels take turns.

    Raises:
        TooLarge: there are more than so many seconds.
        NotAudio: they are a file, no whole samples, none, or not finite.
    """
    with path.open("rb") as file:
        first = file.read(4)
    if any(first.startswith(magic) for magic in FILES):
        raise NotAudio("rate: it is of raw samples, and this is a file, which says its own")
    size, frame = path.stat().st_size, np.dtype(ENCODINGS[encoding]).itemsize * channels
    if size == 0:
        raise NotAudio("the recording is empty")
    if size % frame:
        raise NotAudio(
            f"{size} bytes are no whole number of samples of {encoding} in {channels} channel(s)"
        )
    if size // frame > seconds * min(rate, FASTEST_COUNTED):
        raise TooLarge(_too_long(seconds, rate))
    samples = np.fromfile(path, ENCODINGS[encoding]).reshape(-1, channels)
    try:
        return recording_of(samples[:, 0] if channels == 1 else samples.T, rate)
    except AudioError as error:
        raise NotAudio(str(error)) from None


def _too_long(seconds: float, rate: int) -> str:
    fast = f" of {FASTEST_COUNTED} Hz (it has {rate} Hz)" if rate > FASTEST_COUNTED else ""
    return f"the recording is longer than {seconds:g} s{fast}, which is the limit here"
