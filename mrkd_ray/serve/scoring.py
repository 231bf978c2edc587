"""What the application asks of the model, and what it is told. No PyTorch.

The model may be in this process (`scorer.Scorer`) or in others (`distributed.serving`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mrkd_ray.audio.decoding import Waveform
from mrkd_ray.common.arrays import Float32
from mrkd_ray.inference.calibration import Calibration
from mrkd_ray.inference.prediction import Prediction


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

    `calibrations` are those of each branch, by its name alone, and of all together, by the names of
    all; of those that are not there nothing is known.
    """

    classes: tuple[str, ...]
    multi_label: bool
    window: float
    branches: tuple[AboutBranch, ...]
    calibrations: Mapping[tuple[str, ...], Calibration] = field(default_factory=dict)

    def said(
        self,
        branches: Float32,
        names: Sequence[str],
        silent: bool,
        span: tuple[float, float] = (0.0, 0.0),
    ) -> Prediction:
        """Return what branches say together, from the probabilities of each [Γ, M]."""
        calibration = self.calibrations.get(tuple(names), Calibration(self.multi_label))
        return Prediction("", *span, self.classes, branches, calibration, silent)

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
        silent: whether nothing is heard in it.
        spans: start and end in seconds of each window.
        windows: probabilities [n, Γ, M] of them.
        silent_windows: of each whether nothing is heard in it.
        views: PNG by branch; none of a recording of more than two minutes.
    """

    branches: Float32
    silent: bool
    spans: tuple[tuple[float, float], ...]
    windows: Float32
    silent_windows: tuple[bool, ...]
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
