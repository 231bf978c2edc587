"""The application without Ray: the model is in this process."""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.calibration import Evidence
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.prediction import NONE, SILENCE
from mrkd_ray.serve import app as application
from mrkd_ray.serve.app import make_app
from mrkd_ray.serve.scorer import Scorer
from mrkd_ray.serve.settings import Settings
from tests.serve.backends import Full, Here, Loading
from tests.serve.conftest import CLASSES, RATE

Samples = np.ndarray[tuple[int, ...], np.dtype[np.int16]]
Client = Callable[..., TestClient]


@pytest.fixture(scope="module")
def here(scorer: Scorer) -> Here:
    return Here(scorer)


@pytest.fixture
def client(here: Here) -> Client:
    """A function that makes a client of an application with these settings."""

    def make(**settings: Any) -> TestClient:
        return TestClient(make_app(Settings(model="here", **settings), here))

    return make


def as_form(content: bytes, name: str = "recording.wav") -> dict[str, Any]:
    return {"files": {"file": (name, content)}}


def test_an_answer_is_what_predict_says(
    client: Client, ensemble: Path, wav: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(wav)
    expected = Classifier.load(ensemble, "cpu").predict(tmp_path / "a.wav")
    said = client().post("/classify", **as_form(wav)).json()
    assert list(said["probabilities"]) == list(CLASSES)
    np.testing.assert_allclose([*said["probabilities"].values()], expected.probabilities, atol=1e-5)
    by_name = {each["branch"]: [*each["probabilities"].values()] for each in said["branches"]}
    np.testing.assert_allclose(by_name["cqt_vgg"], expected.branches[0], atol=1e-5)
    np.testing.assert_allclose(by_name["logmel64_vgg"], expected.branches[1], atol=1e-5)
    assert said["label"] == said["answer"] == expected.answer
    assert (said["seconds"], said["sample_rate"], said["windows"]) == (2.0, RATE, [])
    assert said["waveform"] is None
    assert {each["label"] for each in said["branches"]} == {"noise", "clicks"}
    assert said["agree"] is False


@pytest.fixture(scope="module")
def picky(ensemble: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, and evidence that what it knows it is very sure of."""
    folder = tmp_path_factory.mktemp("picky") / "model"
    shutil.copytree(ensemble, folder)
    sure = np.tile(np.array([[0.98, 0.01, 0.01]], np.float32), (20, 1))
    known = Evidence.of([str(i) for i in range(20)], sure, np.zeros(20, np.int64), sure[:0], "test")
    for branch in (folder / "branches").iterdir():
        known.write(branch)
        manifest.write(branch)
    return folder


def test_what_is_none_of_the_classes_and_silence_are_named_as_predict_does(
    picky: Path, samples: Samples, tmp_path: Path
) -> None:
    asking = TestClient(make_app(Settings(model="picky"), Here(Scorer(str(picky), "cpu"))))
    classifier = Classifier.load(picky, "cpu")
    (other,) = (branch for branch in classifier.branches if "logmel64" in str(branch.folder))
    asked = {"window": 1.0, "model": "cascade", "confidence": 1.0}
    for sound, expected in ((samples, NONE), (0 * samples, SILENCE)):
        soundfile.write(file := tmp_path / "a.wav", sound, RATE)
        said = asking.post("/classify", params=asked, content=file.read_bytes()).json()
        assert said["answer"] == classifier.predict(file).answer == expected
        heard = [each.answer for each in classifier.stream(file, window=1.0)]
        assert [each["answer"] for each in said["windows"]] == heard
        assert said["label"] in CLASSES
        # Of silence there is nothing to be surer of: the cascade does not go on.
        assert len(said["branches"]) == (2 if expected == NONE else 1)
        if expected == NONE:
            by_name = {each["branch"]: each["answer"] for each in said["branches"]}
            assert by_name["logmel64_vgg"] == Classifier([other]).predict(file).answer


def test_a_form_a_body_and_raw_samples_get_the_same_answer(
    client: Client, wav: bytes, samples: Samples
) -> None:
    asking = client()
    expected = asking.post("/classify", **as_form(wav)).json()
    assert asking.post("/classify", content=wav).json() == expected
    stereo = np.repeat(samples, 2).tobytes()
    for rate in ({"rate": RATE}, {"rate": RATE, "channels": 2}):
        raw = stereo if "channels" in rate else samples.tobytes()
        assert asking.post("/classify", params=rate, content=raw).json() == expected
    floats = (samples / np.float32(32768)).tobytes()
    as_floats = {"rate": RATE, "encoding": "f32le"}
    assert asking.post("/classify", params=as_floats, content=floats).json() == expected


def test_a_branch_the_ensemble_or_the_cascade_is_asked(
    client: Client, here: Here, wav: bytes
) -> None:
    asking = client()

    def asked(**params: Any) -> list[str]:
        answer = asking.post("/classify", params=params, **as_form(wav))
        assert answer.status_code == 200, answer.text
        return [each["branch"] for each in answer.json()["branches"]]

    about = asking.get("/model").json()
    cheapest, other = (branch["name"] for branch in about["branches"])
    costs = [branch["multiplications"] for branch in about["branches"]]
    assert 0 < costs[0] < costs[1]
    assert about["models"] == ["ensemble", "cascade", cheapest, other]
    assert asked(model=other) == [other]
    assert asked() == asked(model="ensemble") == [cheapest, other]
    here.jobs.clear()
    assert asked(model="cascade", confidence=0.0) == [cheapest]
    assert [job.branches for job in here.jobs] == [(cheapest,)]
    here.jobs.clear()
    assert asked(model="cascade", confidence=1.0, window=1.0) == [cheapest, other]
    assert [job.branches for job in here.jobs] == [(cheapest,), (other,)]
    whole = asking.post("/classify", params={"window": 1.0}, **as_form(wav)).json()
    sure = {"model": "cascade", "confidence": 1.0, "window": 1.0}
    passed_on = asking.post("/classify", params=sure, **as_form(wav)).json()
    assert {**passed_on, "model": "ensemble"} == whole
    wrong = asking.post("/classify", params={"model": "cqt_vg"}, **as_form(wav))
    assert wrong.status_code == 400
    assert "Did you mean 'cqt_vgg'" in wrong.json()["error"]


def test_windows_and_pictures_are_there_where_they_are_asked_for(
    client: Client, ensemble: Path, wav: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(wav)
    asked = {"window": 0.8, "hop": 0.6, "views": True}
    said = client().post("/classify", params=asked, **as_form(wav)).json()
    table = Classifier.load(ensemble, "cpu").predict(tmp_path / "a.wav", window=0.8, hop=0.6)
    assert [each["start"] for each in said["windows"]] == [0.0, 0.6, 1.2]
    np.testing.assert_allclose(
        [[*each["probabilities"].values()] for each in said["windows"]],
        table[list(CLASSES)],
        atol=1e-5,
    )
    low, high = zip(*said["waveform"], strict=True)
    assert len(low) == 600
    assert min(low) == pytest.approx(-0.366, abs=0.01)
    assert max(high) == pytest.approx(0.366, abs=0.01)
    assert all(each["view"].startswith("data:image/png;base64,") for each in said["branches"])


def test_a_long_recording_is_classified_in_parts(client: Client, here: Here) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 125 * 4000)
    soundfile.write(file, noise, 4000, format="FLAC")
    asked = {"window": 10.0, "model": "logmel64_vgg", "views": True}
    said = client().post("/classify", params=asked, content=file.getvalue()).json()
    assert said["seconds"] == 125.0
    assert len(said["windows"]) == 13
    assert said["branches"][0]["view"] is None


PROBLEMS: dict[str, tuple[dict[str, Any], dict[str, Any], int, str]] = {
    "a text file": ({}, {"content": b"no sound at all"}, 400, "not readable as audio"),
    "nothing": ({}, {"content": b""}, 400, "the recording is empty"),
    "another field": ({}, {"files": {"sound": ("a.wav", b"x")}}, 400, "in its field `file`"),
    "half a sample": ({"rate": 8000}, {"content": b"abc"}, 400, "no whole number of samples"),
    "a file as samples": ({"rate": 8000}, {"content": b"RIFFabcd"}, 400, "says its own"),
    "a rate of nothing": ({"rate": 3}, {"content": b"abcd"}, 400, "rate: "),
    "too many bytes": ({}, {"content": bytes(300_000)}, 413, "larger than 0.2 MB"),
    "too many bytes in a form": ({}, as_form(bytes(300_000)), 413, "larger than 0.2 MB"),
    "too many raw seconds": ({"rate": 1000}, {"content": bytes(9000)}, 413, "longer than 3 s"),
    "a hop without windows": ({"hop": 1}, {"content": b"x"}, 400, "give window"),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_is_no_recording_gets_a_sentence(case: str, client: Client) -> None:
    params, sent, status, sentence = PROBLEMS[case]
    answer = client(max_mb=0.2, max_seconds=3.0).post("/classify", params=params, **sent)
    assert answer.status_code == status, answer.text
    assert sentence in answer.json()["error"]
    assert "/tmp" not in answer.text


def test_a_recording_that_is_too_long_is_not_decoded_to_its_end(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(60 * 8000), 8000, format="FLAC")  # a small file
    asking = client(max_seconds=3.0)
    answer = asking.post("/classify", content=file.getvalue())
    assert answer.status_code == 413
    assert "longer than 3 s" in answer.json()["error"]
    monkeypatch.setattr(application, "WINDOWS", 3)
    soundfile.write(file := io.BytesIO(), np.zeros(16_000), 8000, format="WAV")
    many = asking.post("/classify", params={"window": 0.5, "hop": 0.2}, content=file.getvalue())
    assert many.status_code == 400
    assert "more than 3 windows" in many.json()["error"]


def test_what_is_longer_than_a_minute_is_taken_one_at_a_time(
    client: Client, monkeypatch: pytest.MonkeyPatch, wav: bytes
) -> None:
    monkeypatch.setattr(application, "ALONE_SECONDS", 1.0)
    assert client().post("/classify", content=wav).json()["seconds"] == 2.0
    short = client(max_seconds=1.0).post("/classify", content=wav)
    assert short.status_code == 413


def test_a_body_of_unknown_length_is_cut_off(client: Client) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield bytes(100_000)

    answer = client(max_mb=0.2).post("/classify", content=endless())
    assert answer.status_code == 413


def test_without_room_the_answer_comes_at_once_and_says_when_to_come_again(
    scorer: Scorer, wav: bytes
) -> None:
    """While one request is worked on; the second one's body is not even read."""

    async def two() -> tuple[httpx.Response, httpx.Response]:
        begun, end = asyncio.Event(), asyncio.Event()

        class Slow(Here):
            async def score(self, job: Any) -> Any:
                begun.set()
                await end.wait()
                return await super().score(job)

        app = make_app(Settings(model="here", queue=1), Slow(scorer))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as asking:
            first = asyncio.create_task(asking.post("/classify", content=wav))
            await begun.wait()

            async def never() -> Any:
                raise AssertionError("the body is read")
                yield b""

            second = await asking.post("/classify", content=never())
            end.set()
            return await first, second

    first, second = asyncio.run(two())
    assert first.status_code == 200
    assert (second.status_code, second.headers["retry-after"]) == (503, "1")
    full = TestClient(make_app(Settings(model="here"), Full(scorer)))
    assert full.post("/classify", content=wav).status_code == 503


def test_it_is_ready_when_the_model_is_there(
    client: Client, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "READY_SECONDS", 0.01)
    loading = TestClient(make_app(Settings(model="here"), Loading(scorer)))
    assert loading.get("/healthz").status_code == 200
    assert loading.get("/readyz").status_code == 503
    assert client().get("/readyz").text == "ready\n"


def test_with_a_token_nothing_is_told_without_it(
    client: Client, wav: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret-s3cret-s3cret\n")
    asking = client(token_file=str(file))
    for path in ("/healthz", "/readyz", "/"):
        assert asking.get(path).status_code == 200
    for path in ("/model", "/metrics"):
        assert asking.get(path).status_code == 401
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret-s3cret-s3cret"}):
        refused = asking.post("/classify", content=wav, headers=given)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
    right = {"Authorization": "Bearer s3cret-s3cret-s3cret"}
    assert asking.post("/classify", content=wav, headers=right).status_code == 200
    file.write_text("short")
    with pytest.raises(UserError, match="at least 16"):
        client(token_file=str(file))
    with pytest.raises(UserError, match="not readable"):
        client(token_file=str(tmp_path / "none"))


def test_requests_are_counted(client: Client, wav: bytes) -> None:
    asking = client()
    asking.post("/classify", content=wav)
    asking.post("/classify", content=b"no sound")
    told = asking.get("/metrics").text
    for line in (
        'mrkd_requests_total{status="200"} 1.0',
        'mrkd_requests_total{status="400"} 1.0',
        "mrkd_audio_seconds_total 2.0",
        'mrkd_answers_total{branches="2"} 1.0',
        "mrkd_request_seconds_count 2.0",
        "mrkd_requests_under_way 0.0",
    ):
        assert line in told.splitlines()


def test_openapi_says_what_is_taken_and_answered(client: Client) -> None:
    told = client().get("/openapi.json").json()
    assert set(told["paths"]) == {"/classify", "/model", "/healthz", "/readyz", "/metrics"}
    classify = told["paths"]["/classify"]["post"]
    assert {each["name"] for each in classify["parameters"]} == {
        *("model", "confidence", "window", "hop", "views", "rate", "encoding", "channels")
    }
    assert "multipart/form-data" in classify["requestBody"]["content"]
    assert {"200", "400", "401", "408", "413", "503"} <= set(classify["responses"])
    assert "probabilities" in told["components"]["schemas"]["Answer"]["properties"]
    assert client().get("/docs").status_code == 404  # it would fetch scripts from elsewhere


def test_no_log_has_a_recording_or_its_name(
    client: Client, wav: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        client().post("/classify", params={"model": "ensemble"}, **as_form(wav, "secret-place.wav"))
        client().post("/classify", **as_form(b"words that nobody should read", "secret.wav"))
    lines = [record.getMessage() for record in caplog.records if record.name == "mrkd_ray.serve"]
    assert len(lines) == 2
    assert lines[0].startswith("POST /classify 200 ")
    said = "".join(each.getMessage() for each in caplog.records if "httpx" not in each.name)
    for word in ("secret", "nobody should read", "RIFF", "ensemble"):
        assert word not in said
