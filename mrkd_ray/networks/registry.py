"""Networks by name.

To add one, decorate a function that returns a module for a number of classes, in a module of this
folder that `catalogue` imports::

    @network("my_net", description="what it is, in one line")
    def my_net(n_classes: int) -> nn.Module: ...

Its last linear or convolution layer must be the one whose outputs are the classes. One network
serves every number of bins, so that it can be paired with every representation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from mrkd_ray.common.registry import Registry

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
