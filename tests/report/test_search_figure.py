"""The report's figure of a search."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mrkd_ray.report.figures import search, style
from mrkd_ray.scores.metrics import SINGLE_LABEL


@pytest.fixture
def results(tmp_path: Path) -> Any:
    (tmp_path / "search.csv").write_text(
        "sample,state,score,part,cell,cohort,lr,temperature\n"
        "1,finished,60.0,100.0,a,x:y,0.1,1.0\n"
        "2,stopped,40.0,50.0,b,x:y,0.001,2.0\n"
        "3,waiting,,0.0,c,x:y,0.01,2.0\n"
    )
    for cell, cycles in (("a", 4), ("b", 2)):
        folder = tmp_path / "cells" / cell
        folder.mkdir(parents=True)
        rows = [f"{cycle},{name},{0.1 * (cycle + 1)}" for cycle in range(cycles) for name in "pq"]
        (folder / "history.csv").write_text("\n".join(["cycle,branch,accuracy", *rows, ""]))
        np.save(folder / "predicted.npy", np.zeros((cycles, 2, 3), np.int16))
    return SimpleNamespace(folder=tmp_path, metrics=SINGLE_LABEL)


def test_the_best_sample_and_what_was_stopped_are_told_apart(results: Any) -> None:
    with style.look():
        drawn = search.figure(results, "search")
    assert drawn is not None
    assert "2 samples, 1 of them run to the end" in drawn.caption
    assert "sample 1: cohort x:y, lr 0.1, temperature 1.0" in drawn.caption
    assert drawn.svg.count("<svg") == 3  # courses, learning rate, temperature: cohorts are alike


def test_a_stopped_sample_ends_where_it_was_stopped(results: Any) -> None:
    rows = search.read_rows(results.folder / "search.csv", search.FIXED)[:2]
    (axes,) = search.courses(results, rows, rows[0]).axes
    ends = sorted(float(line.get_xdata()[-1]) for line in axes.lines)
    assert ends == [50.0, 100.0]
    heights = sorted(float(line.get_ydata()[-1]) for line in axes.lines)
    assert heights == pytest.approx([20.0, 40.0])


def test_a_grid_has_no_such_figure(tmp_path: Path) -> None:
    assert search.figure(SimpleNamespace(folder=tmp_path), "search") is None  # type: ignore[arg-type]
