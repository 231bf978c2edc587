"""Networks of timm (PyTorch Image Models) by name: `timm.resnet18`, `timm.resnet18.a1_in1k`."""

from __future__ import annotations

import difflib
import importlib.util
from typing import Any

from torch import Tensor, nn

from mrkd_ray.common.errors import UserError

PREFIX = "timm."  # no colon, which separates representation and network


def known(name: str) -> bool:
    """Return whether this is a network of timm's; False for every name without the prefix.

    Raises:
        UserError: timm is not installed, or has no network of the name.
    """
    if not name.startswith(PREFIX):
        return False
    if importlib.util.find_spec("timm") is None:
        raise UserError(f"network {name!r} needs one more package: pip install -e '.[timm]'")
    import timm

    own = name.removeprefix(PREFIX)
    if timm.is_model(own):
        return True
    near = difflib.get_close_matches(own, timm.list_models(), n=5, cutoff=0.5)
    nearest = ", ".join(PREFIX + other for other in near) or "none"
    raise UserError(
        f"unknown network {name!r}: timm {timm.__version__} has none of this name. Nearest: "
        f"{nearest}; timm.list_models() in Python lists all."
    )


def pretrained(name: str) -> bool:
    """Return whether timm has weights for it."""
    import timm

    return bool(timm.is_model_pretrained(name.removeprefix(PREFIX)))


def build(name: str, n_classes: int) -> nn.Module:
    """Return the network with random weights and a classifier for the classes.

    Raises:
        UserError: timm does not have the name's tag.
    """
    try:
        return _create(name, num_classes=n_classes)
    except RuntimeError as error:
        raise UserError(f"network {name!r}: timm: {error}") from error


def download(name: str) -> tuple[str, dict[str, Tensor]]:
    """Return (where they are from, tensors) of timm's weights, from its cache where they are there.

    Raises:
        UserError: they cannot be had.
    """
    try:
        module = _create(name, pretrained=True)
    except Exception as error:  # no connection, no such file, ...: each host's client has its own
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(
            f"weights: imagenet: timm cannot get those of {name!r} ({reason}). Use weights: none, "
            "or weights: PATH with a state dict of this network"
        ) from error
    config: Any = module.pretrained_cfg
    return f"{PREFIX}{config['architecture']}.{config['tag']}", module.state_dict()


def _create(name: str, **options: Any) -> nn.Module:
    import timm

    module: nn.Module = timm.create_model(name.removeprefix(PREFIX), **options)
    return module
