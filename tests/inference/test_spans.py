"""Windows of recordings, events, and the files that other programs open."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.audio import decoding
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.calibration import Calibration
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.prediction import Prediction
from mrkd_ray.inference.prediction_files import Asked, audacity_lines, check, raven_lines
from mrkd_ray.inference.spans import Event, events, segments, smoothed
from tests.inference.test_classifier import classifier  # noqa: F401  # a fixture

RATE = 8000


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """3.3 s whose samples say where they stand."""
    file = tmp_path / "ramp.wav"
    soundfile.write(file, np.arange(int(3.3 * RATE)) / 2**15, RATE, subtype="FLOAT")
    return file


@pytest.mark.parametrize("block", [1000, 1 << 20])
@pytest.mark.parametrize(
    ("window", "hop", "starts"),
    [
        (1.0, 1.0, [0, 1, 2, 2.3]),  # the last one ends with the recording
        (1.0, 0.5, [0, 0.5, 1, 1.5, 2, 2.3]),
        (0.3, 1.5, [0, 1.5, 3.0]),  # the last one ends with it by itself
        (0.2, 1.5, [0, 1.5, 3.0, 3.1]),
        (9.0, 1.0, [0]),  # shorter than a window
    ],
)
def test_windows_hold_the_samples_of_their_times(
    ramp: Path,
    window: float,
    hop: float,
    starts: list[float],
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "BLOCK_FRAMES", block)
    reading = decoding.Decoding(ramp)
    found = list(segments(reading, RATE, window, hop))
    assert [start for start, _, _ in found] == pytest.approx(starts)
    for start, end, recording in found:
        samples = recording.at(RATE)
        assert end - start == pytest.approx(min(window, 3.3))
        assert samples[0] * 2**15 == pytest.approx(start * RATE)
        assert samples[-1] * 2**15 == pytest.approx(end * RATE - 1)


def test_a_window_has_the_probabilities_of_a_file_of_it(
    classifier: Classifier,  # noqa: F811
    tmp_path: Path,
) -> None:
    long, part = tmp_path / "long.wav", tmp_path / "part.wav"
    sound = np.random.default_rng(1).normal(size=5 * 22050).astype(np.float32) / 9
    soundfile.write(long, sound, 22050, subtype="FLOAT")
    spans = list(classifier.stream(long, window=1.0, hop=0.5))
    assert [span.start for span in spans] == [0.5 * i for i in range(9)]
    soundfile.write(part, sound[22050 : 2 * 22050], 22050, subtype="FLOAT")
    np.testing.assert_array_equal(spans[2].branches, classifier.predict(part).branches)
    table = classifier.predict([long, sound], sample_rate=22050, window=1.0, hop=0.5)
    assert list(table.columns) == ["file", "start", "end", *classifier.classes]
    assert list(table["file"]) == [str(long)] * 9 + ["input 2"] * 9
    assert list(table["start"][:9]) == [span.start for span in spans]
    scores = table[list(classifier.classes)].to_numpy()
    np.testing.assert_array_equal(scores[:9], [span.probabilities for span in spans])
    np.testing.assert_array_equal(scores[9:], scores[:9])


def span(start: float, *probabilities: float, multi_label: bool = False) -> Prediction:
    row = np.array([probabilities], np.float32)
    return Prediction("n.wav", start, start + 1, ("a", "b"), row, Calibration(multi_label))


def test_smoothed_windows_are_means_of_their_neighbours() -> None:
    found = smoothed([span(i, p, 1 - p) for i, p in enumerate((0.0, 0.3, 0.9, 0.6))], 3)
    assert [each.start for each in found] == [0, 1, 2, 3]
    values = [each.probabilities[0] for each in found]
    np.testing.assert_allclose(values, [0.15, 0.4, 0.6, 0.75], rtol=1e-6)
    assert smoothed([], 3) == []


def test_windows_that_touch_and_agree_are_one_event() -> None:
    spans = [span(0, 0.9, 0.1), span(1, 0.6, 0.4), span(2, 0.2, 0.8), span(5, 0.7, 0.3)]
    assert events(spans, ["a", "b"], 0.5) == [
        Event(0, 2, "a", pytest.approx(0.9)),
        Event(2, 3, "b", pytest.approx(0.8)),
        Event(5, 6, "a", pytest.approx(0.7)),  # 2 s after the last one
    ]
    assert [e.label for e in events(spans, ["a", "b"], 0.75)] == ["a", "b"]
    both = events([span(0, 0.9, 0.8, multi_label=True)], ["a", "b"], 0.5)
    assert [event.label for event in both] == ["a", "b"]
    assert [e.label for e in events([span(0, 0.9, 0.8)], ["a", "b"], 0.5)] == ["a"]


def asked(**changes: object) -> Asked:
    return replace(Asked(("=dog", "a, b"), False, True, 3, None), **changes)  # type: ignore[arg-type]


def test_a_selection_table_and_a_label_track() -> None:
    windows = [
        Prediction("x/n.wav", start, end, ("=dog", "a, b"), np.array([[p, 1 - p]], np.float32))
        for start, end, p in ((0, 1, 0.75), (0.5, 1.5, 0.5), (2, 3, 0.25))
    ]
    table = "".join(raven_lines(iter([windows[:2], windows[2:]]), asked()))
    rows = list(csv.DictReader(io.StringIO(table), delimiter="\t"))
    assert [row["Selection"] for row in rows] == ["1", "2"]
    assert [(row["Begin Time (s)"], row["End Time (s)"]) for row in rows] == [
        ("0.000", "1.500"),
        ("2.000", "3.000"),
    ]
    assert [row["Begin File"] for row in rows] == ["n.wav"] * 2
    assert [row["Label"] for row in rows] == ["'=dog", "a, b"]  # no formula
    assert [row["Confidence"] for row in rows] == ["0.7500"] * 2
    track = "".join(audacity_lines(iter([windows]), asked(least=0.7))).splitlines()
    assert track == ["0.000000\t1.000000\t'=dog", "2.000000\t3.000000\ta, b"]


@pytest.mark.parametrize(
    ("name", "window", "files", "match"),
    [
        ("ravn", 1.0, 1, "Did you mean 'raven'"),
        ("raven", None, 1, "give --window SECONDS"),
        ("audacity", 1.0, 2, "a label track is of one recording, and 2 were given"),
    ],
)
def test_formats_that_do_not_fit(name: str, window: float | None, files: int, match: str) -> None:
    with pytest.raises(UserError, match=match):
        check(name, windows=window is not None, files=files, least=None, output=False)
