"""The server's page in Chromium: files, a microphone, a desk and a phone, light and dark."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import uvicorn
from fastapi import FastAPI

from mrkd_ray.cli.review_page import RunReview
from mrkd_ray.serve.app import make_app
from mrkd_ray.serve.review import make_review_app
from mrkd_ray.serve.scorer import Scorer
from mrkd_ray.serve.settings import Settings
from tests.cli.test_review import rows_of, run  # noqa: F401  # a fixture
from tests.report.test_browser import CHROMIUM, CONTRAST, DRIVER, FLAGS
from tests.serve.backends import Here

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no Chromium: apt-get install chromium chromium-driver"
    ),
]
MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PATIENCE = 300  # seconds: of a machine that does much else


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of an application that runs in a thread."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def url(scorer: Scorer) -> Iterator[str]:
    with served(make_app(Settings(model="here", max_mb=0.5), Here(scorer))) as address:
        yield address


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, *MICROPHONE, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    found.set_script_timeout(PATIENCE)
    yield found
    found.quit()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, wav: bytes) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "clip.wav").write_bytes(wav)
    (folder / "letter.wav").write_text("Dear reader, this is no sound.")
    (folder / "large.wav").write_bytes(bytes(600_000))
    samples, rate = soundfile.read(io.BytesIO(wav))
    soundfile.write(folder / "long.ogg", np.tile(samples, 10), rate)
    soundfile.write(folder / "silence.wav", 0 * samples, rate)
    return folder


def opened(
    driver: Any, url: str, width: int = 1280, scheme: str = "light", there: str = "limits"
) -> Any:
    """Open the page at a width, in a colour scheme; it has asked for what it shows."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get_log("performance"), driver.get_log("browser")  # forget what was before
    driver.get(url)
    until(driver, f"return document.getElementById('{there}').textContent")
    return driver


def until(driver: Any, script: str) -> Any:
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(driver, PATIENCE, 0.05).until(lambda driver: driver.execute_script(script))


def choose(driver: Any, file: Path) -> None:
    """Choose a file, and wait until there is an answer or an error."""
    driver.find_element("id", "file").send_keys(str(file))
    until(driver, "return ['result', 'error'].some(id => !document.getElementById(id).hidden)")


def text(driver: Any, selector: str) -> str:
    return str(driver.find_element("css selector", selector).text)


def asked(driver: Any) -> list[str]:
    """Where requests went since the page was opened."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


def test_a_clip_is_shown_with_what_each_branch_sees_and_says(
    driver: Any, url: str, files: Path
) -> None:
    opened(driver, url)
    choose(driver, files / "clip.wav")
    assert text(driver, "#label") in ("clicks", "noise")
    assert "The branches disagree" in text(driver, "#agreement")
    pictures = driver.execute_script(
        "return [...document.querySelectorAll('.track.view img')]"
        ".map(e => [e.alt, e.complete && e.naturalWidth > 50, e.getBoundingClientRect().width])"
    )
    assert len(pictures) == 2
    assert all(alt.startswith("What ") and seen and width > 500 for alt, seen, width in pictures)
    assert (
        driver.execute_script("return document.querySelector('.wave path').getBBox().width") > 500
    )
    header = [cell.text.split("\n")[0] for cell in driver.find_elements("css selector", "thead th")]
    assert header[:2] == ["class", "ensemble"]
    assert set(header[2:]) == {"cqt_vgg", "logmel64_vgg"}
    assert len(driver.find_elements("css selector", "td.first.differs")) == 1
    left = [where for where in asked(driver) if not where.startswith((url, "data:", "blob:"))]
    assert left == []
    assert driver.get_log("browser") == []


def test_silence_is_no_class(driver: Any, url: str, files: Path) -> None:
    opened(driver, url)
    choose(driver, files / "silence.wav")
    assert text(driver, "#label") == "silence"
    assert text(driver, "#agreement") == "All 2 branches say so."
    assert text(driver, "#sure") == ""


def test_a_long_recording_has_a_timeline_that_plays_from_a_click(
    driver: Any, url: str, files: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(driver, url)
    choose(driver, files / "long.ogg")
    events = driver.find_elements("css selector", ".lane .event")
    assert len(events) >= 1
    last = events[-1]
    driver.execute_script("arguments[0].click()", last)
    left = float(last.value_of_css_property("left").removesuffix("px"))
    width = driver.execute_script("return arguments[0].parentNode.clientWidth", last)
    until(driver, "return document.getElementById('audio').seeking === false")
    at = driver.execute_script("return document.getElementById('audio').currentTime")
    assert at >= left / width * 20 - 0.1
    assert last.get_attribute("aria-current") == "true"
    first = driver.find_element("css selector", ".event")
    driver.execute_script("arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_RIGHT)
    current = driver.execute_script("return document.activeElement.getAttribute('aria-current')")
    assert current == "true"
    driver.find_element("id", "play").click()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("letter.wav", "letter.wav: not readable as audio"), ("large.wav", "0.5 MB are the limit")],
)
def test_a_file_that_cannot_be_taken_gets_a_sentence(
    driver: Any, url: str, files: Path, name: str, sentence: str
) -> None:
    opened(driver, url)
    choose(driver, files / name)
    assert sentence in text(driver, "#error")
    assert driver.find_element("id", "error").get_attribute("role") == "alert"
    assert not driver.find_element("id", "result").is_displayed()
    choose(driver, files / "clip.wav")  # and it goes on
    assert text(driver, "#label")
    assert not driver.find_element("id", "error").is_displayed()


def test_the_microphone_is_heard(driver: Any, url: str) -> None:
    opened(driver, url)
    button = driver.find_element("id", "record")
    button.click()
    until(driver, "return /Stop 0:0[1-9]/.test(document.getElementById('record-text').textContent)")
    button.click()
    until(driver, "return !document.getElementById('result').hidden")
    assert "Your recording" in text(driver, "#name")
    assert text(driver, "#label")
    assert text(driver, "#record-text") == "Record"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_nothing_overflows_and_all_can_be_read(
    driver: Any, url: str, files: Path, width: int, scheme: str
) -> None:
    opened(driver, url, width, scheme)
    choose(driver, files / "long.ogg")
    readable(driver, width)


def readable(driver: Any, width: int) -> None:
    """Nothing overflows, controls are large enough and named, text stands out."""
    wide, there = driver.execute_script(
        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    )
    assert wide <= there <= width
    small = driver.execute_script(
        "return [...document.querySelectorAll('#input button, #input select, #drop, #play, "
        "#classes button, .others button')]"
        ".map(e => e.getBoundingClientRect().height).filter(height => height && height < 36)"
    )
    assert small == []
    lowest = driver.execute_script(CONTRAST)
    assert lowest[0][0] >= 4.5, lowest
    unnamed = driver.execute_script(
        "return [...document.querySelectorAll('button, select, input')].filter(e => !(e.ariaLabel "
        "|| e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


def test_clips_are_reviewed_by_keys_and_buttons(driver: Any, run: Path) -> None:  # noqa: F811
    """On a desk and a phone; a name that would be a tag is text; after a reload it goes on."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    hostile = "<img src=x onerror=document.title='hacked'>"
    meta = run.parent / "data/meta.csv"
    meta.write_text(meta.read_text().replace("owl", hostile))
    listed, data = run.parent / "review.csv", run.parent / "mended.csv"

    def answers() -> list[str]:
        return [row["answer"] for row in rows_of(listed)]

    with served(make_review_app(RunReview(run, listed, data, 4), "0123456789abcdef")) as address:
        opened(driver, f"{address}#0123456789abcdef", 390, "dark", "name")
        until(driver, "return document.getElementById('audio').readyState >= 2")
        assert driver.execute_script("return document.getElementById('audio').duration") == 0.1
        assert {each.get_attribute("data-label") for each in buttons(driver)} == {
            *("cat", "dog", hostile)
        }
        assert driver.title == "mrkd: what is it?"
        name = text(driver, "#name")
        label = rows_of(listed)[0]["label"]
        driver.find_element(By.TAG_NAME, "body").send_keys("1")  # its own label comes first
        until(driver, f"return document.getElementById('name').textContent !== '{name}'")
        assert answers() == [label, "", "", ""]
        assert data.is_file()
        readable(driver, 390)

        driver.get("about:blank")  # else only the part behind # would change
        opened(driver, f"{address}#0123456789abcdef", 1280, "light", "name")
        assert text(driver, "#count") == "1 of 4 answered"
        driver.find_element("id", "leave").click()
        until(driver, "return document.getElementById('count').textContent[0] === '2'")
        assert answers() == [label, "-", "", ""]
        driver.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_LEFT)
        until(driver, "return document.getElementById('status').textContent.includes('left out')")
        driver.find_element("id", "undo").click()
        until(driver, "return document.getElementById('count').textContent[0] === '1'")
        assert answers() == [label, "", "", ""]
        readable(driver, 1280)
        assert all(where.startswith((address, "data:", "blob:")) for where in asked(driver))
        assert driver.get_log("browser") == []


def buttons(driver: Any) -> list[Any]:
    return list(driver.find_elements("css selector", "#classes button"))
