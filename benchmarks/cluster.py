"""A Ray cluster of this machine's cores for a benchmark."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cluster(cpus: int | None = None) -> Iterator[None]:
    """Start Ray here with its workers at normal priority, without a dashboard, and end it.

    Args:
        cpus: logical CPUs; None takes the machine's.
    """
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    folder = tempfile.mkdtemp(prefix="mrkd")  # short: Ray puts Unix sockets below it
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=folder,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
