"""`mrkd listen`: what the microphone hears, a line a second."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mrkd_ray.audio.decoding import Waveform
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.prediction import Prediction
from mrkd_ray.inference.spans import segments

if TYPE_CHECKING:
    from mrkd_ray.inference.classifier import Classifier

BLOCK = 0.1  # seconds that the microphone hands over at a time


def heard(
    classifier: Classifier, blocks: Iterator[Waveform], rate: int, window: float, hop: float
) -> Iterator[Prediction]:
    """Yield what is heard in each window, as soon as it has ended.

    Args:
        classifier: that is asked.
        blocks: samples, float32 [n] each, at `rate` Hz.
        rate: of the samples.
        window: seconds.
        hop: seconds.
    """
    for start, end, recording in segments(blocks, rate, window, hop):
        yield replace(classifier.hear(recording, "microphone"), start=start, end=end)


@contextmanager
def microphone(device: str | None) -> Iterator[tuple[int, Iterator[Waveform]]]:
    """Give the rate in Hz of a microphone, and its samples, float32 [n] at a time, without end.

    Args:
        device: a part of its name, or its number; None for the system's.

    Raises:
        UserError: sounddevice, PortAudio or the microphone is not there.
    """
    sounddevice = _sounddevice()
    number = int(device) if device and device.isdecimal() else device
    coming: queue.SimpleQueue[Waveform] = queue.SimpleQueue()

    def take(samples: Any, frames: int, time: Any, status: Any) -> None:
        coming.put(np.ascontiguousarray(samples[:, 0]))

    try:
        rate = int(sounddevice.query_devices(number, "input")["default_samplerate"])
        stream = sounddevice.InputStream(
            rate, round(BLOCK * rate), number, channels=1, dtype="float32", callback=take
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        which = f"--device {device}" if device else "no microphone"
        raise UserError(f"{which}: the system gives none to listen to ({error})") from None

    def blocks() -> Iterator[Waveform]:
        while True:
            yield coming.get()

    with stream:
        yield rate, blocks()


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise UserError("mrkd listen needs sounddevice: pip install -e '.[listen]'") from None
    except OSError:  # its PortAudio
        raise UserError(
            "mrkd listen needs PortAudio, which is not installed here (Debian: apt-get install "
            "libportaudio2)"
        ) from None
    return sounddevice
