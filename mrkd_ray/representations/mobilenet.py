"""EfficientAT's MobileNets for audio: the front-end, the network, and its weights from AudioSet.

Schmid, Koutini and Widmer, "Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge
Distillation", ICASSP 2023; github.com/fschmid56/EfficientAT (MIT). The blocks are torchvision's
MobileNetV3's. The front-end gives what theirs gives, without torchaudio.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from mrkd_ray.common.files import replacing
from mrkd_ray.representations import fourier, official_weights, pretrained
from mrkd_ray.representations.timing import AUDIOSET

FFT, FRAME, BANDS = 1024, 800, 128
HIGHEST = 15_000.0  # Hz: the end of the last band
PRE_EMPHASIS = 0.97
DROPOUT = 0.2


def logmel(waveforms: Tensor) -> Tensor:
    """Return what EfficientAT's networks see of recordings.

    Args:
        waveforms: float32 mono [B, samples] at 32 kHz.

    Returns:
        [B, 128, 1 + (samples - 1) // 320]: log power in Mel bands, scaled to about -1 to 1.
    """
    if (lacking := FFT - waveforms.shape[1]) > 0:  # too short to be reflected at its ends
        frames = AUDIOSET.frames(waveforms.shape[1] - 1)
        return logmel(F.pad(waveforms, (0, lacking)))[..., :frames]
    emphasised = waveforms[:, 1:] - PRE_EMPHASIS * waveforms[:, :-1]
    power = fourier.power(emphasised, FFT, AUDIOSET.hop, _window(waveforms.device), "reflect")
    return ((_bands(waveforms.device) @ power + 1e-5).log() + 4.5) / 5


def filled(frames: Tensor, count: int) -> Tensor:
    """Return [B, bins, frames] with its last frame repeated up to so many.

    Pre-emphasis takes a sample: where it was a hop's first, one frame lacks.
    """
    return F.pad(frames, (0, count - frames.shape[-1]), mode="replicate")


@functools.cache
@torch.inference_mode(False)  # for both modes, whichever asks first
def _window(device: torch.device) -> Tensor:
    return torch.hann_window(FRAME, periodic=False, device=device)


@functools.cache
@torch.inference_mode(False)  # for both modes, whichever asks first
def _bands(device: torch.device) -> Tensor:
    """Kaldi's Mel filters, [128, 1 + FFT // 2]: triangles on the Mel scale from 0 Hz."""

    def mel(hertz: float | np.ndarray) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = mel(HIGHEST) * np.arange(BANDS + 2) / (BANDS + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    places = mel(np.arange(FFT // 2) * AUDIOSET.sample_rate / FFT)
    rising, falling = (places - low) / (middle - low), (high - places) / (high - middle)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters = np.pad(filters, ((0, 0), (0, 1)))  # the Nyquist frequency is not used
    return torch.from_numpy(filters.astype(np.float32)).to(device)


class AudioMobileNet(nn.Module):
    """[B, 1, bands, frames] to logits [B, n_classes]; `features` end in the embedding's channels.

    Args:
        width: of the channels, 1 for `mn10`.
        n_classes: M, the number of logits; AudioSet has 527.
    """

    def __init__(self, width: float, n_classes: int) -> None:
        from torchvision.models import mobilenetv3
        from torchvision.ops.misc import SqueezeExcitation

        super().__init__()
        settings, last = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_large", width_mult=width)
        squeeze = partial(SqueezeExcitation, scale_activation=nn.Sigmoid)
        block = partial(mobilenetv3.InvertedResidual, se_layer=squeeze)
        whole = mobilenetv3.MobileNetV3(settings, last, n_classes, block=block, dropout=DROPOUT)
        self.features = whole.features
        first = self.features[0][0]
        self.features[0][0] = nn.Conv2d(1, first.out_channels, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(self.features[0][0].weight, mode="fan_out")
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *whole.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, n_classes]."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

    def embedding(self, x: Tensor) -> Tensor:
        """[B, 1, bands, frames] to [B, channels, ceil(frames / 32)]: the mean over bands.

        Its mean over time is the embedding that the classifier sees.
        """
        found: Tensor = self.features(x).mean(dim=2)
        return found

    def summary(self, embedding: Tensor, context: int) -> Tensor:
        """What the classifier makes of the mean over `context` frames around each frame.

        Args:
            embedding: [B, channels, frames], of `embedding`.
            context: an odd number of frames; at the ends, those that there are.

        Returns:
            [B, channels + hidden, frames]: that mean, which the classifier sees, and its hidden
            layer, both as signed square roots, which spread them more evenly.
        """
        mean = F.avg_pool1d(embedding, context, 1, context // 2, count_include_pad=False).mT
        linear, activation = self.classifier[2:4]
        both = torch.cat([mean, activation(linear(mean))], dim=-1).mT
        return both.sign() * both.abs().sqrt()


def official(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an official file by `AudioMobileNet`'s names and in its shapes."""
    renamed = {}
    for name, tensor in tensors.items():
        ours = re.sub(r"\.conc_se_layers\.0\.fc([12])\.", r".fc\1.", name)
        is_linear = ours != name and tensor.ndim == 2  # of squeeze-and-excitation: 1 x 1 here
        renamed[ours] = tensor[:, :, None, None] if is_linear else tensor
    return renamed


def write_backbone(name: str, file: Path) -> None:
    """Write what the representations made with weights `name` need, as safetensors.

    Raises:
        UserError: as `trained`.
    """
    tensors = _needed(name, copy.deepcopy(trained(name, torch.device("cpu")))).state_dict()
    with replacing(file) as temporary:
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)


def backbone_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that `write_backbone` writes."""
    needed = _needed(name, AudioMobileNet(pretrained.FILES[name].width, 527))
    return {key: tuple(tensor.shape) for key, tensor in needed.state_dict().items()}


def _needed(name: str, network: AudioMobileNet) -> nn.Module:
    """Take from a network what its representations do not need; return what is left of it."""
    if pretrained.FILES[name].hidden:
        network.classifier = network.classifier[:-1]
        return network
    network.classifier = nn.Sequential()
    features: nn.Module = network.features
    return features


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of tensors and their names."""
    made = hashlib.sha256()
    for key in sorted(tensors):
        made.update(key.encode())
        made.update(tensors[key].contiguous().numpy().tobytes())
    return made.hexdigest()


_carried: dict[str, Mapping[str, Tensor]] = {}


def carry(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Take a network that a model brought, where its official file is not here.

    Args:
        name: of its weights.
        tensors: of `write_backbone`.

    Returns:
        Whether it is the network of that name.
    """
    if digest(tensors) != pretrained.FILES[name].backbone:
        return False
    _carried[name] = tensors
    return True


@functools.cache
@torch.inference_mode(False)  # for both modes, whichever asks first
def trained(name: str, device: torch.device) -> AudioMobileNet:
    """Return the network of this name as it was trained on AudioSet, in evaluation mode.

    One that a model brought (`carry`) has what its representations need.

    Raises:
        UserError: its file is not there, or is not the official one.
    """
    network = AudioMobileNet(pretrained.FILES[name].width, 527)

    def filled(tensors: Mapping[str, Tensor]) -> AudioMobileNet:
        network.load_state_dict(official(tensors))
        return network

    if name in _carried and not pretrained.there(name):
        _needed(name, network).load_state_dict(_carried[name])
    else:
        official_weights.network(name, filled)
    return network.to(device).eval().requires_grad_(False)
