"""Representations of a long recording, part by part, in memory that does not grow with its length.

Each part of `SECONDS` is computed by itself, with as much of the recording around it as its frames
depend on (`Representation.reach`). The floor in dB is under the maximum of the whole recording: a
first pass over all parts finds that. So a recording is decoded three times: to be checked, for the
maximum, and for the frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from mrkd_ray.audio.decoding import LongRecording, Waveform
from mrkd_ray.common.arrays import Float32
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute
from mrkd_ray.representations.spectra import Part, Recordings, one_thread

SECONDS = 15.0
"""Of a part, about: it is a whole number of every hop."""

Map = Callable[[Callable[..., Any], Iterable[Any]], Iterable[Any]]
"""Applies a function to parts, in order."""


def compute_parts(
    names: Iterable[str], recording: LongRecording, map_: Map = map
) -> Iterator[tuple[str, Float32]]:
    """Yield representations' names with their next frames [frames, bins], in order.

    All frames of a representation are those of `compute_clip`, to 1e-3 of its unit; but for
    `mn04`, whose network takes means over a part in place of the whole. As there, one CPU thread
    computes each part. Representations of several sample rates come one rate after the other.

    Args:
        names: of the representations.
        recording: the whole.
        map_: computes parts, in order; by default one after the other.

    Raises:
        UserError, ValueError: as `compute`.
        AudioError: the file has changed since `recording` was made.
    """
    by_rate: dict[int, list[str]] = {}
    for name in sorted(set(names)):
        by_rate.setdefault(REPRESENTATIONS[name].timing.sample_rate, []).append(name)
    for rate, own in by_rate.items():
        maxima: dict[str, float] = {}
        first = _computed(own, None, next(_samples(recording, rate, own)))
        if in_db := [name for name, _, seen in first if seen is not None]:
            for part in map_(partial(_computed, in_db, None), _samples(recording, rate, own)):
                for name, _, seen in part:
                    maxima[name] = max(maxima.get(name, -math.inf), seen or 0.0)
        for part in map_(partial(_computed, own, maxima), _samples(recording, rate, own)):
            for name, frames, _ in part:
                yield name, frames


class _Samples(NamedTuple):
    """A part of a recording with its context."""

    waveform: Waveform
    before: int  # samples of context
    own: int | None  # samples of the part itself; None: to the end


_Part = list[tuple[str, Float32, float | None]]


def _computed(names: Iterable[str], maxima: Mapping[str, float] | None, samples: _Samples) -> _Part:
    """Return each name with the part's frames [frames, bins] and the maximum that is in dB."""
    recordings = Recordings(torch.from_numpy(samples.waveform)[None])
    found: _Part = []
    for name in names:
        hop = REPRESENTATIONS[name].timing.hop
        first = samples.before // hop
        own = slice(first, None if samples.own is None else first + samples.own // hop)
        recordings.part = Part(own, None if maxima is None else maxima.get(name))
        with one_thread(), torch.no_grad():
            frames = compute(name, recordings)[0, :, own].T.contiguous().numpy()
        found.append((name, frames, recordings.part.seen))
    return found


def _samples(recording: LongRecording, rate: int, names: Iterable[str]) -> Iterator[_Samples]:
    """Yield the parts of a recording at a rate, each with what its frames depend on around it."""
    entries = [REPRESENTATIONS[name] for name in names]
    unit = math.lcm(*(entry.timing.hop for entry in entries))
    reach = math.ceil(max(entry.reach for entry in entries) * rate / unit) * unit
    size = max(1, round(SECONDS * rate / unit)) * unit
    held, begin, first = np.zeros(0, np.float32), 0, 0  # `begin`: the place of held[0]
    for block in recording.blocks(rate):
        held = np.concatenate([held, block])
        while begin + len(held) > first + size + reach:
            yield _Samples(held[: first + size + reach - begin], first - begin, size)
            first += size
            gone = max(0, first - reach) - begin
            held, begin = held[gone:], begin + gone
    while begin + len(held) >= first + size:  # the frame in the middle of its end is the next's
        yield _Samples(held[: first + size + reach - begin], first - begin, size)
        first += size
    yield _Samples(held, first - begin, None)
