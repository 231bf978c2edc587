"""What is answered to a request: the branches that `model=` means are asked, in JSON."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.registry import unknown
from mrkd_ray.inference.prediction import Prediction
from mrkd_ray.scores.cascade import confidence
from mrkd_ray.serve.scoring import About, Backend, Job, Refused, Scores
from mrkd_ray.serve.uploads import NotAudio

ENSEMBLE, CASCADE = "ensemble", "cascade"
POINTS = 600  # of a drawn waveform: each is its least and its greatest sample
DIGITS = 6  # of a probability


class Said(BaseModel):
    """What is said of a recording, or of a window of it."""

    answer: str = Field(description="What is heard: a class, `none of these` or `silence`.")
    label: str = Field(description="The most probable class, however improbable.")
    confidence: float = Field(description="Its probability.")
    labels: list[str] | None = Field(
        description="The classes that are heard, of a model with several labels a recording."
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
    agree: bool = Field(description="Whether the branches that were asked give the same answer.")


class Answer(Said):
    """What is said of a recording."""

    model: str = Field(description="What was asked: a branch, `ensemble` or `cascade`.")
    seconds: float = Field(description="Of the recording.")
    sample_rate: int = Field(description="Of the recording, in Hz.")
    branches: list[OfBranch] = Field(description="Those that were asked, the cheapest first.")
    agree: bool = Field(description="Whether they give the same answer.")
    windows: list[OfWindow] = Field(description="In order of time, where `window` was given.")
    waveform: list[tuple[float, float]] | None = Field(
        description="The least and the greatest sample of each of up to 600 parts."
    )


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
    said = about.said(scores.branches, first, scores.silent)
    sure = (
        said.silent
        or confidence(said.probabilities[None], multi_label=about.multi_label)[0]
        >= asked.confidence
    )
    if cascade and not sure:
        others = await _score(backend, replace(job, branches=about.names[1:]))
        scores, first = _both(scores, others), about.names
    # Of thousands of windows it takes a second: other requests need not wait for it.
    return await asyncio.to_thread(_told, about, asked, first, scores, recording)


def _told(
    about: About, asked: Asked, names: tuple[str, ...], scores: Scores, recording: Recording
) -> Answer:
    apart = _apart(about, names, scores.branches, scores.silent)
    return Answer(
        **_said(about.said(scores.branches, names, scores.silent)),
        model=asked.model,
        seconds=round(len(recording) / recording.sample_rate, 3),
        sample_rate=recording.sample_rate,
        branches=[
            OfBranch(**_said(each), branch=name, view=_url(scores, name))
            for name, each in zip(names, apart, strict=True)
        ],
        agree=_agree(apart),
        windows=[
            OfWindow(
                **_said(about.said(rows, names, silent, span)),
                start=round(span[0], 3),
                end=round(span[1], 3),
                agree=_agree(_apart(about, names, rows, silent)),
            )
            for span, rows, silent in zip(
                scores.spans, scores.windows, scores.silent_windows, strict=True
            )
        ],
        waveform=_outline(recording.at(recording.sample_rate)) if asked.views else None,
    )


async def _score(backend: Backend, job: Job) -> Scores:
    found = await backend.score(job)
    if isinstance(found, Refused):
        raise NotAudio(found.why)
    return found


def _both(one: Scores, other: Scores) -> Scores:
    return replace(
        one,
        branches=np.concatenate([one.branches, other.branches]),
        windows=np.concatenate([one.windows, other.windows], axis=1),
        views=one.views | other.views,
    )


def _apart(about: About, names: Sequence[str], branches: Float32, silent: bool) -> list[Prediction]:
    """Return what each branch says by itself."""
    return [
        about.said(row[None], [name], silent) for name, row in zip(names, branches, strict=True)
    ]


def _said(prediction: Prediction) -> dict[str, Any]:
    """Return the fields of `Said`."""
    values = zip(prediction.classes, prediction.probabilities.tolist(), strict=True)
    rounded = {name: round(value, DIGITS) for name, value in values}
    return {
        "answer": prediction.answer,
        "label": prediction.label,
        "confidence": rounded[prediction.label],
        "labels": prediction.labels() if prediction.calibration.multi_label else None,
        "probabilities": rounded,
    }


def _agree(apart: Sequence[Prediction]) -> bool:
    return len({each.answer for each in apart}) == 1


def _url(scores: Scores, name: str) -> str | None:
    if name not in scores.views:
        return None
    return f"data:image/png;base64,{base64.b64encode(scores.views[name]).decode()}"


def _outline(samples: Float32) -> list[tuple[float, float]]:
    parts = np.array_split(samples, min(POINTS, len(samples)))
    return [(round(float(part.min()), 3), round(float(part.max()), 3)) for part in parts]
