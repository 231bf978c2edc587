"""Power spectra in real numbers against those in complex ones."""

import pytest
import torch

from mrkd_ray.representations.fourier import power, real_numbers


@pytest.mark.parametrize(
    ("size", "hop", "window", "pad_mode", "samples"),
    [
        (1764, 220, 1764, "constant", 300),  # of Mel bands; a recording below a frame
        (1764, 220, 1764, "constant", 12_345),
        (1024, 320, 800, "reflect", 9_600),  # of EfficientAT: a window below a frame
    ],
)
def test_real_numbers_give_the_same_power(
    size: int, hop: int, window: int, pad_mode: str, samples: int
) -> None:
    waveforms = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    shape = torch.hann_window(window)
    expected = power(waveforms, size, hop, shape, pad_mode)
    with real_numbers():
        found = power(waveforms, size, hop, shape, pad_mode)
    assert found.shape == expected.shape == (2, 1 + size // 2, 1 + samples // hop)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))
