"""The application: its addresses, its limits, and what it counts. It knows nothing of Ray.

It never writes a recording, its name or what a request asks for to a log.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import prometheus_client as prometheus
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mrkd_ray.audio.decoding import FASTEST, SLOWEST, Recording
from mrkd_ray.common.errors import Busy, UserError
from mrkd_ray.serve import uploads
from mrkd_ray.serve.answers import (
    Answer,
    Asked,
    BranchInfo,
    ModelInfo,
    answer,
    choices,
)
from mrkd_ray.serve.guards import Trouble, check_bearer, plain_app, status_of
from mrkd_ray.serve.page import Page
from mrkd_ray.serve.scoring import About, Backend
from mrkd_ray.serve.settings import Settings

BODY_SECONDS = 60.0
"""In which a request must have come: slow senders take the room of others."""
READY_SECONDS = 2.0
ALONE_SECONDS = 60.0
"""Longer recordings are held one at a time: this bounds memory."""
WINDOWS = 2000
"""Of a recording, at most."""
FORM_BYTES = 2000  # of a multipart body beside its file

log = logging.getLogger("mrkd_ray.serve")

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A recording: a file of any format that `mrkd predict` reads, in the field "
        "`file` of a form or as the body itself; or raw PCM samples with their `rate`.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "audio/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
TROUBLES: dict[int | str, dict[str, Any]] = {
    400: {"model": Trouble, "description": "No recording, or a wrong parameter."},
    401: {"model": Trouble, "description": "The token is missing or wrong."},
    408: {"model": Trouble, "description": "The request did not come in time."},
    413: {"model": Trouble, "description": "More bytes or seconds than are taken."},
    503: {"model": Trouble, "description": "No room now: come again after `Retry-After`."},
}


class Counts:
    """What `/metrics` tells, of this process."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        held = self.registry
        self.requests = prometheus.Counter(
            "mrkd_requests", "Requests to classify, by HTTP status.", ["status"], registry=held
        )
        self.seconds = prometheus.Histogram(
            "mrkd_request_seconds", "From a request's first byte to its answer.", registry=held
        )
        self.audio = prometheus.Counter(
            "mrkd_audio_seconds", "Audio that was classified.", registry=held
        )
        self.answers = prometheus.Counter(
            "mrkd_answers", "Answers, by how many branches were asked.", ["branches"], registry=held
        )
        self.under_way = prometheus.Gauge(
            "mrkd_requests_under_way", "Requests that wait or are worked on.", registry=held
        )


def make_app(settings: Settings, backend: Backend) -> FastAPI:
    """Return the application.

    Raises:
        UserError: as `Settings.token`.
    """
    served = _Served(settings, backend)
    app = plain_app("Classifies recordings of sound.")
    guarded = [Depends(served.check_token)]
    app.get("/", response_class=HTMLResponse, include_in_schema=False)(served.page)
    app.post("/classify", responses=TROUBLES, openapi_extra=BODY, dependencies=guarded)(
        served.classify
    )
    app.get("/model", responses={503: TROUBLES[503]}, dependencies=guarded)(served.model)
    app.get("/healthz", response_class=PlainTextResponse)(served.healthz)
    app.get("/readyz", response_class=PlainTextResponse, responses={503: TROUBLES[503]})(
        served.readyz
    )
    app.get("/metrics", response_class=PlainTextResponse, dependencies=guarded)(served.metrics)
    return app


class _Served:
    def __init__(self, settings: Settings, backend: Backend) -> None:
        self._settings, self._backend = settings, backend
        self._token = settings.token()
        self._page = Page("serve", needs_token=self._token is not None)
        self._counts = Counts()
        self._about: About | None = None
        self._long = asyncio.Lock()
        self._under_way = 0

    async def page(self) -> Response:
        """Give the page."""
        return HTMLResponse(self._page.html, headers=self._page.headers)

    async def healthz(self) -> str:
        """Say that the server runs."""
        return "ok\n"

    async def readyz(self) -> str:
        """Say that the model is there."""
        await self._known()
        return "ready\n"

    async def metrics(self) -> Response:
        """Give what was counted, for Prometheus."""
        text = prometheus.generate_latest(self._counts.registry)
        return Response(text, media_type=prometheus.CONTENT_TYPE_LATEST)

    async def model(self) -> ModelInfo:
        """Say what the model is: its classes, its branches, and what may be asked of it."""
        about = await self._known()
        return ModelInfo(
            classes=list(about.classes),
            multi_label=about.multi_label,
            window=about.window,
            branches=[
                BranchInfo.model_validate(branch, from_attributes=True) for branch in about.branches
            ],
            models=choices(about),
            max_mb=self._settings.max_mb,
            max_seconds=self._settings.max_seconds,
        )

    async def classify(
        self,
        request: Request,
        model: Annotated[
            str, Query(description="A branch, `ensemble`, or `cascade`: the cheapest branch first.")
        ] = "ensemble",
        confidence: Annotated[
            float | None,
            Query(ge=0, le=1, description="From here up `cascade` believes the cheapest branch."),
        ] = None,
        window: Annotated[
            float | None,
            Query(ge=0.05, description="Seconds of windows that are classified besides."),
        ] = None,
        hop: Annotated[
            float | None, Query(ge=0.01, description="Seconds from one window to the next.")
        ] = None,
        views: Annotated[
            bool, Query(description="With a waveform and pictures of what each branch sees.")
        ] = False,
        rate: Annotated[
            int | None, Query(ge=SLOWEST, le=FASTEST, description="Hz, of raw samples.")
        ] = None,
        encoding: Annotated[
            Literal["s16le", "s32le", "f32le", "u8"], Query(description="Of raw samples.")
        ] = "s16le",
        channels: Annotated[
            int, Query(ge=1, le=64, description="Of raw samples, which take turns.")
        ] = 1,
    ) -> Answer:
        """Classify a recording."""
        began = time.perf_counter()
        status = 500
        try:
            async with self._room():
                if hop is not None and window is None:
                    raise UserError("hop: it is the way from one window to the next: give window")
                about = await self._known()
                sure = self._settings.confidence if confidence is None else confidence
                asked = Asked(model, sure, window, hop, views)
                read = _reader(rate, encoding, channels)
                with tempfile.TemporaryDirectory() as folder:
                    path = await self._received(request, Path(folder))
                    async with self._decoded(path, read) as recording:
                        _check_windows(recording, asked)
                        found = await answer(self._backend, about, recording, asked)
            status = 200
            self._counts.audio.inc(found.seconds)
            self._counts.answers.labels(len(found.branches)).inc()
            return found
        except Exception as error:
            status = status_of(error)
            raise
        finally:
            took = time.perf_counter() - began
            self._counts.requests.labels(status).inc()
            self._counts.seconds.observe(took)
            log.info("POST /classify %d %.1f ms", status, 1000 * took)

    async def check_token(self, request: Request) -> None:
        """Refuse requests without the token."""
        if self._token is not None:
            check_bearer(request, self._token)

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        """Take one of the places of the queue, or raise Busy at once, before the body is read."""
        if self._under_way >= self._settings.queue:
            raise Busy(f"{self._settings.queue} requests are under way, which is the limit here")
        self._under_way += 1
        self._counts.under_way.inc()
        try:
            yield
        finally:
            self._under_way -= 1
            self._counts.under_way.dec()

    async def _known(self) -> About:
        if self._about is None:
            try:
                self._about = await asyncio.wait_for(self._backend.about(), READY_SECONDS)
            except TimeoutError:
                raise Busy("the model is not loaded yet") from None
        return self._about

    async def _received(self, request: Request, folder: Path) -> Path:
        """Write the recording's bytes into a file of the folder, as they were sent."""
        most = round(1e6 * self._settings.max_mb)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most + FORM_BYTES:
            raise uploads.TooLarge(uploads.too_many_bytes(most))
        bounded = Request(request.scope, uploads.counted(request.receive, most + FORM_BYTES))
        try:
            async with asyncio.timeout(BODY_SECONDS):
                if not request.headers.get("content-type", "").startswith("multipart/form-data"):
                    return await _written(folder / "recording", bounded.stream())
                async with bounded.form(max_files=1, max_fields=1) as form:
                    sent = form.get("file")
                    if not isinstance(sent, UploadFile):
                        raise uploads.NotAudio("the form has no file in its field `file`")
                    suffix = uploads.suffix_of(sent.filename)
                    return await _written(folder / f"recording{suffix}", _chunks(sent))
        except TimeoutError:
            raise HTTPException(408, f"the request did not come in {BODY_SECONDS:g} s") from None

    @asynccontextmanager
    async def _decoded(
        self, path: Path, read: Callable[[Path, float], Recording]
    ) -> AsyncIterator[Recording]:
        most = self._settings.max_seconds
        try:
            recording = await run_in_threadpool(read, path, min(most, ALONE_SECONDS))
        except uploads.TooLarge:
            if most <= ALONE_SECONDS:
                raise
        else:
            yield recording
            return
        async with self._long:
            yield await run_in_threadpool(read, path, most)


async def _written(path: Path, chunks: AsyncIterator[bytes]) -> Path:
    with path.open("wb") as file:
        async for chunk in chunks:
            file.write(chunk)
    return path


async def _chunks(sent: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await sent.read(1 << 20):
        yield chunk


def _reader(rate: int | None, encoding: str, channels: int) -> Callable[[Path, float], Recording]:
    """Return what makes a recording of a file's path, of at most so many seconds."""
    if rate is None:
        return uploads.decoded
    return lambda path, seconds: uploads.pcm(path, rate, encoding, channels, seconds)


def _check_windows(recording: Recording, asked: Asked) -> None:
    if asked.window is None:
        return
    seconds = len(recording) / recording.sample_rate
    if seconds / (asked.hop or asked.window) > WINDOWS:
        raise UserError(
            f"hop: {seconds:g} s have more than {WINDOWS} windows, which is the limit here: take "
            f"{seconds / WINDOWS:.2g} s or more"
        )
