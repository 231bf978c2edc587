"""Classification networks of torchvision: the paper's two, and any other by its name."""

from __future__ import annotations

from torch import nn

from mrkd_ray.networks.registry import network


def torchvision_model(name: str, n_classes: int) -> nn.Module:
    """Build a classification network of torchvision with random weights."""
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
    return torchvision_model("resnet101", n_classes)


@network("vgg19", description="VGGNet with 19 layers, the paper's; 139.6 M", imagenet=True)
def vgg19(n_classes: int) -> nn.Module:
    """torchvision's VGG-19, the one without BatchNorm."""
    return torchvision_model("vgg19", n_classes)
