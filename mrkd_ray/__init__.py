"""Audio classifiers on different representations that teach each other, trained with Ray.

`train(...)` trains one cohort, `distil(...)` a student of trained branches; `Classifier.load(...)`
reads what was trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrkd_ray.common.errors import UserError
    from mrkd_ray.config.schema import DistilConfig, GridConfig, TrainConfig
    from mrkd_ray.grid.distil import distil
    from mrkd_ray.grid.run import train
    from mrkd_ray.inference.classifier import Classifier
    from mrkd_ray.inference.prediction import Prediction

__all__ = [
    "Classifier",
    "DistilConfig",
    "GridConfig",
    "Prediction",
    "TrainConfig",
    "UserError",
    "distil",
    "train",
]

_HOMES = {
    "Classifier": "inference.classifier",
    "DistilConfig": "config.schema",
    "GridConfig": "config.schema",
    "Prediction": "inference.prediction",
    "TrainConfig": "config.schema",
    "UserError": "common.errors",
    "distil": "grid.distil",
    "train": "grid.run",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `mrkd --help` and the actors start without what they spare."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"mrkd_ray.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
