"""Ray Serve: replicas of what does jobs, and on a cluster the application in front of them.

It knows neither recordings nor models. What is in a replica, and what the application is, is
handed over as functions that make them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from mrkd_ray.common.errors import Busy, UserError
from mrkd_ray.distributed.cluster import connect

BATCH = 8
"""Jobs that a replica does together, at most: those that wait when it has time for more."""
AHEAD = 2  # batches that a replica has: one is done, the next one comes together
TRIES = 3  # of a job whose replica dies; there is another one, or there will be one
FRONT = 10_000  # requests that the application has at once: it is told itself how many it takes
NAME = "mrkd"


class Worker(Protocol):
    """What does jobs."""

    def about(self) -> Any:
        """Say what it is."""

    def score(self, jobs: Sequence[Any]) -> Sequence[Any]:
        """Do jobs; what comes of each, in order."""


class Replica:
    """A process that does jobs, several at once where several wait."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        self._worker = make()

    async def about(self) -> Any:
        """Say what the worker is."""
        return self._worker.about()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.0)
    async def score(self, jobs: list[Any]) -> list[Any]:
        """Do jobs, in a thread: the process goes on to answer Ray."""
        return list(await asyncio.to_thread(self._worker.score, jobs))


class Replicas:
    """The replicas, as the application sees them. A job of one that dies is done by another."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def about(self) -> Any:
        """Say what the workers are."""
        return await self._answer(self._handle.about.remote)

    async def score(self, job: Any) -> Any:
        """Have a job done.

        Raises:
            Busy: so many wait already, or there is no replica that lives.
        """
        return await self._answer(lambda: self._handle.score.remote(job))

    async def _answer(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        for _ in range(TRIES):
            try:
                return await ask()
            except BackPressureError:
                raise Busy("as many requests wait as may") from None
            except RayTaskError as error:
                if not isinstance(error.cause, RayError):
                    raise
            except (RayError, DeploymentUnavailableError):  # its process, its node, or its answer
                continue
        raise Busy("the model's processes ended: others are started")


@serve.ingress()
class Front:
    """The application, in a process of a cluster."""

    def __init__(self, make_app: Callable[[Replicas], Any], handle: Any) -> None:
        self._make_app, self._replicas = make_app, Replicas(handle)

    def __serve_build_asgi_app__(self) -> Any:
        return self._make_app(self._replicas)


def workers(
    make_worker: Callable[[], Worker], *, replicas: int, cpus: int, gpus: float, queue: int
) -> serve.Application:
    """Return what Ray Serve runs: replicas of what does jobs.

    Args:
        make_worker: called in each replica.
        replicas: how many.
        cpus: of each replica.
        gpus: of each replica.
        queue: jobs that may wait for a replica.
    """
    deployment = serve.deployment(
        name="model",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        max_ongoing_requests=AHEAD * BATCH,
        max_queued_requests=queue,
    )
    return deployment(Replica).bind(make_worker)


def application(
    make_app: Callable[[Replicas], Any], workers: serve.Application
) -> serve.Application:
    """Return what Ray Serve runs on a cluster: `workers`, and the application in front of them.

    `make_app` is called in the process in front; it makes an ASGI application.
    """
    front = serve.deployment(
        name="front", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=FRONT
    )
    return front(Front).bind(make_app, workers)


@contextmanager
def running(workers: serve.Application, cpus: int) -> Iterator[Replicas]:
    """Run workers on a cluster that is started here, and end both afterwards.

    The application that asks them is in this process: Ray Serve's own proxy and a process in front
    would each take a request and hand it on, which costs as much as a small model.

    Args:
        workers: of `workers`.
        cpus: logical CPUs that the cluster has at least.

    Raises:
        UserError: they did not start.
    """
    with connect(None, cpus, dashboard=False):
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        try:
            try:
                serve.start(proxy_location="Disabled")
                handle = serve.run(workers, name=NAME, route_prefix=None)
            except RayActorError:
                raise UserError(
                    "the server did not start: a process of Ray Serve ended. Is there memory left, "
                    "and is this machine very busy? Try again."
                ) from None
            except RuntimeError as error:
                raise UserError(f"the server did not start: {_reason()}") from error
            yield Replicas(handle)
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


def _reason() -> str:
    """Return why a deployment of the application failed, as Ray tells it."""
    status = serve.status().applications.get(NAME)
    messages = [each.message for each in status.deployments.values()] if status else []
    lines = "\n".join(filter(None, messages)).strip().splitlines()
    return lines[-1] if lines else "Ray Serve says no reason"
