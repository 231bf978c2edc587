"""A page on which a person listens to clips and says what they are. It knows no run and no file.

For one person on this machine: requests bear a token that only whoever started it is told, and come
from the page itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mrkd_ray.serve.guards import check_bearer, plain_app
from mrkd_ray.serve.page import Page

HOSTS = ["127.0.0.1", "localhost"]
"""Names of this machine: under others, a page of elsewhere may have been led here."""
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class ReviewClip(BaseModel):
    """A clip to listen to."""

    name: str
    labels: list[str]
    answer: list[str] | None = Field(description="None: not yet; no label: it is left out.")
    reason: str = Field(description="Why a person should listen to it.")
    probability: float = Field(description="Of its label.")
    likeliest: str = Field(description="What the branches say together.")
    probability_likeliest: float
    disagreement: float = Field(description="Part of the branches that say something else.")


class ReviewList(BaseModel):
    """The clips to listen to, in their order."""

    run: str
    answers: str = Field(description="The file that holds the answers.")
    data: str = Field(description="The file that is trained on next.")
    classes: list[str]
    multi_label: bool
    clips: list[ReviewClip]


class AnswerGiven(BaseModel):
    """What was heard."""

    labels: Annotated[list[str], Field(max_length=10_000)] | None


class Review(Protocol):
    """The clips, and where answers go. What it raises as UserError is told."""

    def listed(self) -> ReviewList:
        """Return the clips and the answers so far."""

    def sound(self, place: int) -> Path | bytes:
        """Return a clip: a file as it is, or the bytes of a WAV file."""

    def answer(self, place: int, labels: list[str] | None) -> None:
        """Keep the answer to a clip."""


def make_review_app(review: Review, token: str) -> FastAPI:
    """Return the application; requests must bear the token."""
    page = Page("review")
    app = plain_app("Clips to listen to, and what they are.")
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)

    async def check(request: Request) -> None:
        check_bearer(request, token)
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise HTTPException(403, "this server is asked by its own page alone")

    def known(place: int) -> int:
        if not 0 <= place < len(review.listed().clips):
            raise HTTPException(404, f"there is no clip {place}")
        return place

    guarded = [Depends(check)]

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def document() -> Response:
        return HTMLResponse(page.html, headers=page.headers)

    @app.get("/list", dependencies=guarded)
    def clips() -> ReviewList:
        return review.listed()

    @app.get("/clips/{place}/sound", dependencies=guarded)
    def sound(place: int) -> Response:
        found = review.sound(known(place))
        if isinstance(found, Path):
            return FileResponse(found, headers=PRIVATE, media_type="application/octet-stream")
        return Response(found, headers=PRIVATE, media_type="audio/wav")

    @app.put("/clips/{place}/answer", dependencies=guarded)
    async def answer(place: int, given: AnswerGiven) -> ReviewClip:
        await run_in_threadpool(review.answer, known(place), given.labels)
        return review.listed().clips[place]

    return app
