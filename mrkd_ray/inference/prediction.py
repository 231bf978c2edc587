"""What a classifier says of a recording, or of a window of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mrkd_ray.common.arrays import Float32
from mrkd_ray.inference.calibration import UNCALIBRATED, Calibration

if TYPE_CHECKING:
    import pandas as pd

NONE, SILENCE = "none of these", "silence"
"""Answers that are no class."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The probabilities of a recording, or of a window of it.

    Attributes:
        file: the recording's path, or `input N` of one that was given without a name.
        start: in seconds.
        end: in seconds.
        classes: names of the M classes.
        branches: probabilities of each branch as training's evaluation has them, float32 [Γ, M].
        calibration: of the model.
        silent: whether nothing is heard (`noise.is_silent`).
    """

    file: str
    start: float
    end: float
    classes: tuple[str, ...]
    branches: Float32
    calibration: Calibration = UNCALIBRATED
    silent: bool = False

    @cached_property
    def probabilities(self) -> Float32:
        """The mean of the branches' probabilities, calibrated; float32 [M], as `classes`."""
        return self.calibration.together(self.branches)

    @property
    def apart(self) -> Float32:
        """The calibrated probabilities of each branch, float32 [Γ, M]."""
        return self.calibration.apart(self.branches)

    @property
    def label(self) -> str:
        """The most probable class, however improbable; see `answer`."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def answer(self) -> str:
        """What is heard: the most probable class, `none of these`, or `silence`."""
        return SILENCE if self.silent else next(iter(self.labels()), NONE)

    def top(self, k: int | None = None) -> dict[str, float]:
        """Return the `k` most probable classes with their probabilities, the highest first.

        Without `k`, all of them.
        """
        order = (-self.probabilities).argsort(kind="stable")[:k]
        return {self.classes[i]: float(self.probabilities[i]) for i in order}

    def labels(self, threshold: float | None = None) -> list[str]:
        """Return the classes from a probability of `threshold` up, the most probable first.

        Without `threshold` by the model's own: of one label the most probable class, unless it is
        too improbable to be one of them; of several labels those from their thresholds up; of
        silence none.
        """
        if threshold is not None:
            return [name for name, value in self.top().items() if value >= threshold]
        if self.silent:
            return []
        named = self.calibration.named(self.probabilities[None])[0]
        order = (-self.probabilities).argsort(kind="stable")
        return [self.classes[i] for i in order if named[i]]


def table(predictions: Iterable[Prediction], classes: Sequence[str]) -> pd.DataFrame:
    """Return a row for each prediction: file, start, end, and the probability of each class."""
    import pandas as pd

    found = list(predictions)
    rows = np.array([each.probabilities for each in found], np.float32)
    frame = pd.DataFrame(rows.reshape(len(found), len(classes)), columns=list(classes))
    for place, name in enumerate(("file", "start", "end")):
        values = [getattr(each, name) for each in found]
        frame.insert(place, name, values, allow_duplicates=True)  # a class may be called so too
    return frame
