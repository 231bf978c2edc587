import librosa
import numpy as np
import pytest
import scipy.signal
import torch
from numpy.typing import NDArray

from mrkd_ray.features.deltas import MARGIN, with_deltas


def levels(*shape: int) -> NDArray[np.float64]:
    """Random values in the range of dB."""
    return np.random.default_rng(3).uniform(-80, 20, size=shape)


def test_kernels_are_the_savitzky_golay_coefficients() -> None:
    impulse = torch.zeros(1, 1, 9 + 2 * MARGIN, dtype=torch.float64)
    impulse[..., 4 + MARGIN] = 1.0
    static, delta, second = with_deltas(impulse)[0, :, 0].numpy()
    assert static.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    # The answer to an impulse is the kernel in the order of a convolution, as savgol_coeffs' own.
    assert np.allclose(delta, scipy.signal.savgol_coeffs(9, 1, deriv=1), atol=1e-15)
    assert np.allclose(second, scipy.signal.savgol_coeffs(9, 2, deriv=2), atol=1e-15)


@pytest.mark.parametrize("frames", [1, 5, 150])
def test_equals_librosa_inside_and_at_replicated_edges(frames: int) -> None:
    clip = levels(2, 6, frames)
    padded = np.pad(clip, ((0, 0), (0, 0), (MARGIN, MARGIN)), mode="edge")
    channels = with_deltas(torch.from_numpy(padded)).numpy()
    assert channels.shape == (2, 3, 6, frames)
    assert np.array_equal(channels[:, 0], clip)
    for order in (1, 2):
        expected = librosa.feature.delta(clip, width=9, order=order, mode="nearest")
        assert np.allclose(channels[:, order], expected, atol=1e-10)


def test_a_window_inside_a_clip_equals_the_clips_deltas_there() -> None:
    clip = levels(1, 4, 300)
    window = with_deltas(torch.from_numpy(clip[..., 100 - MARGIN : 250 + MARGIN])).numpy()
    for order in (1, 2):
        whole = librosa.feature.delta(clip, width=9, order=order, mode="interp")
        assert np.allclose(window[:, order], whole[..., 100:250], atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 0.2), (torch.bfloat16, 1.0)]
)
def test_keeps_the_dtype_and_constants_have_no_delta(dtype: torch.dtype, tolerance: float) -> None:
    exact = torch.from_numpy(levels(2, 3, 20))
    result = with_deltas(exact.to(dtype))
    assert result.dtype == dtype
    assert torch.allclose(result.double(), with_deltas(exact), atol=tolerance)
    constant = with_deltas(torch.full((1, 2, 12), -99.7, dtype=dtype))
    assert torch.equal(constant[:, 1:], torch.zeros(1, 2, 2, 4, dtype=dtype))


def test_input_is_not_changed_and_any_memory_layout_is_taken() -> None:
    static = torch.from_numpy(levels(2, 30, 5))
    before = static.clone()
    transposed = with_deltas(static.transpose(1, 2))
    assert torch.equal(static, before)
    assert torch.equal(transposed, with_deltas(static.transpose(1, 2).contiguous()))


@pytest.mark.gpu
def test_the_same_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    static = torch.from_numpy(levels(4, 64, 158)).float()
    assert torch.allclose(with_deltas(static.cuda()).cpu(), with_deltas(static), atol=1e-5)
