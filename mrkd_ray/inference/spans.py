"""What is heard when: windows of a recording as long as one likes, and events made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from mrkd_ray.audio.decoding import Decoding, Recording, Waveform
from mrkd_ray.common.arrays import Float32


@dataclass(frozen=True)
class Span:
    """A window of a recording: start and end in seconds, and the probabilities [M] in it."""

    start: float
    end: float
    probabilities: Float32


@dataclass(frozen=True)
class Event:
    """A class that neighbouring windows agree on: from start to end in seconds.

    `confidence` is the highest of its probabilities in them.
    """

    start: float
    end: float
    label: str
    confidence: float


def segments(path: Path, window: float, hop: float) -> Iterator[tuple[float, float, Recording]]:
    """Yield each window of a recording with its start and end in seconds; its file is streamed.

    Windows begin every `hop` seconds. One more ends with the recording where sound would be left
    over. A recording that is shorter than a window is one itself.

    Raises:
        AudioError: as `Decoding`, or there are NaN or infinite samples.
    """
    decoding = Decoding(path)
    rate = decoding.sample_rate
    size, step = max(1, round(window * rate)), max(1, round(hop * rate))
    held: Waveform = np.zeros(0, np.float32)
    at = first = ended = 0  # the sample that `held` begins with; of the next window; heard so far

    def cut(start: int, end: int) -> tuple[float, float, Recording]:
        return start / rate, end / rate, Recording(held[start - at : end - at].copy(), rate)

    for block in decoding:
        held = np.concatenate([held, block])
        while first + size <= at + len(held):
            ended = first + size
            yield cut(first, ended)
            first += step
        left = max(at, min(first, at + len(held) - size))
        held, at = held[left - at :], left
    length = at + len(held)
    if length > ended:
        yield cut(max(0, length - size), length)


def events(
    spans: Iterable[Span], classes: Sequence[str], threshold: float, *, multi_label: bool
) -> list[Event]:
    """Return what is heard, in order of time: windows that touch and agree are one event.

    Args:
        spans: of one recording, in order.
        classes: names of the M classes.
        threshold: the least probability that counts.
        multi_label: every class from there up counts; otherwise the most probable one does.
    """
    spans = list(spans)
    found = []
    for index, label in enumerate(classes):
        heard = [
            span
            for span in spans
            if span.probabilities[index] >= threshold
            and (multi_label or int(span.probabilities.argmax()) == index)
        ]
        runs = [heard[:1]] if heard else []
        for before, span in pairwise(heard):
            if span.start <= before.end:
                runs[-1].append(span)
            else:
                runs.append([span])
        for run in runs:
            highest = max(float(span.probabilities[index]) for span in run)
            found.append(Event(run[0].start, run[-1].end, label, highest))
    return sorted(found, key=lambda event: (event.start, event.end, event.label))
