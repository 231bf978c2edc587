"""What a classifier says of a recording, or of a window of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mrkd_ray.common.arrays import Float32
from mrkd_ray.scores.ensemble import mean_probabilities

if TYPE_CHECKING:
    import pandas as pd

PRESENT = 0.5
"""The probability from which a class of a multi-label model is there."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The probabilities of a recording, or of a window of it.

    Attributes:
        file: the recording's path, or `input N` of one that was given without a name.
        start: in seconds.
        end: in seconds.
        classes: names of the M classes.
        branches: probabilities of each branch, float32 [Γ, M].
    """

    file: str
    start: float
    end: float
    classes: tuple[str, ...]
    branches: Float32

    @cached_property
    def probabilities(self) -> Float32:
        """The mean of the branches' probabilities, float32 [M], in the order of `classes`."""
        return mean_probabilities(self.branches).astype(np.float32)

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(self.probabilities.argmax())]

    def top(self, k: int | None = None) -> dict[str, float]:
        """Return the `k` most probable classes with their probabilities, the highest first.

        Without `k`, all of them.
        """
        order = self.probabilities.argsort()[::-1][:k]
        return {self.classes[i]: float(self.probabilities[i]) for i in order}

    def labels(self, threshold: float = PRESENT) -> list[str]:
        """Return the classes from a probability of `threshold` up, the most probable first."""
        return [name for name, value in self.top().items() if value >= threshold]


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
