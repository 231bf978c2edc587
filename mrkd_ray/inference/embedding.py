"""What the last layer of a network is given."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mrkd_ray.inference.clip_logits import Apply
from mrkd_ray.networks.catalogue import classifier_layer


@contextmanager
def before_last_layer(network: nn.Module) -> Iterator[Apply]:
    """Give a function of windows [B, 3, bins, F] that returns features [B, D], for any thread.

    They are the input of the layer that yields the logits; the mean over positions, where that
    is a convolution or sees a sequence.
    """
    layer = network.get_submodule(classifier_layer(network))
    positions = slice(2, None) if isinstance(layer, nn.Conv2d) else slice(1, -1)
    held = threading.local()

    def hold(module: nn.Module, given: tuple[Any, ...]) -> None:
        held.features = given[0]

    def features(windows: Tensor) -> Tensor:
        network(windows)
        found: Tensor = held.features
        over = tuple(range(found.ndim)[positions])
        return found.mean(dim=over) if over else found

    hook = layer.register_forward_pre_hook(hold)
    try:
        yield features
    finally:
        hook.remove()
