"""What a network from ImageNet sees in a spectrogram, written `REPRESENTATION@NETWORK`.

Such as `logmel64@mobilenet_v2`: excerpts of about a second, one each half second, are shown to the
frozen network as grey images, each by its own mean and deviation. Its last features, the mean over
the image, are an embedding: a representation for `linear` and `mlp`. NETWORK is any classification
network of torchvision's, or of timm's, that takes such images.

Its file of weights is a safetensors file in the folder of weights. `networks.freezing` writes it.
It says how many features there are, so a driver needs no PyTorch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.hashing import sha256_of
from mrkd_ray.representations import pretrained

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SEPARATOR = "@"
HOP = 48  # frames of the spectrogram from one excerpt to the next; an excerpt has twice as many
SILENCE = 1.0  # dB: an excerpt that changes less is not blown up
TIMM = "timm."

_brought: dict[str, Path] = {}


@dataclass(frozen=True)
class Frozen:
    """A network that is there: its file, the features that it has, and the file's sha256."""

    network: str
    file: Path
    bins: int
    sha256: str


def file_of(network: str) -> Path:
    """Return where the file of a network is looked for first."""
    return pretrained.folder() / f"imagenet-{network}.safetensors"


def bring(network: str, file: Path) -> None:
    """Take a network's file from a model's folder, where there is none in the folder of weights.

    Raises:
        UserError: another model brought another network of this name.
    """
    if file_of(network).is_file():
        return
    before = _brought.setdefault(network, file)
    if before.is_file() and sha256_of(before) != sha256_of(file):
        raise UserError(f"{file}: another {network} than {before}; use one of the models at a time")
    _brought[network] = file


def find(network: str) -> Frozen:
    """Return a network that is there.

    Raises:
        UserError: its file is not there, or is none.
    """
    file = file_of(network)
    if not file.is_file():
        file = _brought.get(network, file)
    if not file.is_file():
        raise UserError(
            f"{network}: its frozen weights, {file.name}, are not in {file.parent}. Fetch them: "
            f"mrkd download {network}. Or from a file: mrkd download {network} --file PATH"
        )
    return _read(network, file, file.stat().st_mtime_ns)


@functools.cache
def _read(network: str, file: Path, changed: int) -> Frozen:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as content:
            bins = int((content.metadata() or {})["bins"])
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise UserError(f"{file}: not a frozen network ({error}). Fetch it again.") from None
    return Frozen(network, file, bins, sha256_of(file))


def backbone(network: str) -> nn.Module:
    """Build a network without its classifier: images [B, 3, h, w] to features [B, C] or more axes.

    Raises:
        UserError: timm is not installed, or there is no network of this name.
    """
    from torch import nn

    if network.startswith(TIMM):
        try:
            import timm

            own: nn.Module = timm.create_model(network.removeprefix(TIMM), num_classes=0)
        except (ImportError, RuntimeError) as error:
            raise UserError(f"network {network!r}: {error}") from None
        return own
    from torchvision import models

    try:
        module: nn.Module = models.get_model(network, weights=None)
    except ValueError as error:
        raise UserError(f"network {network!r}: {error}") from None
    if hasattr(module, "avgpool"):
        module.avgpool = nn.AdaptiveAvgPool2d(1)
    for name in ("fc", "classifier", "head", "heads"):
        if isinstance(getattr(module, name, None), nn.Module):
            pooled = network.startswith("squeezenet")
            setattr(module, name, nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity())
    return module


@functools.cache
def _trained(found: Frozen, device: torch.device) -> nn.Module:
    import torch
    from safetensors.torch import load_file

    with torch.inference_mode(False):
        with torch.device("meta"):  # nothing is allocated for a file that does not fit
            module = backbone(found.network)
        try:
            module.load_state_dict(load_file(found.file), assign=True)
        except RuntimeError as error:
            reason = str(error).split("\n")[0]
            raise UserError(f"{found.file}: not the network {found.network} ({reason})") from None
        return module.to(device).eval().requires_grad_(False)


def excerpts(spectrogram: Tensor) -> Tensor:
    """Return images [B * n, 3, bins, 2 * HOP] of a spectrogram [B, bins, frames], n a row.

    Excerpt i has frame i * HOP in its middle.
    """
    import torch.nn.functional as F

    frames = spectrogram.shape[-1]
    count = 1 + (frames - 1) // HOP
    padded = F.pad(spectrogram, (HOP, HOP * (count + 1) - frames), mode="replicate")
    images = padded.unfold(-1, 2 * HOP, HOP)[:, :, :count].transpose(1, 2).flatten(0, 1)
    mean, std = images.mean((1, 2), keepdim=True), images.std((1, 2), keepdim=True)
    return ((images - mean) / (std + SILENCE))[:, None].expand(-1, 3, -1, -1)


def embed(spectrogram: Tensor, network: str) -> Tensor:
    """Return the features [B, C, n] of the excerpts of a spectrogram [B, bins, frames]."""
    module = _trained(find(network), spectrogram.device)
    features: Tensor = module(excerpts(spectrogram)).flatten(1)
    return features.view(len(spectrogram), -1, features.shape[1]).mT
