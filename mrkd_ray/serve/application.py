"""The server on Ray Serve: the workers of `mrkd serve`, and what `serve deploy` takes.

A file for a cluster names `mrkd_ray.serve.application:application` as its import path and has the
fields of `Settings` as arguments: deploy/serve.yaml.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from mrkd_ray.serve.settings import Settings

if TYPE_CHECKING:
    from mrkd_ray.serve.scorer import Scorer


def application(settings: Settings) -> Any:
    """Return the server, an `Application` of Ray Serve, which makes `Settings` of a file's `args`.

    Raises:
        UserError: as `Settings.token`.
    """
    from mrkd_ray.distributed import serving

    settings.token()
    return serving.application(partial(_app, settings), workers(settings))


def workers(settings: Settings) -> Any:
    """Return the model's replicas, an `Application` of Ray Serve."""
    from mrkd_ray.distributed import serving

    return serving.workers(
        partial(_scorer, settings),
        replicas=settings.replicas,
        cpus=settings.cpus,
        gpus=settings.gpus,
        queue=settings.queue,
    )


def _scorer(settings: Settings) -> "Scorer":
    """Load the model, in a process that has CPUs of its own."""
    from mrkd_ray.serve.scorer import Scorer

    return Scorer(settings.model, "cuda" if settings.gpus else "cpu", jobs=settings.cpus)


def _app(settings: Settings, backend: Any) -> Any:
    from mrkd_ray.serve.app import make_app

    return make_app(settings, backend)
