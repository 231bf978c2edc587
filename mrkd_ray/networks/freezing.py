"""Files of frozen networks from ImageNet: `representations.frozen` reads what is written here."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import replacing
from mrkd_ray.networks import timm_models
from mrkd_ray.networks.weights import imagenet_tensors, read_tensors
from mrkd_ray.representations import frozen

SMALLEST = 64  # bins of an image that it is tried on


def can_freeze(name: str) -> bool:
    """Return whether this is a network of torchvision's, or one that timm may have."""
    from torchvision import models

    return name.startswith(timm_models.PREFIX) or name in models.list_models(module=models)


def freeze(network: str, weights: Path | None = None, to: Path | None = None) -> Path:
    """Write the frozen network of this name into the folder of weights.

    Args:
        network: of torchvision's or timm's.
        weights: a state dict; by default its library's, downloaded on first use.
        to: another folder.

    Returns:
        The file.

    Raises:
        UserError: the weights cannot be had or are not the network's, or it does not take the
            images.
    """
    module = frozen.backbone(network).eval()
    source, tensors = (
        imagenet_tensors(network) if weights is None else (str(weights), read_tensors(weights))
    )
    wanted = module.state_dict()
    found = {}
    for key, value in wanted.items():
        own = value if key.endswith("num_batches_tracked") else None  # absent in old files
        tensor = tensors.get(key, own)
        if tensor is None or tensor.shape != value.shape:
            raise UserError(f"weights {source}: not those of {network}: {key!r} does not fit")
        found[key] = tensor.contiguous()
    module.load_state_dict(found)
    try:
        with torch.no_grad():
            image = torch.zeros(1, 3, SMALLEST, 2 * frozen.HOP)
            bins = module(image).flatten(1).shape[1]
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"network {network!r} cannot take images of {SMALLEST} x {2 * frozen.HOP}: {error}"
        ) from error
    file = frozen.file_of(network)
    file = (to or file.parent) / file.name
    facts = {"network": network, "bins": str(bins), "source": Path(source).name}
    with replacing(file) as temporary:
        save_file(found, temporary, facts)
    return file
