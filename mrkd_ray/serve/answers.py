"""What is answered to a request: the branches that `model=` means are asked, in JSON."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.registry import unknown
from mrkd_ray.scores.cascade import confidence
from mrkd_ray.scores.thresholds import PRESENT
from mrkd_ray.serve.scoring import About, Backend, Job, Refused, Scores
from mrkd_ray.serve.uploads import NotAudio

ENSEMBLE, CASCADE = "ensemble", "cascade"
POINTS = 600  # of a drawn waveform: each is its least and its greatest sample
DIGITS = 6  # of a probability


class Said(BaseModel):
    """What is said of a recording, or of a window of it."""

    label: str = Field(description="The most probable class.")
    confidence: float = Field(description="Its probability.")
    labels: list[str] | None = Field(
        description="The classes from 0.5 up, of a model with several labels a recording."
    )
    probabilities: dict[str, float] = Field(description="Of every class.")


class OfBranch(Said):
    """What one branch says."""

    branch: str
    view: str | None = Field(description="A picture (PNG, as data: URL) of what the branch sees.")


class OfWindow(Said):
    """What is said of a window."""

    start: float = Field(description="In seconds.")
    end: float = Field(description="In seconds.")
    agree: bool = Field(description="Whether the branches that were asked name the same class.")


class Answer(Said):
    """What is said of a recording."""

    model: str = Field(description="What was asked: a branch, `ensemble` or `cascade`.")
    seconds: float = Field(description="Of the recording.")
    sample_rate: int = Field(description="Of the recording, in Hz.")
    branches: list[OfBranch] = Field(description="Those that were asked, the cheapest first.")
    agree: bool = Field(description="Whether they name the same class.")
    windows: list[OfWindow] = Field(description="In order of time, where `window` was given.")
    waveform: list[tuple[float, float]] | None = Field(
        description="The least and the greatest sample of each of up to 600 parts."
    )


class Trouble(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="A sentence for people.")


class BranchInfo(BaseModel):
    """A branch of the model."""

    name: str
    representation: str
    description: str = Field(description="Of the representation.")
    network: str
    multiplications: int = Field(description="For a clip of 5 s.")


class ModelInfo(BaseModel):
    """The model, and what it takes."""

    classes: list[str]
    multi_label: bool
    window: float = Field(description="Seconds that a network sees at once.")
    branches: list[BranchInfo] = Field(description="The cheapest first.")
    models: list[str] = Field(description="What `model` may be.")
    max_mb: float = Field(description="Megabytes of a request.")
    max_seconds: float = Field(description="Seconds of a recording.")


@dataclass(frozen=True)
class Asked:
    """A request: the parameters of `POST /classify`, without the recording."""

    model: str
    confidence: float
    window: float | None = None
    hop: float | None = None
    views: bool = False


def choices(about: About) -> list[str]:
    """Return what `model` may be: what costs least comes last of the three kinds."""
    several = [ENSEMBLE, CASCADE] if len(about.branches) > 1 else []
    return [*several, *about.names]


async def answer(backend: Backend, about: About, recording: Recording, asked: Asked) -> Answer:
    """Have a recording classified.

    A `cascade` asks the cheapest branch, and believes it from `asked.confidence` up. Else it asks
    the others as well, and the answer is the ensemble's.

    Raises:
        UserError: there is no such model.
        NotAudio: the model cannot say anything of the recording.
        Busy: as `Backend.score`.
    """
    known = {ENSEMBLE, *choices(about)}  # of one branch, its ensemble is itself
    if asked.model not in known:
        raise unknown("model", asked.model, known)
    cascade = asked.model == CASCADE
    first = {ENSEMBLE: about.names, CASCADE: about.names[:1]}.get(asked.model, (asked.model,))
    samples = recording.at(recording.sample_rate)
    job = Job(samples, recording.sample_rate, first, asked.window, asked.hop, asked.views)
    scores = await _score(backend, job)
    sure = confidence(about.calibrated(scores.branches, first)[None], multi_label=about.multi_label)
    if cascade and not sure[0] >= asked.confidence:
        others = await _score(backend, replace(job, branches=about.names[1:]))
        scores, first = _both(scores, others), about.names
    return Answer(
        **_said(about.calibrated(scores.branches, first), about).model_dump(),
        model=asked.model,
        seconds=round(len(recording) / recording.sample_rate, 3),
        sample_rate=recording.sample_rate,
        branches=[
            OfBranch(
                **_said(about.calibrated(row[None], [name]), about).model_dump(),
                branch=name,
                view=_url(scores, name),
            )
            for name, row in zip(first, scores.branches, strict=True)
        ],
        agree=_agree(scores.branches),
        windows=[
            OfWindow(
                **_said(about.calibrated(rows, first), about).model_dump(),
                start=round(start, 3),
                end=round(end, 3),
                agree=_agree(rows),
            )
            for (start, end), rows in zip(scores.spans, scores.windows, strict=True)
        ],
        waveform=_outline(samples) if asked.views else None,
    )


async def _score(backend: Backend, job: Job) -> Scores:
    found = await backend.score(job)
    if isinstance(found, Refused):
        raise NotAudio(found.why)
    return found


def _both(one: Scores, other: Scores) -> Scores:
    return Scores(
        np.concatenate([one.branches, other.branches]),
        one.spans,
        np.concatenate([one.windows, other.windows], axis=1),
        one.views | other.views,
    )


def _said(probabilities: NDArray[np.floating], about: About) -> Said:
    rounded = {
        name: round(float(value), DIGITS)
        for name, value in zip(about.classes, probabilities, strict=True)
    }
    label = about.classes[int(probabilities.argmax())]
    present = [name for name, value in rounded.items() if value >= PRESENT]
    return Said(
        label=label,
        confidence=rounded[label],
        labels=present if about.multi_label else None,
        probabilities=rounded,
    )


def _agree(branches: Float32) -> bool:
    return len(set(branches.argmax(axis=1).tolist())) == 1


def _url(scores: Scores, name: str) -> str | None:
    if name not in scores.views:
        return None
    return f"data:image/png;base64,{base64.b64encode(scores.views[name]).decode()}"


def _outline(samples: Float32) -> list[tuple[float, float]]:
    parts = np.array_split(samples, min(POINTS, len(samples)))
    return [(round(float(part.min()), 3), round(float(part.max()), 3)) for part in parts]
