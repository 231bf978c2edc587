"""When things happen: sample rates and hops of representations, and the moments that they share.

A representation has a sample rate and a hop of its own. What the branches of a cohort share is the
moment: windows are drawn in ticks of `HOP / SAMPLE_RATE` seconds, one for all, and each branch
takes the frames of its own that lie there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrkd_ray.audio.decoding import SAMPLE_RATE, samples_at
from mrkd_ray.common.arrays import Int64
from mrkd_ray.representations.filters import HOP

WINDOW_TICKS = 150  # the 1.5 s that a network sees at once by default
LONGEST_WHOLE = 1_003  # ticks, 10 s: the longest window of `--window whole`


@dataclass(frozen=True)
class Timing:
    """The sample rate (Hz) and the hop (samples) of a representation: by default the paper's."""

    sample_rate: int = SAMPLE_RATE
    hop: int = HOP

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop / self.sample_rate

    def window(self, ticks: int = WINDOW_TICKS) -> int:
        """Return the frames of a window of so many ticks."""
        return max(1, int(self.frames_at(ticks)))

    def frames(self, samples: int) -> int:
        """Return the frames of a recording of so many samples at this rate: frames are centred."""
        return 1 + samples // self.hop

    def frames_at(self, ticks: Int64 | int) -> Int64:
        """Return the frames nearest to so many ticks; as many where the hop is the tick."""
        above, below = HOP * self.sample_rate, SAMPLE_RATE * self.hop
        return np.floor_divide(2 * np.asarray(ticks, np.int64) * above + below, 2 * below)


PAPER = Timing()
"""Of the paper's representations; its frames are ticks."""

AUDIOSET = Timing(sample_rate=32_000, hop=320)
"""Of EfficientAT's front-end (`mobilenet`)."""

EMBEDDING = Timing(sample_rate=32_000, hop=32 * 320)
"""Of its networks' last convolution."""


def ticks_in(seconds: float) -> int:
    """Return the ticks nearest to so many seconds."""
    return round(seconds / PAPER.frame_seconds)


def ticks_of(samples: int, sample_rate: int) -> int:
    """Return the ticks of a recording: its frames in the paper's representations."""
    return PAPER.frames(samples_at(samples, sample_rate, SAMPLE_RATE))
