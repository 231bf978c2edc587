"""Who may ask, and what is told to those who get no answer: for every server here."""

from __future__ import annotations

import secrets

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from mrkd_ray.common.environment import versions
from mrkd_ray.common.errors import Busy, UserError
from mrkd_ray.serve.uploads import NotAudio, TooLarge

RETRY_SECONDS = 1
STATUS = {TooLarge: 413, Busy: 503, NotAudio: 400, UserError: 400}


class Trouble(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="A sentence for people.")


def plain_app(description: str) -> FastAPI:
    """Return an application without addresses, which answers to errors with a sentence."""
    app = FastAPI(
        title="mrkd",
        description=description,
        version=versions(["mrkd-ray"])["mrkd-ray"] or "0",
        docs_url=None,  # these pages would fetch scripts from elsewhere
        redoc_url=None,
    )
    for kind in (*STATUS, HTTPException):
        app.add_exception_handler(kind, _trouble)
    app.add_exception_handler(RequestValidationError, _wrong_parameter)
    return app


def check_bearer(request: Request, token: str) -> None:
    """Raise HTTPException where a request does not bear the token."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not secrets.compare_digest(
        given.strip().encode(), token.encode()
    ):
        raise HTTPException(401, "this server needs its token: Authorization: Bearer TOKEN")


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error; 500 of a bug."""
    if isinstance(error, HTTPException):
        return error.status_code
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


async def _trouble(request: Request, error: Exception) -> Response:
    """Answer with a sentence, and say when to come again where there is no room."""
    headers = {
        401: {"WWW-Authenticate": "Bearer"},
        503: {"Retry-After": str(RETRY_SECONDS)},
    }
    status = status_of(error)
    text = str(error.detail) if isinstance(error, HTTPException) else str(error)
    return JSONResponse(Trouble(error=text).model_dump(), status, headers.get(status))


async def _wrong_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    text = f"{first['loc'][-1]}: {first['msg']}"
    return JSONResponse(Trouble(error=text).model_dump(), 400)
