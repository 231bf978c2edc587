"""Small networks for CPUs, and their layers."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from mrkd_ray.networks.registry import network

BANDS = 4  # the small networks average over time, and over frequency within this many bands


def residual(channels: int, n_classes: int) -> list[nn.Module]:
    """Return the layers of `resnet_small`."""
    widths = (8, 24, 48, 96)
    blocks = [_Residual(before, after) for before, after in itertools.pairwise(widths)]
    blocks[-1].end = nn.ReLU(inplace=True)
    stem = convolution(channels, widths[0], stride=2)
    return [*stem, pooled_relu(), *blocks, *head(widths[-1], n_classes)]


def plain(channels: int, n_classes: int) -> list[nn.Module]:
    """Return the layers of `vgg_small`."""
    layers: list[nn.Module] = []
    before = channels
    for width in (16, 32, 64):
        stride = 1 if layers else 2
        layers += [*convolution(before, width, stride=stride), *pooled_relu()]
        before = width
    for width in (96, 96):
        layers += [*convolution(before, width), nn.ReLU(inplace=True)]
        before = width
    return [*layers, *head(before, n_classes)]


def convolution(before: int, after: int, *, size: int = 3, stride: int = 1) -> list[nn.Module]:
    """Return a convolution and its BatchNorm, which makes a bias needless."""
    convolution = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(after)]


def head(width: int, n_classes: int) -> list[nn.Module]:
    """Return means over time and bands, and the classifier layer."""
    return [_BandMeans(), nn.Linear(BANDS * width, n_classes)]


def pooled_relu() -> nn.Sequential:
    """ReLU of maxima: what maxima of ReLUs are, gradient included, at a quarter of the cost."""
    return nn.Sequential(nn.MaxPool2d(2), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    """Two 3 x 3 convolutions added to a 1 x 1 one, then max pooling and ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *convolution(before, after), nn.ReLU(inplace=True), *convolution(after, after)
        )
        self.shortcut = nn.Sequential(*convolution(before, after, size=1))
        self.end: nn.Module = pooled_relu()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.end(self.main(x) + self.shortcut(x))
        return out


class _Unstacked(nn.Module):
    """[B, 3, n * bins, frames] to [B, 3 * n, bins, frames]: what is stacked becomes channels."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), self.n * x.shape[1], -1, x.shape[3])


class _BandMeans(nn.Module):
    """[B, C, bins, frames] to [B, BANDS * C]: the mean over time, and over each frequency band.

    As adaptive pooling, whose gradient is not deterministic on GPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] < BANDS:  # the mean over a band without bins is NaN
            raise ValueError(f"of the bins {x.shape[2]} are left, for {BANDS} bands")
        bands = x.mean(dim=3).tensor_split(BANDS, dim=2)
        return torch.cat([band.mean(dim=2) for band in bands], dim=1)


@network("resnet_small", description="residual, 7 convolutions, for CPUs; 0.2 M parameters")
def resnet_small(n_classes: int) -> nn.Module:
    """Three residual blocks with max pooling before each.

    Eight channels in the first convolution and pooling before any block are what makes it fast.
    Strides in place of the pooling were slower and less accurate on ESC-10 and the synthetic set.
    """
    return nn.Sequential(*residual(3, n_classes))


@network("vgg_small", description="plain, 5 convolutions, for CPUs; 0.2 M parameters")
def vgg_small(n_classes: int) -> nn.Module:
    """Plain 3 x 3 convolutions in four stages, with max pooling between them."""
    return nn.Sequential(*plain(3, n_classes))


@network("vgg_fused", description="vgg_small of three representations at once, for fused")
def vgg_fused(n_classes: int) -> nn.Module:
    """`vgg_small` whose first convolution sees three representations, with deltas, as channels."""
    return nn.Sequential(_Unstacked(3), *plain(9, n_classes))
