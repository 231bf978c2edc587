"""What is heard when: windows of a recording as long as one likes, and events made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mrkd_ray.audio.decoding import Recording, Waveform
from mrkd_ray.inference.prediction import Prediction
from mrkd_ray.scores.thresholds import PRESENT


@dataclass(frozen=True)
class Event:
    """A class that neighbouring windows agree on: from start to end in seconds.

    `confidence` is the highest of its probabilities in them.
    """

    start: float
    end: float
    label: str
    confidence: float


def segments(
    blocks: Iterable[Waveform], rate: int, window: float, hop: float
) -> Iterator[tuple[float, float, Recording]]:
    """Yield each window of a recording with its start and end in seconds.

    Windows begin every `hop` seconds. One more ends with the recording where sound would be left
    over. A recording that is shorter than a window is one itself.

    Args:
        blocks: of samples, float32 [n] each; taken as they are needed.
        rate: of them, in Hz.
        window: seconds.
        hop: seconds.

    Raises:
        AudioError: there are NaN or infinite samples, or what `blocks` raise.
    """
    size, step = max(1, round(window * rate)), max(1, round(hop * rate))
    held: Waveform = np.zeros(0, np.float32)
    at = first = ended = 0  # the sample that `held` begins with; of the next window; heard so far

    def cut(start: int, end: int) -> tuple[float, float, Recording]:
        return start / rate, end / rate, Recording(held[start - at : end - at].copy(), rate)

    for block in blocks:
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


def smoothed(windows: Sequence[Prediction], count: int) -> list[Prediction]:
    """Return windows with the mean of the probabilities of `count` neighbours, in order of time.

    Args:
        windows: of one recording, in order.
        count: a window, as many before it and as many after it: odd; fewer at both ends.
    """
    if not windows:
        return []
    around = count // 2
    sums = np.cumsum([window.branches for window in windows], axis=0, dtype=np.float64)
    sums = np.concatenate([np.zeros_like(sums[:1]), sums])
    places = np.arange(len(windows))
    first, end = np.maximum(places - around, 0), np.minimum(places + around + 1, len(windows))
    means = (sums[end] - sums[first]) / (end - first)[:, None, None]
    return [
        replace(window, branches=mean.astype(np.float32))
        for window, mean in zip(windows, means, strict=True)
    ]


def events(
    windows: Iterable[Prediction], classes: Sequence[str], least: float | None
) -> list[Event]:
    """Return what is heard, in order of time: windows that touch and agree are one event.

    Args:
        windows: of one recording, in order.
        classes: names of the M classes.
        least: the probability from which a class counts. None: the model's own thresholds, of
            one label `PRESENT` at least.
    """
    windows = list(windows)
    heard_in: dict[str, list[Prediction]] = {label: [] for label in classes}
    for window in windows:
        for label in _labels(window, least):
            heard_in[label].append(window)
    found = []
    for index, (label, heard) in enumerate(heard_in.items()):
        runs = [heard[:1]] if heard else []
        for before, window in pairwise(heard):
            if window.start <= before.end:
                runs[-1].append(window)
            else:
                runs.append([window])
        for run in runs:
            highest = max(float(window.probabilities[index]) for window in run)
            found.append(Event(run[0].start, run[-1].end, label, highest))
    return sorted(found, key=lambda event: (event.start, event.end, event.label))


def _labels(window: Prediction, least: float | None) -> list[str]:
    """Return the classes that count in a window."""
    if window.calibration.multi_label:
        return window.labels(least)
    found = window.labels(least)[:1]
    return [label for label in found if least is not None or window.top(1)[label] >= PRESENT]
