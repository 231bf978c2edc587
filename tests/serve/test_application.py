"""The server on Ray Serve: its processes, and what a request notices when one of them dies."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import uvicorn

from mrkd_ray.common.errors import UserError
from mrkd_ray.distributed.cluster import connect
from mrkd_ray.distributed.serving import NAME, Replicas
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.serve.app import make_app
from mrkd_ray.serve.application import application
from mrkd_ray.serve.listening import listening
from mrkd_ray.serve.listening import url as address
from mrkd_ray.serve.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def settings(ensemble: Path) -> Settings:
    return Settings(model=str(ensemble), replicas=2)


@pytest.fixture(scope="module")
def url(ray_cluster: str, settings: Settings) -> Iterator[str]:
    """A server with two replicas of the model, as `serve deploy` starts it."""
    from ray import serve

    # By default a proxy that takes more than 15 s to start is killed.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    port = (free := listening("127.0.0.1", 0)).getsockname()[1]
    free.close()
    with connect(None, 2, dashboard=False):
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        serve.run(application(settings), name=NAME)
        yield f"http://127.0.0.1:{port}"
        serve.shutdown()


def test_it_answers_as_predict_does(url: str, ensemble: Path, wav: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav)
    expected = Classifier.load(ensemble, "cpu").predict(tmp_path / "a.wav").probabilities
    assert requests.get(f"{url}/readyz").status_code == 200
    said = requests.post(f"{url}/classify", files={"file": ("a.wav", wav)}, params={"views": True})
    found = said.json()["probabilities"]
    np.testing.assert_allclose([*found.values()], expected, atol=1e-5)
    assert "mrkd_audio_seconds_total 2.0" in requests.get(f"{url}/metrics").text
    wrong = requests.post(f"{url}/classify", data=b"no sound")
    assert (wrong.status_code, "not readable" in wrong.json()["error"]) == (400, True)
    assert "default-src 'none'" in requests.get(url).headers["content-security-policy"]


def test_mrkd_serve_has_the_application_in_its_own_process(
    url: str, settings: Settings, wav: bytes
) -> None:
    from ray import serve

    app = make_app(settings, Replicas(serve.get_deployment_handle("model", NAME)))
    bound = listening("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        here = requests.post(f"{address(bound)}/classify", data=wav, timeout=300)
    finally:
        server.should_exit = True
        thread.join()
    assert here.json() == requests.post(f"{url}/classify", data=wav, timeout=300).json()
    with pytest.raises(UserError, match="cannot be listened on"):
        listening("127.0.0.1", int(url.rpartition(":")[2]))
    with pytest.raises(UserError, match="cannot be listened on"):
        listening("no.such.host.invalid", 8000)


def test_processes_that_are_killed_lose_no_request(url: str, wav: bytes) -> None:
    """A replica of the model, then the process in front of it: all can be asked for again."""
    import ray
    from ray.util import list_named_actors

    def replicas(deployment: str) -> list[str]:
        prefix = f"SERVE_REPLICA::{NAME}#{deployment}#"
        names = [each["name"] for each in list_named_actors(all_namespaces=True)]
        return [name for name in names if name.startswith(prefix)]

    assert (len(replicas("model")), len(replicas("front"))) == (2, 1)
    under_way = threading.Semaphore(0)

    def ask(_: int) -> list[tuple[int, Any]]:
        """Send a request until it is answered; what came each time. 0: the connection ended."""
        came: list[tuple[int, Any]] = []
        while not came or came[-1][0] != 200:
            assert len(came) < 1000
            under_way.release()
            try:
                answer = requests.post(f"{url}/classify", data=wav, timeout=300)
                came.append((answer.status_code, answer.headers.get("retry-after")))
            except requests.ConnectionError:
                came.append((0, None))
        return came

    def asked_while_killed(name: str) -> set[tuple[int, Any]]:
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(ask, range(40))
            for _ in range(12):
                under_way.acquire()
            ray.kill(ray.get_actor(name, namespace="serve"))
            found = list(answers)
        assert [came[-1][0] for came in found] == [200] * 40
        return {each for came in found for each in came}

    # What a replica of the model worked on is done by the other one, or has room a second later.
    assert asked_while_killed(replicas("model")[0]) <= {(200, None), (503, "1")}
    # Nobody is left to answer for the process in front: Ray's proxy says 500, or 503.
    came = asked_while_killed(replicas("front")[0])
    assert {status for status, _ in came} <= {200, 500, 503, 0}
