"""Networks: windows [B, 3, bins, F] to logits [B, n_classes], built by name.

The modules beside this one register theirs (`registry.network`). Every other name is one of
torchvision's classification networks, or of timm's (`timm_models`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.registry import unknown
from mrkd_ray.networks import (  # noqa: F401  # they register their networks
    heads,
    learned_filterbank,
    mobilenets,
    small,
    spectrogram_transformer,
    timm_models,
)
from mrkd_ray.networks.registry import NETWORKS, Network
from mrkd_ray.networks.torchvision_models import torchvision_model
from mrkd_ray.networks.weights import SUFFIXES, WeightsReport, load_weights
from mrkd_ray.representations import pretrained


def build(
    name: str,
    n_classes: int,
    weights: str | Path = "none",
    *,
    bins: int | None = None,
    windows: tuple[int, int] | None = None,
) -> tuple[nn.Module, WeightsReport]:
    """Build a network on the CPU, in training mode; its classifier layer is always a new one.

    Random weights come from torch's global generator: the same `torch.manual_seed`, the same
    weights.

    Args:
        name: a registered network, a classification network of torchvision, or `timm.NAME`.
        n_classes: M, the number of logits.
        weights: `none`, `imagenet` (its library's, downloaded on first use) or the path of a
            state dict (.pth, .pt, .safetensors).
        bins: what a sized network is built for; others take any number.
        windows: bins and frames. Where given, it is checked that the network takes such windows.

    Raises:
        UserError: an unknown name, weights that cannot be had or do not fit, or windows that are
            too small for the network or not of the one size that it takes.
    """
    entry = find(name)
    if str(weights) == "imagenet" and not entry.imagenet:
        raise UserError(
            f"weights: imagenet: there are none for {name!r}; use weights: none or PATH"
        )
    if windows is not None:
        bins = windows[0]
    if entry.sized and bins is None:
        raise ValueError(f"network {name!r} is built for a number of bins")
    module = entry.builder(n_classes, bins) if entry.sized else entry.builder(n_classes)
    if windows is not None:
        check_input(module, name, *windows)
    layer = classifier_layer(module)
    return module, load_weights(module, name, weights, classifier=layer, official=entry.official)


def shapes(name: str, n_classes: int, bins: int) -> dict[str, torch.Size]:
    """Return the shape of each tensor of a network's state dict, without memory for them.

    Args: as `build`.

    Raises:
        UserError: an unknown name.
    """
    entry = find(name)
    with _Sizes():
        module = entry.builder(n_classes, bins) if entry.sized else entry.builder(n_classes)
    return {key: tensor.shape for key, tensor in module.state_dict().items()}


class _Sizes(TorchFunctionMode):
    """What is made to be filled is made on the meta device: weights. What has values has them."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def find(name: str) -> Network:
    """Return the network of this name. Raises UserError where there is none."""
    if name in NETWORKS:
        return NETWORKS[name]
    if name in known_networks():
        return Network(f"torchvision's {name}", lambda n: torchvision_model(name, n), imagenet=True)
    if timm_models.known(name):
        pretrained = timm_models.pretrained(name)
        return Network(f"timm's {name}", lambda n: timm_models.build(name, n), imagenet=pretrained)
    raise unknown("network", name, known_networks())


def known_networks() -> tuple[str, ...]:
    """Return all names but timm's: the registered ones, then torchvision's others (imports it)."""
    from torchvision import models

    others = [name for name in models.list_models(module=models) if name not in NETWORKS]
    return (*NETWORKS, *others)


def describe() -> dict[str, str]:
    """Return one line for each registered network, and one for each library's others together."""
    lines = {name: entry.description for name, entry in NETWORKS.items()}
    return lines | {
        "...": "any other classification network of torchvision by its name, "
        "for example resnet18, mobilenet_v3_small, efficientnet_b0 or convnext_tiny",
        f"{timm_models.PREFIX}...": "any network of timm that takes windows, for example "
        "timm.mobilenetv4_conv_small (needs the timm extra)",
    }


def default_weights(name: str) -> str:
    """Return the weights to start from where none are asked for.

    `imagenet` where there are any, the file from AudioSet where it is there, `none` otherwise.

    Raises:
        UserError: an unknown name, or a file that is not the official one.
    """
    entry = find(name)
    if entry.audioset and pretrained.there(entry.audioset):
        return str(pretrained.find(entry.audioset))
    return "imagenet" if entry.imagenet else "none"


def initial_weights(name: str, asked: str | None) -> str:
    """Return what one branch of a cohort starts from: `imagenet`, `none` or a file.

    Args:
        name: the branch's network.
        asked: None for the default; `imagenet`, `none`, or the path of a file or of a folder in
            which the file begins with the network's name. Networks of our own have no ImageNet
            weights and start from `none` under `imagenet` or a folder that has nothing for them.

    Raises:
        UserError: an unknown name; a folder without weights; one with no file, or several, for
            one of a library's.
    """
    if asked is None or (asked == "imagenet" and not find(name).imagenet):
        return default_weights(name)
    if not Path(asked).is_dir():
        return asked
    if not any(file.suffix in SUFFIXES for file in Path(asked).iterdir()):
        raise UserError(
            f"weights {asked}: no weights in this folder ({', '.join(SUFFIXES)}); give another, or "
            "weights: none"
        )
    # mn04_as_mAP_432.pt is of mn04, but vgg19_bn-c79401a0.pth is not of vgg19.
    pattern = f"{name}[-._]*" if find(name).audioset else f"{name}[-.]*"
    files = [file for file in sorted(Path(asked).glob(pattern)) if file.suffix in SUFFIXES]
    if len(files) == 1:
        return str(files[0])
    if not files and not find(name).imagenet:
        return "none"
    found = ", ".join(file.name for file in files) or "none"
    raise UserError(
        f"weights {asked}: needs one file for {name!r}, named {name}.pth or "
        f"{name}-*.pth; found {found}"
    )


def check_input(module: nn.Module, name: str, bins: int, frames: int) -> None:
    """Raise UserError if the network does not take windows [B, 3, bins, frames]."""
    was_training = module.training
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, 3, bins, frames))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"network {name!r} cannot take windows of {bins} x {frames} (bins x frames): {error}. "
            "Use another network; some only need a representation with more bins"
        ) from error
    finally:
        module.train(was_training)


def classifier_layer(module: nn.Module) -> str:
    """Return the name of the last linear or convolution layer, the one that yields the logits."""
    last = ""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            last = name
    return last
