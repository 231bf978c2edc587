"""The address that a server listens on, and the server behind it until it is told to end."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from mrkd_ray.common.errors import UserError

LAST_SECONDS = 10
"""In which requests that are under way may end when the server is told to."""
BACKLOG = 2048


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 is any free one.

    Raises:
        UserError: nobody can listen there.
    """
    try:
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=kind, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host {host} --port {port}: cannot be listened on ({reason}). Give another one."
        ) from None


def url(bound: socket.socket) -> str:
    """Return the address of such a socket, for a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_until_told(app: Any, bound: socket.socket) -> None:
    """Answer requests with an ASGI application until SIGINT or SIGTERM."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=LAST_SECONDS
    )
    with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and raises it again
        uvicorn.Server(config).run(sockets=[bound])
