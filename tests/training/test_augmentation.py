"""Augmentation: its exact effect on windows, its randomness, and that it is for training only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.config.method import Training
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip
from mrkd_ray.training.augmentation import Augmentation
from mrkd_ray.training.branch import Branch
from tests.conftest import TaskMaker

BINS, WINDOW, N = 5, 150, 40
LOGMEL, CQT = "logmel64:vgg_small", "cqt:vgg_small"
EACH = [
    {"augment_gain": 6.0},
    {"augment_shift": 0.5},
    {"specaugment_time": 30},
    {"specaugment_bins": 12},
]


def augmented(
    level: Tensor | None = None, seed: int = 0, linear: bool = False, **options: Any
) -> tuple[Tensor, ...]:
    """Windows before and after, and which of their frames are not padding."""
    windows = torch.randn(N, 3, BINS, WINDOW, generator=torch.Generator().manual_seed(1)) + 9
    windows = windows.contiguous(memory_format=torch.channels_last)
    inside = torch.ones(N, WINDOW, dtype=torch.bool)
    inside[::2, :20] = False
    level = torch.ones(BINS) if level is None else level
    augmentation = Augmentation(Training(**options), level, linear=linear)
    augmentation.draw(N, np.random.default_rng(seed), np.random.default_rng(seed + 1))
    rows = torch.arange(N).flip(0)
    after = augmentation.apply(windows.clone(), rows, inside)
    assert after.stride() == windows.stride()
    return windows, after, inside


def test_gain_adds_one_level_to_the_static_channel_of_a_clips_own_frames() -> None:
    level = torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0])
    before, after, inside = augmented(level, augment_gain=6.0)
    change = after - before
    assert (change[:, 1:] == 0).all()
    assert (change[:, 0].transpose(1, 2)[~inside] == 0).all()
    gains = change[:, 0, 0, -1]
    expected = gains[:, None, None] * level[:, None] * inside[:, None]
    torch.testing.assert_close(change[:, 0], expected, rtol=0, atol=1e-5)
    assert -6 <= gains.min() < -3
    assert 3 < gains.max() <= 6


@pytest.mark.parametrize("name", ["logmel64", "mfcc", "cqt", "gammatone64"])
def test_a_representations_gain_is_what_a_louder_recording_gives(name: str) -> None:
    noise = np.random.default_rng(0).normal(size=11025).astype(np.float32)
    quiet, loud = (compute_clip([name], Recording(noise * factor))[name].T for factor in (0.1, 0.2))
    louder = 20 * np.log10(2) * REPRESENTATIONS[name].levels
    np.testing.assert_allclose(loud - quiet, np.tile(louder[:, None], quiet.shape[1]), atol=2e-3)


def test_gain_multiplies_samples_and_no_sample_of_a_frame_is_masked() -> None:
    before, after, _ = augmented(linear=True, augment_gain=6.0, specaugment_bins=3)
    factors = (after / before)[:, 0]
    assert (after[:, 1:] == before[:, 1:]).all()
    torch.testing.assert_close(factors, factors[:, :1, :1].expand_as(factors))
    gains = 20 * factors[:, 0, 0].log10()
    assert -6 <= gains.min() < -3
    assert 3 < gains.max() <= 6


def test_shift_rolls_each_window_in_time() -> None:
    before, after, _ = augmented(augment_shift=0.5)
    shifts = []
    for one, other in zip(before, after, strict=True):
        (shift,) = (s for s in range(-75, 75) if torch.equal(one.roll(s, dims=2), other))
        shifts.append(shift)
    assert -50 <= min(shifts) < -25
    assert 25 < max(shifts) <= 50


@pytest.mark.parametrize(
    ("option", "most", "dim"), [("specaugment_time", 30, 2), ("specaugment_bins", 3, 1)]
)
def test_masks_are_one_block_of_zeros_in_all_channels(option: str, most: int, dim: int) -> None:
    before, after, _ = augmented(**{option: most})
    widths, begins = set(), set()
    for one, other in zip(before, after, strict=True):
        hidden = (other == 0).movedim(dim, 0).flatten(1)
        masked = hidden.all(dim=1)
        assert torch.equal(masked, hidden.any(dim=1))
        keep = (~masked).nonzero().flatten()
        assert torch.equal(other.index_select(dim, keep), one.index_select(dim, keep))
        where = masked.nonzero().flatten().tolist()
        widths.add(len(where))
        if where:
            assert where == list(range(where[0], where[-1] + 1))
            begins.add(where[0])
    assert min(widths) < most / 2 < max(widths) <= most
    assert len(begins) > 2


@pytest.mark.parametrize(("drawn", "last"), [(0.0, False), (np.nextafter(1, 0), True)])
def test_masks_reach_both_edges_and_are_whole_there(drawn: float, last: bool) -> None:
    options = {"specaugment_time": 30, "specaugment_bins": 2}
    augmentation = Augmentation(Training(**options), torch.ones(BINS))
    rng: Any = SimpleNamespace(  # draws the widest mask at one edge
        uniform=lambda low, high, n: np.zeros(n),
        integers=lambda low, high, n, endpoint: np.full(n, high),
        random=lambda n: np.full(n, drawn),
    )
    augmentation.draw(1, rng, rng)
    windows = torch.ones(1, 3, BINS, WINDOW)
    kept = augmentation.apply(windows, torch.arange(1), torch.ones(1, WINDOW, dtype=torch.bool))
    frames, bins = kept[0, 0].amax(dim=0), kept[0, 0].amax(dim=1)
    expected = [torch.tensor([0.0] * w + [1.0] * (n - w)) for w, n in ((30, WINDOW), (2, BINS))]
    if last:
        expected = [x.flip(0) for x in expected]
    assert torch.equal(frames, expected[0])
    assert torch.equal(bins, expected[1])


def test_what_an_epoch_draws_grows_by_numbers_a_clip_and_not_by_frames() -> None:
    changes = {name: value for options in EACH for name, value in options.items()}
    augmentation = Augmentation(Training(**changes), torch.ones(BINS))
    augmentation.draw(N, np.random.default_rng(0), np.random.default_rng(1))
    kept = [augmentation._gains, augmentation._shifts, *augmentation._blocks]
    assert sum(tensor.nbytes for tensor in kept) == N * (4 + 8 + 2 * 2 * 8)


def test_all_off_is_the_default() -> None:
    before, after, _ = augmented()
    assert torch.equal(before, after)
    assert not Augmentation(Training(), torch.ones(BINS)).on


def inputs(branch: Branch, epoch: int = 0) -> Tensor:
    return torch.cat([batch.inputs.clone() for batch in branch.minibatches.epoch(0, epoch, epoch)])


@pytest.mark.parametrize("options", EACH)
def test_training_windows_change_by_seed_and_epoch_and_evaluation_does_not(
    make_tasks: TaskMaker, options: dict[str, Any]
) -> None:
    plain, one, again = (
        Branch(make_tasks(LOGMEL, mixup=0.0, **changes)[0]) for changes in ({}, options, options)
    )
    first = inputs(one)
    assert torch.equal(first, inputs(again))
    assert not torch.equal(first, inputs(plain))
    np.testing.assert_array_equal(one.probabilities("test"), plain.probabilities("test"))
    np.testing.assert_array_equal(one.soft_labels(2.0), plain.soft_labels(2.0))


def test_a_shift_is_the_same_in_every_branch_and_gains_are_not(make_tasks: TaskMaker) -> None:
    options = {"augment_gain": 3.0, "augment_shift": 0.5}
    drawn = []
    for task in make_tasks(LOGMEL, CQT, **options):
        branch = Branch(task)
        inputs(branch)
        drawn.append(
            (branch.minibatches._augmentation._shifts, branch.minibatches._augmentation._gains)
        )
    (shifts, gains), (other_shifts, other_gains) = drawn
    assert torch.equal(shifts, other_shifts)
    assert not torch.equal(gains, other_gains)
