"""The folders of Ray and Tune: which are ours, and in use. Ray itself is not needed.

Ray leaves a session's logs and sockets behind, also where a run ends well; Tune its folder where
the run is killed.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

MARK = "mrkd_ray"
"""The file in a session's folder that says that this project started it."""

TUNE, LOCK = "mrkd-tune-", "lock"
"""How the names of Tune's folders begin; a run holds the lock in its own."""


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


def remove_tunes() -> None:
    """Remove the folders of Tune that runs have left which were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{TUNE}*"):
        with suppress(OSError), FileLock(left / LOCK, timeout=0):  # of no running process
            shutil.rmtree(left, ignore_errors=True)
