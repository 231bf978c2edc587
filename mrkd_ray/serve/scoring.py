"""What the application asks of the model, and what it is told. No PyTorch.

The model may be in this process (`scorer.Scorer`) or in others (`distributed.serving`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mrkd_ray.audio.decoding import Waveform
from mrkd_ray.common.arrays import Float32, Float64
from mrkd_ray.scores.comparison import ENSEMBLE
from mrkd_ray.scores.ensemble import mean_probabilities
from mrkd_ray.scores.tempering import temper


@dataclass(frozen=True)
class AboutBranch:
    """A branch, for people and for the page.

    `multiplications` are those for a clip of `scorer.COST_SECONDS`.
    """

    name: str
    representation: str
    description: str
    network: str
    multiplications: int


@dataclass(frozen=True)
class About:
    """A model: its classes, and its branches, the cheapest first. `window` is in seconds.

    `temperatures` are those of the calibration (`inference.calibration`): of each branch by name,
    and of the mean of all under `ENSEMBLE`; those that are not there are 1.
    """

    classes: tuple[str, ...]
    multi_label: bool
    window: float
    branches: tuple[AboutBranch, ...]
    temperatures: Mapping[str, float] = field(default_factory=dict)

    def calibrated(self, branches: Float32, names: Sequence[str]) -> Float64:
        """Return the probabilities [M] of branches together, from those of each [Γ, M]."""
        name = names[0] if len(names) == 1 else ENSEMBLE
        temperature = self.temperatures.get(name, 1.0)
        return temper(mean_probabilities(branches), temperature, multi_label=self.multi_label)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the branches, the cheapest first."""
        return tuple(branch.name for branch in self.branches)


@dataclass(frozen=True, eq=False)
class Job:
    """A recording, and what is asked of it.

    Attributes:
        samples: float32 mono [n], finite.
        sample_rate: of them, in Hz.
        branches: names of those that are asked.
        window: seconds of the windows to be classified besides; None: there are none.
        hop: seconds from one window to the next.
        views: whether pictures of what each branch sees are wanted.
    """

    samples: Waveform
    sample_rate: int
    branches: tuple[str, ...]
    window: float | None = None
    hop: float | None = None
    views: bool = False


@dataclass(frozen=True, eq=False)
class Scores:
    """What the branches of a job say.

    Attributes:
        branches: probabilities [Γ, M] of the recording.
        spans: start and end in seconds of each window.
        windows: probabilities [n, Γ, M] of them.
        views: PNG by branch; none of a recording of more than two minutes.
    """

    branches: Float32
    spans: tuple[tuple[float, float], ...]
    windows: Float32
    views: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """Why a job cannot be done, in a sentence for whoever sent it."""

    why: str


class Backend(Protocol):
    """Where jobs are done."""

    async def about(self) -> About:
        """Say what the model is. Raises `Busy` while it is not there yet."""

    async def score(self, job: Job) -> Scores | Refused:
        """Do a job. Raises `Busy` where there is no room for it, or nobody who does it."""
