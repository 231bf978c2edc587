"""EfficientAT's MobileNets of all widths, for windows; AudioSet's weights fit them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from mrkd_ray.networks.registry import network
from mrkd_ray.representations.mobilenet import AudioMobileNet, official

WIDTHS = {f"mn{tenths:02}": tenths / 10 for tenths in (1, 2, 4, 5, 10, 20, 30, 40)}


class MobileNet(AudioMobileNet):
    """Windows [B, 3, bins, frames] to logits; deltas are not used."""

    def forward(self, windows: Tensor) -> Tensor:
        """Logits [B, n_classes]."""
        return super().forward(windows[:, :1])


def _of(width: float) -> Callable[[int], nn.Module]:
    return lambda n_classes: MobileNet(width, n_classes)


for _name, _width in WIDTHS.items():
    network(
        _name,
        description=f"MobileNetV3 of width {_width:g}; for logmel_mn there are AudioSet's weights",
        audioset=_name,
        official=official,
    )(_of(_width))
