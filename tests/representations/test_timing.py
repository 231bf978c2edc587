import numpy as np
import pytest

from mrkd_ray.audio.decoding import SAMPLE_RATE
from mrkd_ray.representations.filters import HOP
from mrkd_ray.representations.timing import WINDOW_TICKS, Timing, ticks_of

TIMINGS = [
    Timing(),
    Timing(16_000, 160),
    Timing(22_050, 512),
    Timing(32_000, 320),
    Timing(32_000, 10_240),
    Timing(44_100, 441),
]


def test_at_the_papers_hop_ticks_are_frames() -> None:
    ticks = np.arange(-500, 500)
    np.testing.assert_array_equal(Timing().frames_at(ticks), ticks)
    assert Timing().window() == WINDOW_TICKS


@pytest.mark.parametrize("timing", TIMINGS)
def test_a_frame_is_the_nearest_to_its_tick(timing: Timing) -> None:
    ticks = np.arange(-300, 3000)
    seconds = timing.frames_at(ticks) * timing.frame_seconds
    assert abs(seconds - ticks * HOP / SAMPLE_RATE).max() <= timing.frame_seconds / 2 + 1e-9


@pytest.mark.parametrize("timing", TIMINGS)
def test_a_window_is_a_second_and_a_half(timing: Timing) -> None:
    off = abs(timing.window() * timing.frame_seconds - WINDOW_TICKS * HOP / SAMPLE_RATE)
    assert off <= timing.frame_seconds / 2


def test_ticks_count_the_frames_of_the_recording_after_resampling() -> None:
    assert ticks_of(22_050, 22_050) == ticks_of(44_100, 44_100) == 1 + 22_050 // 220
    assert ticks_of(1, 8_000) == 1
    assert ticks_of(219, 22_050) == 1
    assert ticks_of(220, 22_050) == 2
