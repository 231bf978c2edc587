"""`mrkd review --page` without a browser: who may ask, what is served, where answers go."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import soundfile
from fastapi.testclient import TestClient

from mrkd_ray.cli.review_page import RunReview
from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.serve.review import make_review_app
from tests.cli.test_review import rows_of, run  # noqa: F401  # a fixture

TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def asking(review: RunReview, **headers: str) -> TestClient:
    app = make_review_app(review, TOKEN)
    return TestClient(app, base_url="http://127.0.0.1:8001", headers={**BEARER, **headers})


def test_answers_are_kept_at_once_and_gone_on_with(run: Path) -> None:  # noqa: F811
    listed, data = run.parent / "review.csv", run.parent / "data/mended.csv"
    client = asking(RunReview(run, listed, data, 6))
    told = client.get("/list").json()
    assert (len(told["clips"]), told["classes"]) == (6, ["cat", "dog", "owl"])
    assert len(rows_of(listed)) == 6
    assert not data.exists()
    first, second, third = (clip["name"] for clip in told["clips"][:3])
    before = open_dataset(run.parent / "data/meta.csv", run.parent).by_id
    other = "cat" if before[first].label != "cat" else "dog"
    given = client.put("/clips/0/answer", json={"labels": [other]})
    assert (given.status_code, given.json()["answer"]) == (200, [other])
    assert open_dataset(data, run.parent).by_id[first].label == other
    client.put("/clips/1/answer", json={"labels": []})
    client.put("/clips/2/answer", json={"labels": [other]})
    client.put("/clips/2/answer", json={"labels": None})

    again = asking(RunReview(run, listed, data, 50))  # as if the process had been killed
    answers = [clip["answer"] for clip in again.get("/list").json()["clips"]]
    assert answers == [[other], [], None, None, None, None]
    after = open_dataset(data, run.parent).by_id
    assert after.keys() == before.keys() - {second}
    assert after[third].label == before[third].label
    wrong = again.put("/clips/3/answer", json={"labels": ["fox"]})
    assert (wrong.status_code, wrong.json()["error"]) == (400, "'fox' is no class")
    two = again.put("/clips/3/answer", json={"labels": ["cat", "dog"]})
    assert (two.status_code, two.json()["error"]) == (400, "a clip has one label here")


def test_nothing_is_lost_that_another_program_wrote(run: Path) -> None:  # noqa: F811
    listed, data = run.parent / "review.csv", run.parent / "mended.csv"
    data.write_text("mine")
    with pytest.raises(UserError, match=r"mended\.csv: it is there"):
        RunReview(run, listed, data, 6)
    assert not listed.exists()
    data.unlink()
    client = asking(RunReview(run, listed, data, 6))
    by_hand = listed.read_text().replace(",,", ",owl,", 3)
    listed.write_text(by_hand)
    refused = client.put("/clips/0/answer", json={"labels": ["cat"]})
    assert "changed by another program" in refused.json()["error"]
    assert listed.read_text() == by_hand
    listed.write_text("clip_id,answer,reason\n1-0,,x\n")
    with pytest.raises(UserError, match=r"review\.csv row 2: not as `mrkd review` wrote"):
        RunReview(run, listed, data, 6)


def test_only_clips_of_the_list_are_served_and_only_to_whom_has_the_token(
    run: Path,  # noqa: F811
) -> None:
    listed = run.parent / "review.csv"
    review = RunReview(run, listed, run.parent / "mended.csv", 6)
    name = review.listed().clips[0].name
    text = listed.read_text().replace(str(run.parent / "data" / name), "/etc/passwd")
    listed.write_text(text)
    client = asking(RunReview(run, listed, run.parent / "mended.csv", 6))
    sound, rate = soundfile.read(io.BytesIO(client.get("/clips/0/sound").content))
    assert (len(sound), rate) == (800, 8000)  # of the data set, whatever the list says
    for path in ("/clips/6/sound", "/clips/-1/sound", "/clips/..%2f..%2fgrid.yaml/sound"):
        assert client.get(path).status_code in (400, 404)
    asked = [("GET", "/list"), ("GET", "/clips/0/sound"), ("PUT", "/clips/0/answer")]
    given = {"json": {"labels": ["cat"]}}
    for method, path in asked:
        body = given if method == "PUT" else {}
        for headers, status in (
            ({"Authorization": ""}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Origin": "http://evil.example"}, 403),
            ({"Host": "evil.example"}, 400),
        ):
            assert client.request(method, path, headers=headers, **body).status_code == status
    assert client.get("/", headers={"Authorization": ""}).status_code == 200
    assert rows_of(listed)[0]["answer"] == ""
    own = client.put("/clips/0/answer", headers={"Origin": "http://127.0.0.1:8001"}, **given)
    assert own.status_code == 200
