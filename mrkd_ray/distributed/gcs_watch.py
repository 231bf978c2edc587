"""Ends this process in one sentence where Ray's control service is gone.

Ray itself tries for a minute, and then aborts the process with a dump of its stack.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = 2.0  # seconds
TRIES = 3
GONE = (
    "error: Ray's control service (gcs_server) has ended. Nothing up to the last finished cycle is "
    "lost: the same command with --resume goes on."
)

folders: set[str] = set()
"""Temporary folders of this process, removed as it ends: no `finally` is run then."""


@contextmanager
def watched(address: str) -> Iterator[None]:
    """Watch the service at `HOST:PORT` while the block runs."""
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(address, over), daemon=True, name="gcs")
    thread.start()
    try:
        yield
    finally:
        over.set()


def _watch(address: str, over: threading.Event) -> None:
    refused = 0
    while not over.wait(EVERY):
        refused = refused + 1 if _refuses(address) else 0
        if refused == TRIES:
            print(f"\n{GONE}", file=sys.stderr, flush=True)
            for folder in tuple(folders):
                shutil.rmtree(folder, ignore_errors=True)
            os._exit(2)  # nothing of Ray can be unwound; its other processes end with this one


def _refuses(address: str) -> bool:
    """Return whether nobody listens there; a network that is slow is another thing."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
