"""Windows against librosa's deltas of the whole clip, cut and normalised afterwards."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrkd_ray.audio.decoding import SAMPLE_RATE, samples_at
from mrkd_ray.common.arrays import Float32
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.features.store import Bank
from mrkd_ray.features.window_extents import whole_window, window_bytes, window_ticks
from mrkd_ray.features.window_sources import Index
from mrkd_ray.features.windows import Windows
from mrkd_ray.representations.filters import HOP
from mrkd_ray.representations.timing import Timing

BINS = 4
WINDOW = 150
LENGTHS = (400, 40, 150, 1, 151, 149, 300, 7)
CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["resident", "streamed"])
def resident(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def make(
    lengths: tuple[int, ...] = LENGTHS,
    *,
    resident: bool = True,
    device: torch.device = CPU,
    ticks: int = WINDOW,
) -> tuple[Windows, list[Float32], Statistics]:
    """Windows over clips that lie scattered in their bank, with foreign frames between them."""
    rng = np.random.default_rng(len(lengths))
    clips = [rng.uniform(-80, 20, size=(n, BINS)).astype(np.float32) for n in lengths]
    foreign = np.full((3, BINS), 1e6, np.float32)
    places = np.zeros(len(clips), np.int64)
    pieces, end = [foreign], 3
    for i in rng.permutation(len(clips)):
        places[i] = end
        pieces += [clips[i], foreign]
        end += len(clips[i]) + 3
    bank = Bank(np.concatenate(pieces), places, np.array(lengths, np.int64))
    statistics = Statistics(
        mean=rng.normal(scale=20, size=(3, BINS)).astype(np.float32),
        std=rng.uniform(0.5, 8, size=(3, BINS)).astype(np.float32),
    )
    return Windows(bank, statistics, device, ticks=ticks, resident=resident), clips, statistics


def whole(clip: Float32, statistics: Statistics) -> NDArray[np.float64]:
    """A clip's three channels by librosa, normalised: [3, BINS, frames]."""
    static = clip.T.astype(np.float64)
    channels = [static] + [
        librosa.feature.delta(static, width=9, order=order, mode="nearest") for order in (1, 2)
    ]
    mean, std = (x.astype(np.float64)[:, :, None] for x in (statistics.mean, statistics.std))
    return (np.stack(channels) - mean) / std


def gather(windows: Windows, clips: Index, starts: Index) -> Tensor:
    (batch,) = windows.batches(clips, starts, len(clips))
    return batch


def indices(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


@pytest.mark.parametrize("start", [0, 1, 3, 117, 247, 249, 250])
def test_a_window_is_cut_from_the_whole_clips_channels(start: int, resident: bool) -> None:
    windows, clips, statistics = make(resident=resident)
    window = gather(windows, indices(0), indices(start)).numpy()
    assert window.shape == (1, 3, BINS, WINDOW)
    assert window.dtype == np.float32
    expected = whole(clips[0], statistics)[:, :, start : start + WINDOW]
    np.testing.assert_allclose(window[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("clip", "start"), [(1, 0), (1, -110), (1, -37), (3, -75), (5, -1), (5, 0), (7, -143)]
)
def test_a_short_clip_stands_where_its_start_says_and_the_rest_is_zero(
    clip: int, start: int, resident: bool
) -> None:
    windows, clips, statistics = make(resident=resident)
    (window,) = gather(windows, indices(clip), indices(start)).numpy()
    length = LENGTHS[clip]
    expected = np.zeros((3, BINS, WINDOW))
    expected[:, :, -start : -start + length] = whole(clips[clip], statistics)
    np.testing.assert_allclose(window, expected, rtol=0, atol=1e-4)
    (own,) = windows.inside(indices(clip), indices(start)).numpy()
    padding = np.ones(WINDOW, bool)
    padding[-start : -start + length] = False
    assert (window[:, :, padding] == 0).all()
    assert (window[:, :, ~padding] != 0).all()
    assert (own == ~padding).all()


def test_a_batch_is_its_windows_one_by_one(resident: bool) -> None:
    windows, _, _ = make(resident=resident)
    clips, starts = indices(5, 0, 0, 2, 7, 0), indices(-1, 250, 3, 0, -20, 250)
    batch = gather(windows, clips, starts).clone()
    for row, (clip, start) in enumerate(zip(clips, starts, strict=True)):
        alone = gather(windows, indices(clip), indices(start))[0]
        torch.testing.assert_close(batch[row], alone, rtol=0, atol=1e-5)


def all_windows(windows: Windows) -> tuple[Index, Index]:
    """Every start of every clip, the padded ones too."""
    spare = windows.lengths - WINDOW
    counts = np.abs(spare) + 1
    clips = np.repeat(np.arange(len(counts)), counts)
    starts = [np.arange(min(s, 0), max(s, 0) + 1) for s in spare.tolist()]
    return clips, np.concatenate(starts)


def test_resident_and_streamed_windows_are_the_same_bits() -> None:
    # 63 and 64 windows, of 4 x 150 values: vectors and their tails fall on other elements.
    resident, streamed = make(resident=True)[0], make(resident=False)[0]
    clips, starts = all_windows(resident)
    pairs = zip(*(w.batches(clips, starts, 64) for w in (resident, streamed)), strict=True)
    seen = 0
    for one, other in pairs:
        assert torch.equal(one, other)
        assert one.stride() == other.stride()
        assert one.is_contiguous(memory_format=torch.channels_last)
        seen += len(one)
    assert seen == len(clips)


def test_batches_are_split_as_equally_as_can_be(resident: bool) -> None:
    windows, _, _ = make(resident=resident)
    clips, starts = np.zeros(11, np.int64), np.arange(11)
    sizes = [len(batch) for batch in windows.batches(clips, starts, 4)]
    assert sizes == [4, 4, 3]


def test_a_batch_can_be_changed_without_changing_the_next(resident: bool) -> None:
    windows, _, _ = make(resident=resident)
    first = gather(windows, indices(0), indices(3)).clone()
    for batch in windows.batches(indices(0, 0), indices(3, 3), 1):
        assert torch.equal(batch, first)
        batch.zero_()


def test_bytes_of_resident_windows_are_those_of_the_tensor() -> None:
    windows, _, _ = make(resident=True)
    storage = windows._source._windows.untyped_storage()  # type: ignore[union-attr]
    assert windows.bytes == window_bytes(windows.lengths, BINS, WINDOW) == storage.nbytes()


@pytest.mark.gpu
def test_the_same_bits_on_a_gpu_resident_and_streamed(resident: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    here, there = (make(resident=resident, device=torch.device(d))[0] for d in ("cpu", "cuda"))
    clips, starts = all_windows(here)
    pairs = zip(*(w.batches(clips, starts, 64) for w in (here, there)), strict=True)
    assert all(torch.equal(one, other.cpu()) for one, other in pairs)


@pytest.mark.parametrize("length", [1, 146, 149, 150, 151, 154])
def test_random_starts_are_all_the_valid_ones_about_equally_often(length: int) -> None:
    windows, _, _ = make((999, length))
    draws = 6000
    starts = windows.random_starts(np.ones(draws, np.int64), np.random.default_rng(0))
    spare = length - WINDOW
    valid = range(min(spare, 0), max(spare, 0) + 1)
    assert set(starts.tolist()) == set(valid)
    share = draws / len(valid)
    counts = np.array([(starts == start).sum() for start in valid])
    # Five standard deviations of a binomial: a start drawn half or twice as often shows.
    assert np.abs(counts - share).max() <= 5 * np.sqrt(share)


def test_random_starts_belong_to_their_clips() -> None:
    windows, _, _ = make()
    clips = np.tile(indices(6, 1, 0, 2), 500)
    starts = windows.random_starts(clips, np.random.default_rng(1))
    assert starts.dtype == np.int64
    for clip, (low, high) in {6: (0, 150), 1: (-110, 0), 0: (0, 250), 2: (0, 0)}.items():
        mine = starts[clips == clip]
        assert low <= mine.min() <= low + 5 or low == high
        assert high - 5 <= mine.max() <= high


def test_even_starts_by_hand() -> None:
    windows, _, _ = make((400, 40, 150, 1, 151, 149, 300, 7))
    owners, starts = windows.even_starts(np.arange(8, dtype=np.int64))
    found = [starts[owners == clip].tolist() for clip in range(8)]
    middle = {40: -55, 1: -75, 149: -1, 7: -72}
    assert found == [
        [0, 125, 250],
        [middle[40]],
        [0],
        [middle[1]],
        [0, 1],
        [middle[149]],
        [0, 150],
        [middle[7]],
    ]
    assert (np.diff(owners) >= 0).all()


@pytest.mark.parametrize("length", [150, 151, 299, 300, 301, 449, 450, 1000, 3001])
def test_even_starts_cover_every_frame(length: int) -> None:
    windows, _, _ = make((20, length))
    owners, starts = windows.even_starts(indices(1))
    assert (owners == 0).all()  # the position among the clips asked for
    assert len(starts) == -(-length // WINDOW)
    covered = np.zeros(length, bool)
    for start in starts:
        assert 0 <= start <= length - WINDOW
        covered[start : start + WINDOW] = True
    assert covered.all()
    assert np.ptp(np.diff(starts)) <= 1 if len(starts) > 1 else starts.tolist() == [0]


def test_even_starts_count_clips_asked_for_twice_and_in_any_order() -> None:
    windows, _, _ = make()
    owners, starts = windows.even_starts(indices(4, 1, 0, 4))
    assert owners.tolist() == [0, 0, 1, 2, 2, 2, 3, 3]
    assert starts.tolist() == [0, 1, -55, 0, 125, 250, 0, 1]


def located(event: float, ticks: int, timing: Timing, resident: bool) -> Windows:
    """Windows of one clip that is silent but for the frame nearest to an event, in seconds."""
    frames = timing.frames(samples_at(HOP * (ticks - 1), SAMPLE_RATE, timing.sample_rate))
    clip = np.zeros((frames, 1), np.float32)
    clip[min(round(event / timing.frame_seconds), frames - 1)] = 1.0
    one = np.ones((3, 1), np.float32)
    bank = Bank(clip, np.zeros(1, np.int64), np.array([frames]), np.array([ticks]))
    return Windows(bank, Statistics(0 * one, one), CPU, timing, resident=resident)


@pytest.mark.parametrize("ticks", [40, 150, 160, 900])
def test_an_event_is_at_the_same_moment_of_a_window_in_every_branch(
    ticks: int, resident: bool
) -> None:
    timings = [
        Timing(),
        Timing(16_000, 160),
        Timing(22_050, 512),
        Timing(32_000, 320),
        Timing(32_000, 10_240),
    ]
    tick = Timing().frame_seconds
    event = 0.7 * ticks * tick
    clips = indices(*[0] * 20)
    for seed in range(3):
        found = []
        for timing in timings:
            windows = located(event, ticks, timing, resident)
            starts = windows.random_starts(clips, np.random.default_rng(seed))
            (batch,) = [x.clone() for x in windows.batches(clips, starts, 20)]
            assert batch.shape == (20, 3, 1, timing.window())
            heard = batch[:, 0, 0].numpy()
            where = np.where(heard.max(1) > 0, heard.argmax(1) * timing.frame_seconds, np.nan)
            found.append((where, timing))
        inside = (event / tick >= starts) & (event / tick < starts + WINDOW)
        for where, timing in found:
            expected = event - starts * tick
            # The event and the start are each off by half a frame, the end of a clip by one more.
            late = 1.5 * timing.frame_seconds
            edge = (expected < late) | (expected > WINDOW * tick - late)
            assert (np.isfinite(where) == inside)[~edge].all()
            assert abs(where - expected)[inside & ~edge].max(initial=0) <= late


def test_a_window_is_told_in_seconds_or_holds_whole_clips_up_to_10_s() -> None:
    assert window_ticks(1.5) == WINDOW
    assert window_ticks(0.001) == 1
    assert window_ticks("whole", whole_window([7, 502, 90])) == 502
    assert whole_window([7, 90_000]) == round(10 / Timing().frame_seconds) + 1  # frames of 10 s
    with pytest.raises(ValueError, match="unknown length"):
        window_ticks("whole")


@pytest.mark.parametrize("ticks", [1, 40, 400, 900])
def test_windows_of_any_length_cover_a_clip(ticks: int, resident: bool) -> None:
    windows, clips, _ = make(resident=resident, ticks=ticks)
    owners, starts = windows.even_starts(indices(0, 1))
    (batch,) = windows.batches(indices(0, 1)[owners], starts, 1000)
    assert batch.shape[3] == ticks
    heard = {int(s) + i for s in starts[owners == 0] for i in range(ticks)}
    assert heard >= set(range(len(clips[0])))
    own = windows.inside(indices(0, 1)[owners], starts)
    assert own[np.flatnonzero(owners == 1)].sum() >= len(clips[1])


def test_even_starts_are_the_same_moments_at_every_hop() -> None:
    paper, other = (located(1.0, 900, timing, False) for timing in (Timing(), Timing(32_000, 640)))
    for ours, theirs in zip(
        paper.even_starts(indices(0)), other.even_starts(indices(0)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    first = other.first_frames(indices(0, 0), np.array([0, 750]))
    np.testing.assert_array_equal(first, [0, other.lengths[0] - other.frames])
