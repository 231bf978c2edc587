"""`mrkd serve`: a model as a server, until Ctrl-C."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
from typing import TYPE_CHECKING

from mrkd_ray.common.errors import UserError

if TYPE_CHECKING:
    from mrkd_ray.serve.settings import Settings

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
"""What is imported of the extra `serve`."""


def check_installed(command: str) -> None:
    """Raise UserError where the extra that a command needs is not installed."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise UserError(
            f"{command} needs {', '.join(lacking)}, of the extra serve: pip install -e '.[serve]'"
        )


def run(settings: Settings, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        UserError: something is missing, or it does not start.
    """
    check_installed("mrkd serve")
    from rich.console import Console

    from mrkd_ray.common.progress import say
    from mrkd_ray.distributed.serving import running
    from mrkd_ray.inference.classifier import Classifier
    from mrkd_ray.serve.app import make_app
    from mrkd_ray.serve.application import workers
    from mrkd_ray.serve.listening import listening, serve_until_told, url

    console = Console(stderr=True)
    listening(host, port).close()  # a wrong address is said at once
    settings.token()
    Classifier.load(settings.model, "cpu")  # what is wrong with it is said before anything starts
    if not _is_loopback(host) and settings.token_file is None:
        say(console, f"warning: everybody who reaches {host} may ask: --token-file")
    say(console, f"loading {settings.model}")
    with running(workers(settings), settings.replicas) as replicas, listening(host, port) as bound:
        _log_requests()
        print(f"{url(bound)}  until Ctrl-C", flush=True)
        serve_until_told(make_app(settings, replicas), bound)
        say(console, "stopping")


def _log_requests() -> None:
    """Write a line for each request to standard error: when, its status, and how long it took."""
    log = logging.getLogger("mrkd_ray.serve")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
