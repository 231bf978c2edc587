"""Where jobs are done in tests: the model in this process, and one that is full."""

from __future__ import annotations

import asyncio

from mrkd_ray.common.errors import Busy
from mrkd_ray.serve.scorer import Scorer
from mrkd_ray.serve.scoring import About, Job, Refused, Scores


class Here:
    """The model in this process."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.jobs: list[Job] = []

    async def about(self) -> About:
        return self.scorer.about()

    async def score(self, job: Job) -> Scores | Refused:
        self.jobs.append(job)
        (found,) = await asyncio.to_thread(self.scorer.score, [job])
        return found


class Full(Here):
    """It has no room."""

    async def score(self, job: Job) -> Scores | Refused:
        raise Busy("as many requests wait as may")


class Loading(Here):
    """The model is not there yet."""

    async def about(self) -> About:
        await asyncio.Event().wait()
        raise AssertionError
