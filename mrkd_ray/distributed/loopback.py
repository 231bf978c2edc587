"""A cluster of this machine alone: nobody else reaches it, and it asks for a token.

Ray's servers run what they are sent. By default they listen on every address of the machine, and
the token's file can be read by all who have an account there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray._private import ray_constants
from ray._raylet import Config  # type: ignore[attr-defined]

REACHED = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
"""Ray's variable for whether other machines can join: with 0 all of it listens on 127.0.0.1.

That is Ray's default on macOS and Windows, and holds on Linux. 1 opens a cluster started here.
"""
AUTH, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


@contextmanager
def closed() -> Iterator[None]:
    """Have a cluster that is started inside listen on 127.0.0.1 and ask for a token.

    What the user set in `REACHED` and `AUTH` stays.
    """
    if AUTH not in os.environ:
        os.environ[AUTH] = "token"
        Config.initialize("")  # has this process read the variable again
    if os.environ[AUTH].lower() == "token" and not {TOKEN, TOKEN_FILE} & os.environ.keys():
        _own_token(Path.home() / ".ray" / "auth_token")
    if REACHED in os.environ:
        yield
        return
    before = ray_constants.ENABLE_RAY_CLUSTER
    os.environ[REACHED] = "0"  # for the processes that Ray starts
    ray_constants.ENABLE_RAY_CLUSTER = False  # for this one, which has read the variable already
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[REACHED]


def _own_token(file: Path) -> None:
    """Make the file where Ray looks for a token, or keep it, for its owner alone."""
    with contextlib.suppress(OSError):  # Ray says what is wrong with the folder
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as text:
                text.write(secrets.token_hex(32))
        file.chmod(0o600)
