"""Audio classifiers on different representations that teach each other, trained with Ray.

`train(...)` trains one cohort, `distil(...)` a student of trained branches; `load(...)` gives a
trained branch or cell for classification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrkd_ray.common.errors import UserError
    from mrkd_ray.config.schema import DistilConfig, GridConfig, TrainConfig
    from mrkd_ray.grid.distil import distil
    from mrkd_ray.grid.run import train
    from mrkd_ray.inference.classifier import load

__all__ = ["DistilConfig", "GridConfig", "TrainConfig", "UserError", "distil", "load", "train"]

_HOMES = {
    "DistilConfig": "config.schema",
    "GridConfig": "config.schema",
    "TrainConfig": "config.schema",
    "UserError": "common.errors",
    "distil": "grid.distil",
    "load": "inference.classifier",
    "train": "grid.run",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `mrkd --help` and the actors start without what they spare."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"mrkd_ray.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
