"""A filterbank that is learned, for networks of the `waveform` itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrkd_ray.audio.decoding import SAMPLE_RATE
from mrkd_ray.networks.registry import network
from mrkd_ray.networks.small import residual
from mrkd_ray.representations import fourier
from mrkd_ray.representations.filters import FRAME, HOP

FILTERS = 64
LOWEST = 50.0  # Hz: the middle of the first filter at the start
FLOOR = 1e-4  # of power: 40 dB under white noise as loud as the training clips are on average


class GaborFilterbank(nn.Module):
    """Windows of samples to the log power of Gabor filters: [B, 3, HOP, F] to [B, 1, FILTERS, F].

    LEAF's front-end (Zeghidour et al. 2021) with its Gabor filters, which are learned, squared
    modulus and pooling at the hop. Filters and pooling are computed on the spectrum of frames,
    where a Gabor filter is a bell curve: far less work than convolving samples. Compression is the
    logarithm with BatchNorm of each band, in place of LEAF's PCEN.

    What is learned are each filter's middle, as a shift in filters' widths, and the logarithm of
    its width; both start from 0, which is the Mel scale, and weight decay pulls them back there.
    """

    def __init__(self) -> None:
        super().__init__()
        ends = _mel(torch.tensor([LOWEST, SAMPLE_RATE / 2]))
        middles = _hertz(torch.linspace(ends[0], ends[1], FILTERS + 1))
        self.window = nn.Buffer(torch.hann_window(FRAME), persistent=False)
        frequencies = torch.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)
        self.frequencies = nn.Buffer(frequencies, persistent=False)
        self.middles = nn.Buffer(middles[:-1], persistent=False)
        self.widths = nn.Buffer(middles.diff(), persistent=False)
        self.shifts = nn.Parameter(torch.zeros(FILTERS))
        self.log_widths = nn.Parameter(torch.zeros(FILTERS))
        self.norm = nn.BatchNorm1d(FILTERS)

    def forward(self, windows: Tensor) -> Tensor:
        """Raises ValueError where the windows are not those of `waveform`."""
        if windows.shape[2] != HOP:
            raise ValueError(f"it takes the representation `waveform`, {HOP} samples a frame")
        power = self._power(windows[:, 0].mT.flatten(1))
        middles = self.middles + self.shifts * self.widths
        widths = self.widths * self.log_widths.exp()
        filters = (-(((self.frequencies[:, None] - middles) / widths) ** 2)).exp()
        level = (power @ filters / filters.sum(dim=0) + FLOOR).log()
        normalised: Tensor = self.norm(level.mT)
        return normalised[:, None]

    def _power(self, samples: Tensor) -> Tensor:
        """|STFT|², about 1 for noise of variance 1: [B, samples / HOP, 1 + FRAME // 2]."""
        power = fourier.power(samples, FRAME, HOP, self.window, "constant").mT[:, :-1]
        return power / self.window.square().sum()


def _mel(hertz: Tensor) -> Tensor:
    return 2595 * (1 + hertz / 700).log10()


def _hertz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)


@network("leaf_small", description="learned filters, then resnet_small, for `waveform`; 0.2 M")
def leaf_small(n_classes: int) -> nn.Module:
    """A learned filterbank in front of `resnet_small`, which sees its bands as one channel."""
    return nn.Sequential(GaborFilterbank(), *residual(1, n_classes))
