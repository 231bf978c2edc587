"""PANNs: networks that others trained on AudioSet, as frozen representations.

Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition",
IEEE/ACM TASLP 28, 2020; github.com/qiuqiangkong/audioset_tagging_cnn (MIT), weights: Zenodo
3987831. Layers have the names of the official files, which are loaded strictly. The front-end is
theirs (32 kHz, 64 Mel bands of 50 Hz to 14 kHz, dB without a floor): its filters are in the file.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrkd_ray.representations import fourier, official_weights
from mrkd_ray.representations.timing import AUDIOSET

FFT, BANDS, CLASSES = 1024, 64, 527
AMIN = 1e-10  # the smallest power in a band
TRANSFORMS = tuple(f"spectrogram_extractor.stft.conv_{part}.weight" for part in ("real", "imag"))
"""The Fourier transform as two convolutions, in the files: here it is torch's."""


class _Filters(nn.Module):
    """The Mel filters, `melW`."""

    def __init__(self) -> None:
        super().__init__()
        self.melW = nn.Parameter(torch.zeros(1 + FFT // 2, BANDS))


class Panns(nn.Module):
    """What the networks share; `features` are [B, 1, frames, bands] to [B, C, frames', bands'].

    Attributes:
        stride: frames of the spectrogram for one of the features.
    """

    stride: int

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logmel_extractor = _Filters()
        self.bn0 = nn.BatchNorm2d(BANDS)
        self.fc1 = nn.Linear(channels, channels)
        self.fc_audioset = nn.Linear(channels, CLASSES)

    def convolved(self, spectrogram: Tensor) -> Tensor:
        """[B, 1, frames, bands] to the last convolution."""
        raise NotImplementedError

    def logmel(self, waveforms: Tensor) -> Tensor:
        """Waveforms [B, samples] at 32 kHz to [B, 1, 1 + samples // 320, 64], normalised."""
        frames = AUDIOSET.frames(waveforms.shape[1])
        if (lacking := 1 + FFT // 2 - waveforms.shape[1]) > 0:  # too short to be reflected
            waveforms = F.pad(waveforms, (0, lacking))
        window = torch.hann_window(FFT, device=waveforms.device)
        power = fourier.power(waveforms, FFT, AUDIOSET.hop, window, "reflect").mT
        bands = 10 * (power @ self.logmel_extractor.melW).clamp(min=AMIN).log10()
        normalised: Tensor = self.bn0(bands[:, :frames].mT[..., None])  # bands are its channels
        return normalised.permute(0, 3, 2, 1)

    def embedding(self, waveforms: Tensor) -> Tensor:
        """[B, samples] to [B, channels, ceil(frames / stride)]: the mean over bands."""
        x = self.logmel(waveforms)
        x = F.pad(x, (0, 0, 0, -x.shape[2] % self.stride), mode="replicate")
        return self.convolved(x).mean(dim=3)

    def forward(self, waveforms: Tensor) -> Tensor:
        """[B, samples] to logits [B, 527], as the original's before its sigmoid."""
        x = self.pooled(self.convolved(self.logmel(waveforms)).mean(dim=3))
        logits: Tensor = self.fc_audioset(self.fc1(x).relu())
        return logits

    def pooled(self, x: Tensor) -> Tensor:
        """[B, channels, frames] to [B, channels]: the maximum and the mean."""
        return x.amax(dim=2) + x.mean(dim=2)


class _Block(nn.Module):
    """Two convolutions, and the mean of 2 x 2."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return F.avg_pool2d(x, 2)


class Cnn10(Panns):
    """Eight convolutions; 5.2 M parameters, 512 channels, a feature each 0.16 s."""

    stride = 16

    def __init__(self) -> None:
        super().__init__(512)
        widths = (1, 64, 128, 256, 512)
        for i in range(4):
            setattr(self, f"conv_block{i + 1}", _Block(widths[i], widths[i + 1]))

    def convolved(self, spectrogram: Tensor) -> Tensor:
        """[B, 1, frames, 64] to [B, 512, frames / 16, 4]."""
        for i in range(4):
            spectrogram = getattr(self, f"conv_block{i + 1}")(spectrogram)
        return spectrogram


class MobileNetV1(Panns):
    """Depthwise separable convolutions; 4.8 M parameters, 1024 channels, a feature each 0.32 s."""

    stride = 32

    def __init__(self) -> None:
        super().__init__(1024)

        def ends(channels: int) -> tuple[nn.Module, nn.Module]:
            return nn.BatchNorm2d(channels), nn.ReLU()

        first = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        layers = [nn.Sequential(first, nn.AvgPool2d(2), *ends(32))]
        before = 32
        for channels, step in (
            *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
            *[(512, 1)] * 5,
            *((1024, 2), (1024, 1)),
        ):
            each = nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False)
            mixing = nn.Conv2d(before, channels, 1, bias=False)
            layers.append(
                nn.Sequential(each, nn.AvgPool2d(step), *ends(before), mixing, *ends(channels))
            )
            before = channels
        self.features = nn.Sequential(*layers)

    def convolved(self, spectrogram: Tensor) -> Tensor:
        """[B, 1, frames, 64] to [B, 1024, frames / 32, 2]."""
        found: Tensor = self.features(spectrogram)
        return found


NETWORKS: dict[str, type[Cnn10 | MobileNetV1]] = {
    "panns_cnn10": Cnn10,
    "panns_mobilenetv1": MobileNetV1,
}


def backbone_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that the embedding needs."""
    with torch.device("meta"):
        tensors = NETWORKS[name]().state_dict()
    return {k: tuple(x.shape) for k, x in tensors.items() if not k.startswith("fc")}


def load(name: str, content: Mapping[str, object]) -> Panns:
    """Return the network of this name with the tensors of an official file.

    Args:
        content: of the file: a state dict, or one under `model`.

    Raises:
        ValueError, RuntimeError: it is not the network's.
    """
    tensors = content.get("model", content)
    if not isinstance(tensors, Mapping):
        raise ValueError("no state dict under 'model'")
    lacking = [key for key in TRANSFORMS if key not in tensors]
    if lacking:
        raise ValueError(f"{lacking[0]} is missing")
    network = NETWORKS[name]()
    network.load_state_dict({k: x for k, x in tensors.items() if k not in TRANSFORMS})
    return network


@functools.cache
@torch.inference_mode(False)  # for both modes, whichever asks first
def trained(name: str, device: torch.device) -> Panns:
    """Return the network of this name as it was trained on AudioSet, in evaluation mode.

    Raises:
        UserError: its file is not there, or is not the official one.
    """
    network = official_weights.network(name, lambda content: load(name, content))
    return network.to(device).eval().requires_grad_(False)
