"""A report in Chromium, at a desk and on a phone, in the light and in the dark, and on paper."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mrkd_ray.report import page
from mrkd_ray.report.figures import embedding
from tests.report.fakes import fake_embed, fake_grid

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no Chromium: apt-get install chromium chromium-driver"
    ),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SIZES = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]

# The contrast of every text with the page behind it, by WCAG 2's formula; the lowest first.
CONTRAST = """
const rgb = text => text.match(/[\\d.]+/g).map(Number);
const light = colour => rgb(colour).slice(0, 3).map(v => v / 255)
  .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const behind = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (rgb(colour)[3] !== 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("body *")]
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .map(e => {
    const style = getComputedStyle(e);
    const colours = [e.closest("svg") ? style.fill : style.color, behind(e)].map(light);
    const [low, high] = colours.sort((a, b) => a - b);
    return [(high + .05) / (low + .05), e.textContent.trim().slice(0, 40)];
  })
  .sort((a, b) => a[0] - b[0]).slice(0, 5);
"""

# Fonts and pictures are there and the page has been laid out with them, twice.
SETTLED = """
const done = arguments[0];
const frame = () => new Promise(requestAnimationFrame);
document.fonts.ready
  .then(() => Promise.all([...document.images].map(image => image.decode())))
  .then(frame).then(frame).then(() => done(true));
"""


@pytest.fixture(scope="module", params=["table6", "table1"])
def report(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    clips: Path,
    cache: Path,
) -> Path:
    """A wide table and one with two columns of stubs, with Figure 2 of real clips."""
    folder = tmp_path_factory.mktemp("grids") / request.param
    pairings = {
        "table6": "logmel64:resnet_small+mfcc:vgg_small",
        "table1": "logmel64:resnet_small+logmel128:resnet_small",
    }
    pairing, data = (pairings[request.param],), {"data": str(clips), "cache": str(cache)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "embed", fake_embed)
        return page.write(fake_grid(folder, pairings=pairing, reported=request.param, **data))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, report: Path) -> Callable[..., Any]:
    """A function that opens the report at a width, in a colour scheme."""

    def open_(width: int, scheme: str, media: str = "screen", scripts: bool = True) -> Any:
        command = browser.execute_cdp_cmd
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        command("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        command("Emulation.setEmulatedMedia", {"media": media, "features": features})
        command("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        browser.get_log("performance"), browser.get_log("browser")  # forget what was before
        browser.get(report.as_uri())
        return browser

    return open_


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_figures_show_and_nothing_overflows(
    opened: Callable[..., Any], width: int, scheme: str
) -> None:
    driver = opened(width, scheme)
    root = "document.documentElement"
    wide, visible = driver.execute_script(f"return [{root}.scrollWidth, {root}.clientWidth]")
    assert wide <= visible <= width
    figures = driver.execute_script(
        "return [...document.querySelectorAll('figure svg')].map(e => {"
        "const box = e.getBoundingClientRect();"
        "return [e.getAttribute('aria-label'), box.left, box.right, box.height]; })"
    )
    assert len(figures) > 10
    for label, left, right, height in figures:
        assert label
        assert height > 50
        assert 0 <= left < right <= visible, label
        assert right - left > 200, label
    decoded = driver.execute_async_script(
        "const done = arguments[0];"
        "const sources = [...document.querySelectorAll('img, svg image')].map(e => "
        "e.getAttribute('src') ?? e.href.baseVal);"
        "Promise.all(sources.map(async source => {"
        "const image = new Image(); image.src = source; await image.decode();"
        "return image.naturalWidth; })).then(done, error => done(String(error)));"
    )
    assert len(decoded) >= 2, decoded  # Figure 2: a picture of each representation
    assert all(size > 0 for size in decoded), decoded
    rights = driver.execute_script(
        "return [...document.querySelectorAll('section > :not(.scroll), p, dd, nav')]"
        ".map(e => e.getBoundingClientRect().right)"
    )
    assert max(rights) <= visible


def test_only_the_first_column_stays_when_a_table_scrolls(opened: Callable[..., Any]) -> None:
    driver = opened(390, "light")
    places = driver.execute_script(
        "const box = document.querySelector('.scroll');"
        "const stubs = [...box.querySelectorAll('tbody .stub')];"
        "const left = e => Math.round(e.getBoundingClientRect().left);"
        "const before = stubs.map(left); box.scrollLeft = 150; const after = stubs.map(left);"
        "const edge = Math.min(...before);"
        "return stubs.map((_, i) => [before[i] === edge, before[i] - after[i]]);"
    )
    moved = {first: {by for f, by in places if f is first} for first in (True, False)}
    assert moved == {True: {0}, False: {150}}


@pytest.mark.parametrize("width", [1280, 390])
def test_a_table_says_that_it_scrolls_where_it_does(opened: Callable[..., Any], width: int) -> None:
    found = opened(width, "light").execute_script(
        "return [...document.querySelectorAll('.scroll')].map(e => {"
        "const hint = e.querySelector('.hint');"
        "return [e.scrollWidth > e.clientWidth, !!hint && hint.offsetHeight > 0]; })"
    )
    assert found
    assert all(scrolls == said for scrolls, said in found), found
    assert {scrolls for scrolls, _ in found} == {width == 390}


def test_the_first_screen_says_which_model_to_use(opened: Callable[..., Any]) -> None:
    for width in (1280, 390):
        bottom = "return document.querySelector('.use').getBoundingClientRect().bottom"
        assert opened(width, "light").execute_script(bottom) < 900


def test_no_right_third_of_a_desk_is_empty(opened: Callable[..., Any]) -> None:
    rights = opened(1280, "light").execute_script(
        "const right = e => { const range = document.createRange(); range.selectNodeContents(e);"
        "return Math.max(...[...range.getClientRects()].map(box => box.right)); };"
        "return [...document.querySelectorAll('header, figure, table, caption')]"
        ".map(e => [e.textContent.trim().slice(0, 30), right(e)]);"
    )
    assert len(rights) > 10
    assert [name for name, right in rights if right < 1280 * 0.8] == []


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_nothing_leaves_the_machine_and_nothing_is_wrong(
    opened: Callable[..., Any], report: Path, width: int, scheme: str
) -> None:
    driver = opened(width, scheme)
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert report.as_uri() in asked
    assert [url for url in asked if url != report.as_uri() and not url.startswith("data:")] == []
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(opened: Callable[..., Any], scheme: str) -> None:
    lowest = opened(1280, scheme).execute_script(CONTRAST)
    assert lowest[0][0] >= 4.5, lowest


def test_it_needs_no_scripts(opened: Callable[..., Any]) -> None:
    """Without scripts, the page has the text and the shape that it has with them."""
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.wait import WebDriverWait

    def size(driver: Any) -> Any:
        return driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]

    driver = opened(1280, "light")
    driver.execute_async_script(SETTLED)
    with_scripts = size(driver)
    without = opened(1280, "light", scripts=False)  # nothing tells the driver that it is complete
    with suppress(TimeoutException):
        WebDriverWait(without, 600).until(lambda driver: size(driver) == with_scripts)
    assert size(without) == with_scripts


def test_it_prints_dark_on_white(opened: Callable[..., Any]) -> None:
    driver = opened(700, "dark", media="print")
    style = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    assert driver.execute_script(style) == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    rights = driver.execute_script(
        "return ['section > *:not(.wide), .scroll:not(.wide) table', '.wide table'].map(kind =>"
        "Math.max(0, ...[...document.querySelectorAll(kind)]"
        ".map(e => e.getBoundingClientRect().right)))"
    )
    assert rights[0] <= 703  # A4 less its margins: nothing is cut
    assert rights[1] <= 1032  # and across
