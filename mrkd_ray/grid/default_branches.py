"""What is trained where nobody says which branches: what is good without a trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.schema import TrainConfig
from mrkd_ray.representations import pretrained

SMALL = ("logmel64:resnet_small", "cqt:vgg_small")
"""Small networks from random weights: different representations and different networks."""
PRETRAINED = "mn04"
HEADS = ("mn04:linear", "mn04:mlp")
"""Heads on what a network trained on AudioSet hears."""


def with_branches(config: TrainConfig, tell: Callable[[str], None]) -> TrainConfig:
    """Return the configuration with branches, where it has none.

    Heads where the weights from AudioSet are here, else the small networks. `linear` on the whole
    clip is the best of them (docs/how-to/pretrained.md): so they get that window.

    Args:
        tell: called with a line for people where branches are chosen.
    """
    if config.branches:
        return config
    here = pretrained.there(PRETRAINED)
    names = HEADS if here else SMALL
    chosen = [
        BranchSpec(representation=r, network=n) for r, n in (name.split(":") for name in names)
    ]
    update: dict[str, Any] = {"branches": tuple(chosen)}
    line = f"No --branch: {' and '.join(names)}."
    if here:
        if "window" not in config.model_fields_set:
            update["window"] = "whole"
            line = line.removesuffix(".") + ", --window whole."
        line += " Whether networks that are trained on your clips alone do better: mrkd recommend"
    else:
        line += " Pretrained weights (4 MB) know everyday sounds far better: "
        line += f"mrkd download {PRETRAINED}"
    tell(line)
    return config.model_copy(update=update)
