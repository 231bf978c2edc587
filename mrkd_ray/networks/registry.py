"""Networks by name.

To add one, decorate a function that returns a module for a number of classes, in a module of this
folder that `catalogue` imports::

    @network("my_net", description="what it is, in one line")
    def my_net(n_classes: int) -> nn.Module: ...

Its last linear or convolution layer must be the one whose outputs are the classes. A network serves
every number of bins, so that it can be paired with every representation, or is `sized`: then its
function is called with the number of bins besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from mrkd_ray.common.registry import Registry

Builder = Callable[..., nn.Module]
"""Of the number of classes and, where the network is sized, the number of bins."""

Official = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Network:
    """A network that can be built.

    Attributes:
        description: one line.
        builder: see `Builder`.
        imagenet: whether its library has ImageNet weights for it.
        sized: whether it is built for a number of bins.
        audioset: the name in `representations.pretrained` of its weights from AudioSet, if any.
        official: gives the tensors of an official file the names and shapes of ours.
    """

    description: str
    builder: Builder
    imagenet: bool
    sized: bool = False
    audioset: str = ""
    official: Official = dict


NETWORKS: Registry[Network] = Registry("network")


def network(
    name: str,
    *,
    description: str,
    imagenet: bool = False,
    sized: bool = False,
    audioset: str = "",
    official: Official = dict,
) -> Callable[[Builder], Builder]:
    """Register the decorated `function(n_classes)` as the network `name`; see `Network`.

    Raises:
        ValueError: the name is registered already.
    """

    def decorate(builder: Builder) -> Builder:
        entry = Network(description, builder, imagenet, sized, audioset, official)
        NETWORKS.add(name, entry)
        return builder

    return decorate
