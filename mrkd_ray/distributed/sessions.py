"""The folders in which Ray keeps a session's logs and sockets: which are ours, and in use. No Ray.

Ray leaves them behind, also where a run ends well.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

MARK = "mrkd_ray"
"""The file in a session's folder that says that this project started it."""


def mark(session: Path) -> None:
    """Say that a session is ours."""
    (session / MARK).touch()


def ours(temporary: Path) -> Iterator[Path]:
    """Yield the sessions in Ray's folder that this project started, in order."""
    yield from (mark.parent for mark in sorted(temporary.glob(f"session_*/{MARK}")))


def ray_folder() -> Path:
    """Return the folder in which Ray has its sessions on this machine."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"


def in_use(session: Path) -> bool:
    """Return whether a process of Ray answers there."""
    for place in (session / "sockets").glob("*"):
        with socket.socket(socket.AF_UNIX) as knock:
            try:
                knock.connect(str(place))
            except OSError:
                continue
            return True
    return False
