"""The page of `mrkd evaluate --html`, and what the command prints."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mrkd_ray.cli.evaluation import show
from mrkd_ray.inference.calibration import Calibration
from mrkd_ray.inference.evaluate import Evaluation
from mrkd_ray.report.evaluation_page import render

CLASSES = ("dog", "<cat>", "whale")


@pytest.fixture
def found() -> Evaluation:
    truth = np.array([0, 0, 0, 1, 1, 1])
    scores = np.full((6, 3), 0.1)
    scores[np.arange(6), [0, 0, 1, 1, 1, 0]] = 0.8
    cooler = Calibration(members=(0.5,), temperature=0.5, clips=6)
    models = {"a": scores, "ensemble": scores}
    calibrations = {"a": Calibration(), "ensemble": cooler}
    silent = np.zeros(6, bool)
    return Evaluation("clips", CLASSES, truth, models, calibrations, silent, 4, 1)


def test_the_page_has_scores_classes_and_figures_and_loads_nothing(found: Evaluation) -> None:
    page = render(found, Path("results/x"))
    assert "default-src 'none'" in page
    assert "<cat>" not in page
    assert page.count("&lt;cat&gt;") >= 2
    assert page.count("<svg") == 4  # confusion and reliability of two models
    assert "6 clips of clips. Left out: 4 that it was" in page
    row = re.search(r">dog</th>(.*?)</tr>", page, re.DOTALL)
    assert row
    cells = re.findall(r"<td>(.*?)</td>", row[1])
    assert cells == ["3", "66.7", "66.7", "66.7", cells[-1]]
    whale = re.search(r">whale</th>(.*?)</tr>", page, re.DOTALL)
    assert whale
    assert re.findall(r"<td>(.*?)</td>", whale[1]) == ["0", "–", "–", "–", "–"]
    assert "reliability of a: ECE 13.3 before calibration, 13.3 after" in page  # 80 %, and 66.7
    assert "reliability of ensemble: ECE 13.3 before calibration, 30.3 after" in page  # at T = 1/2


def test_the_terminal_has_the_last_models_classes_and_what_is_confused(found: Evaluation) -> None:
    out = io.StringIO()
    show(found, Console(file=out, width=100))
    text = out.getvalue()
    assert "calibration error 13.3 points\nensemble" in text.replace("\n\n", "\n")
    assert "calibration error 30.3 points, 13.3 before calibration" in text
    assert text.count("whale") == 1
    assert "1 x dog taken for <cat>" in text
    assert "1 x <cat> taken for dog" in text


def test_figures_of_terminal_and_page_are_computed_once(
    found: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(found, Console(file=io.StringIO()))
    monkeypatch.setattr("mrkd_ray.scores.class_report.figures", None)
    assert "6 clips of clips" in render(found, Path("results/x"))


def test_of_several_labels_there_are_classes_alone() -> None:
    truth = np.array([[1, 0], [1, 1], [0, 0]])
    scores = np.array([[0.9, 0.6], [0.4, 0.7], [0.2, 0.1]])
    known = {"a": Calibration(True)}
    found = Evaluation("clips", ("x", "y"), truth, {"a": scores}, known, np.zeros(3, bool), 0, 0)
    (row,) = found.report["models"]
    assert "confusion" not in row
    x, y = row["classes"]
    assert (x["precision"], x["recall"]) == (1.0, 0.5)
    assert (y["precision"], y["recall"], y["average_precision"]) == (0.5, 1.0, 1.0)
    assert "<svg" not in render(found, Path("results/x"))
