"""A Ray cluster on this machine for a benchmark, as a run starts its own, and cohorts on it."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mrkd_ray.method import algorithm
from mrkd_ray.training.branch_task import BranchTask


@contextmanager
def cluster(cpus: int) -> Iterator[None]:
    """Start Ray here with at least so many logical CPUs, and end it."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))  # or it writes one at home
    from mrkd_ray.distributed.cluster import connect

    with connect(None, min_cpus=cpus):
        yield


class Runner:
    """Actors for some branches, that run cells one after the other."""

    def __init__(self, tasks: Sequence[BranchTask], overlap: bool = False) -> None:
        from mrkd_ray.distributed.ray_cohort import Actors

        self._actors = Actors.start([task.spec for task in tasks], overlap=overlap)
        self._tasks = tasks

    def run(self, temperature: float | None = 2.0) -> tuple[float, list[list[dict[str, Any]]]]:
        """Run a cell from its first cycle to its last, when every branch has started.

        Args:
            temperature: None trains without distillation.

        Returns:
            The wall time in seconds, and the figures of every cycle and branch.
        """
        import ray

        from mrkd_ray.distributed.ray_cohort import RayCohort

        training = self._tasks[0].training
        with tempfile.TemporaryDirectory() as folder:
            cohort = RayCohort(self._actors, self._tasks, Path(folder))
            ray.get(cohort.submitted)
            began = time.perf_counter()
            if temperature is None:
                cycles = algorithm.independent(cohort, training)
            else:
                cycles = algorithm.distilled(cohort, training, temperature)
            rows = list(cohort.figures(cycles))
            return time.perf_counter() - began, rows
