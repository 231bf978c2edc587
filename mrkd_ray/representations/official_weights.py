"""Networks with the official weights that `pretrained` finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from mrkd_ray.common.errors import UserError
from mrkd_ray.representations import pretrained

N = TypeVar("N", bound=nn.Module)


def network(name: str, build: Callable[[Any], N]) -> N:
    """Return the network that `build` makes of the verified file of weights `name`.

    Args:
        build: takes what the file holds, tensors by name; what it raises is the file's fault.

    Raises:
        UserError: the file is not there, or is not the official one.
    """
    file = pretrained.find(name)
    try:
        return build(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # what a broken file raises is anyone's guess
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"{file}: not the weights of {name} ({reason})") from error
