import numpy as np
import pytest
import torch

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.errors import UserError
from mrkd_ray.networks.catalogue import build
from mrkd_ray.networks.learned_filterbank import FILTERS, GaborFilterbank
from mrkd_ray.representations.catalogue import compute_clip


def windows(waveform: np.ndarray) -> torch.Tensor:
    """The first window [1, 3, 220, 150] of a recording, its deltas left empty."""
    frames = compute_clip(["waveform"], Recording(waveform.astype(np.float32)))["waveform"][:150]
    static = torch.from_numpy(frames.T.copy())[None, None]
    return torch.cat([static, torch.zeros(1, 2, 220, 150)], dim=1)


def tone(hertz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(150 * 220) / 22050)


def test_a_tone_is_loudest_in_the_filter_around_it_all_the_time() -> None:
    """So the samples of the window are read in their order: any other would be noise."""
    bank = GaborFilterbank().eval()
    for chosen in (10, 30, 55):
        level = bank(windows(tone(bank.middles[chosen].item())))
        assert level.shape == (1, 1, FILTERS, 150)
        assert (level[0, 0, :, 5:-5].argmax(dim=0) == chosen).all()


def test_all_frames_of_noise_are_about_as_loud_and_time_stays_in_place() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=150 * 220)
    bank = GaborFilterbank().eval()
    loud = bank(windows(noise))[0, 0]
    assert loud[30:, 5:-5].mean().abs() < 0.5  # the logarithm of 1, a little less
    noise[75 * 220 :] = 0
    ends = bank(windows(noise))[0, 0, 30:].mean(dim=0)
    assert ends[:68].min() > -2
    assert ends[82:].max() < -8


def test_a_filter_beside_a_tone_moves_onto_it_and_narrows() -> None:
    bank = GaborFilterbank().eval()
    sound = windows(tone((bank.middles[30] + 0.4 * bank.widths[30]).item()))
    (-bank(sound)[:, :, 30].mean()).backward()
    for parameter, sign in ((bank.shifts, -1), (bank.log_widths, 1)):
        assert parameter.grad is not None
        assert parameter.grad[30].sign() == sign
        assert parameter.grad.count_nonzero() == 1


def test_other_representations_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"windows of 64 x 150.*`waveform`"):
        build("leaf_small", 3, windows=(64, 150))
    build("leaf_small", 3, windows=(220, 150))


def test_fixed_parts_are_not_stored() -> None:
    assert not {"window", "middles"} & {k.split(".")[-1] for k in GaborFilterbank().state_dict()}
