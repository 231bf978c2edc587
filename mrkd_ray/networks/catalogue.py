"""Networks: windows [B, 3, bins, 150] to logits [B, n_classes], built by name.

Small ones for CPUs stand here; every other name is one of torchvision's classification networks,
or of timm's (`timm_models.py`). To add one, decorate a function that returns a module for a number
of classes::

    @network("my_net", description="what it is, in one line")
    def my_net(n_classes: int) -> nn.Module: ...

Its last linear or convolution layer must be the one whose outputs are the classes. One network
serves every number of bins, so that it can be paired with every representation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.registry import Registry, unknown
from mrkd_ray.networks import timm_models
from mrkd_ray.networks.small import convolution, head, pooled_relu, residual
from mrkd_ray.networks.weights import SUFFIXES, WeightsReport, load_weights

Builder = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Network:
    """A network that can be built: `imagenet` says whether its library has weights for it."""

    description: str
    builder: Builder
    imagenet: bool


NETWORKS: Registry[Network] = Registry("network")


def network(name: str, *, description: str, imagenet: bool = False) -> Callable[[Builder], Builder]:
    """Register the decorated `function(n_classes)` as the network `name`.

    Raises:
        ValueError: the name is registered already.
    """

    def decorate(builder: Builder) -> Builder:
        NETWORKS.add(name, Network(description, builder, imagenet))
        return builder

    return decorate


def build(
    name: str, n_classes: int, weights: str | Path = "none", *, bins: int | None = None
) -> tuple[nn.Module, WeightsReport]:
    """Build a network on the CPU, in training mode; its classifier layer is always a new one.

    Random weights come from torch's global generator: the same `torch.manual_seed`, the same
    weights.

    Args:
        name: a registered network, a classification network of torchvision, or `timm.NAME`.
        n_classes: M, the number of logits.
        weights: `none`, `imagenet` (its library's, downloaded on first use) or the path of a
            state dict (.pth, .pt, .safetensors).
        bins: where given, it is checked that the network takes windows of this many bins.

    Raises:
        UserError: an unknown name, weights that cannot be had or do not fit, or windows that are
            too small for the network or not of the one size that it takes.
    """
    entry = find(name)
    if str(weights) == "imagenet" and not entry.imagenet:
        raise UserError(
            f"weights: imagenet: there are none for {name!r}; use weights: none or PATH"
        )
    module = entry.builder(n_classes)
    if bins is not None:
        check_input(module, name, bins)
    return module, load_weights(module, name, weights, classifier=classifier_layer(module))


def find(name: str) -> Network:
    """Return the network of this name. Raises UserError where there is none."""
    if name in NETWORKS:
        return NETWORKS[name]
    if name in known_networks():
        return Network(f"torchvision's {name}", lambda n: _torchvision(name, n), imagenet=True)
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
    """Return the weights to start from where none are asked for: `imagenet` where there are any.

    Raises:
        UserError: an unknown name.
    """
    return "imagenet" if find(name).imagenet else "none"


def initial_weights(name: str, asked: str | None) -> str:
    """Return what one branch of a cohort starts from: `imagenet`, `none` or a file.

    Args:
        name: the branch's network.
        asked: None for the default; `imagenet`, `none`, or the path of a file or of a folder in
            which the file begins with the network's name. Networks of our own have no ImageNet
            weights and start from `none` under `imagenet` or a folder that has nothing for them.

    Raises:
        UserError: an unknown name; a folder with no file, or several, for one of a library's.
    """
    if asked is None or (asked == "imagenet" and not find(name).imagenet):
        return default_weights(name)
    if not Path(asked).is_dir():
        return asked
    files = [file for file in sorted(Path(asked).glob(f"{name}[-.]*")) if file.suffix in SUFFIXES]
    if len(files) == 1:
        return str(files[0])
    if not files and not find(name).imagenet:
        return "none"
    found = ", ".join(file.name for file in files) or "none"
    raise UserError(
        f"weights {asked}: needs one file for {name!r}, named {name}.pth or {name}-*.pth; "
        f"found {found}"
    )


def check_input(module: nn.Module, name: str, bins: int) -> None:
    """Raise UserError if the network does not take windows [B, 3, bins, 150]."""
    was_training = module.training
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, 3, bins, 150))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"network {name!r} cannot take windows of {bins} x 150 (bins x frames): {error}. "
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


def _torchvision(name: str, n_classes: int) -> nn.Module:
    from torchvision import models

    # These two have further outputs in mid-network, which nothing here uses, and a random
    # initialisation of their own, which takes many times as long as PyTorch's.
    without_aux = {"aux_logits": False, "init_weights": False}
    options = without_aux if name in ("googlenet", "inception_v3") else {}
    module: nn.Module = models.get_model(name, weights=None, num_classes=n_classes, **options)
    return module


@network("resnet101", description="ResNet with 101 layers, the paper's; 42.5 M", imagenet=True)
def resnet101(n_classes: int) -> nn.Module:
    """torchvision's ResNet-101."""
    return _torchvision("resnet101", n_classes)


@network("vgg19", description="VGGNet with 19 layers, the paper's; 139.6 M", imagenet=True)
def vgg19(n_classes: int) -> nn.Module:
    """torchvision's VGG-19, the one without BatchNorm."""
    return _torchvision("vgg19", n_classes)


@network("resnet_small", description="residual, 7 convolutions, for CPUs; 0.2 M parameters")
def resnet_small(n_classes: int) -> nn.Module:
    """Three residual blocks with max pooling before each.

    Eight channels in the first convolution and pooling before any block are what makes it fast.
    Strides in place of the pooling were slower and less accurate on ESC-10 and the synthetic set.
    """
    return nn.Sequential(*residual(3, n_classes))


@network("leaf_small", description="learned filters, then resnet_small, for `waveform`; 0.2 M")
def leaf_small(n_classes: int) -> nn.Module:
    """A learned filterbank in front of `resnet_small`, which sees its bands as one channel."""
    from mrkd_ray.networks.learned_filterbank import GaborFilterbank

    return nn.Sequential(GaborFilterbank(), *residual(1, n_classes))


@network("vgg_small", description="plain, 5 convolutions, for CPUs; 0.2 M parameters")
def vgg_small(n_classes: int) -> nn.Module:
    """Plain 3 x 3 convolutions in four stages, with max pooling between them."""
    layers: list[nn.Module] = []
    before = 3
    for width in (16, 32, 64):
        stride = 1 if layers else 2
        layers += [*convolution(before, width, stride=stride), *pooled_relu()]
        before = width
    for width in (96, 96):
        layers += [*convolution(before, width), nn.ReLU(inplace=True)]
        before = width
    return nn.Sequential(*layers, *head(before, n_classes))


@network("ast", description="Audio Spectrogram Transformer, for `logmel128`; 86 M (the ast extra)")
def ast(n_classes: int) -> nn.Module:
    """transformers' AST; with `weights: PATH`, what others trained on AudioSet."""
    from mrkd_ray.networks.spectrogram_transformer import SpectrogramTransformer

    return SpectrogramTransformer(n_classes)
