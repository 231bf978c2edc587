"""The page that classifies a dropped file, in Chromium with onnxruntime-web."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from mrkd_ray.audio.decoding import load
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.program_export import Clips, export
from tests.conftest import ROOT
from tests.report.test_browser import CHROMIUM, DRIVER, browser  # noqa: F401  # a fixture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no Chromium: apt-get install chromium chromium-driver"
    ),
]
RUNTIME = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@pytest.fixture(scope="module")
def site(
    taught_cell: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Classifier]]:
    """The page with its model and ONNX Runtime's files beside it, served."""
    folder, packages = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("npm")
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", "onnxruntime-web"]
    try:
        subprocess.run(install, cwd=packages, check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("npm cannot fetch onnxruntime-web here")
    for name in RUNTIME:
        shutil.copy(packages / "node_modules/onnxruntime-web/dist" / name, folder)
    shutil.copy(ROOT / "examples/web/index.html", folder)
    classifier = Classifier.load(taught_cell / "branches" / "logmel64-vgg_small", "cpu")
    given = Clips("clips", [load(clips / "00.wav")])
    export(classifier, folder / "classifier.onnx", given)
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", classifier
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...


def said(driver: Any, begin: str) -> str:
    """What the page says, once it begins so."""
    wait = WebDriverWait(driver, 120)
    return wait.until(
        lambda d: (text := d.find_element(By.ID, "said").text).startswith(begin) and text
    )


def test_a_file_is_classified_as_in_python_and_nothing_leaves_the_machine(
    site: tuple[str, Classifier],
    clips: Path,
    tmp_path: Path,
    browser: Any,  # noqa: F811
) -> None:
    address, classifier = site
    browser.get_log("performance")
    browser.get(address)
    assert said(browser, "Ready")
    for name in ("00.wav", "01.wav"):  # of other lengths
        browser.find_element(By.ID, "file").send_keys(str(clips / name))
        shown = said(browser, f"{name}: ")
        expected = classifier.predict(clips / name)
        best, p = next(iter(expected.top(1).items()))
        found = re.search(rf"{best} ([\d.]+) %", shown)
        assert found, shown
        assert float(found[1]) == pytest.approx(100 * p, abs=0.2)
        assert ("none of these" in shown) == (expected.answer == "none of these")
    stereo = np.stack([soundfile.read(clips / "00.wav")[0]] * 2, axis=1)
    soundfile.write(tmp_path / "both.wav", stereo, 22_050)
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "both.wav"))
    best, p = next(iter(classifier.predict(clips / "00.wav").top(1).items()))
    assert f"{best} {100 * p:.1f} %" in said(browser, "both.wav: ")
    (tmp_path / "no.wav").write_text("no sound")
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "no.wav"))
    assert "%" not in said(browser, "no.wav: ")
    events = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if "request" in e["params"]]
    sent = [url for url in urls if url.startswith("http")]  # Chromium's own pages are chrome://
    assert any(url.endswith("classifier.onnx") for url in sent)
    assert [url for url in sent if not url.startswith(address)] == []
