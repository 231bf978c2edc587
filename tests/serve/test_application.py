"""The server on Ray Serve: its processes, and what a request notices when one of them dies."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from mrkd_ray.common.errors import UserError
from mrkd_ray.distributed.serving import check_free, running
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.serve.application import application
from mrkd_ray.serve.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def url(ray_cluster: str, ensemble: Path) -> Iterator[str]:
    """A server with two replicas of the model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(model=str(ensemble), replicas=2)
    with running(application(settings), "127.0.0.1", port, 2):
        yield f"http://127.0.0.1:{port}"


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


def test_a_replica_that_is_killed_loses_no_request(url: str, wav: bytes) -> None:
    import ray
    from ray.util import list_named_actors

    models = [
        each["name"]
        for each in list_named_actors(all_namespaces=True)
        if each["name"].startswith("SERVE_REPLICA::mrkd#model#")
    ]
    assert len(models) == 2
    under_way = threading.Semaphore(0)

    def ask(_: int) -> list[tuple[int, Any]]:
        """Send a request until it is answered, as its Retry-After says; what came each time."""
        came = []
        while not came or came[-1][0] == 503:
            under_way.release()
            answer = requests.post(f"{url}/classify", data=wav, timeout=300)
            came.append((answer.status_code, answer.headers.get("retry-after")))
        return came

    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(ask, range(40))
        for _ in range(12):
            under_way.acquire()
        ray.kill(ray.get_actor(models[0], namespace="serve"))
        found = list(answers)
    assert [came[-1][0] for came in found] == [200] * 40
    assert {each for came in found for each in came} <= {(200, None), (503, "1")}


def test_an_address_that_is_taken_is_said_at_once(url: str) -> None:
    with pytest.raises(UserError, match="cannot be listened on"):
        check_free("127.0.0.1", int(url.rpartition(":")[2]))
    with pytest.raises(UserError, match="cannot be listened on"):
        check_free("no.such.host.invalid", 8000)
