"""What `experiments/studies/calibration_error.py` prints of a grid's branches."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from experiments.studies import calibration_error
from mrkd_ray.inference.classifier import Classifier


def test_the_error_of_each_branch(
    taught_cell: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = taught_cell.parents[1]
    monkeypatch.setattr(sys, "argv", ["calibration_error.py", str(grid)])
    monkeypatch.setenv("COLUMNS", "160")
    calibration_error.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert len(rows) == 2
    for row in rows:
        name, runs, clips, before, after, fell, temperature = row.split("│")[2:-1]
        known = Classifier.load(taught_cell / "branches" / name.strip(), "cpu").calibration
        assert known.ece is not None
        assert (int(runs), int(clips)) == (1, known.clips)
        assert [float(before), float(after)] == [round(100 * each, 1) for each in known.ece]
        assert fell.strip() == f"{int(known.ece[1] < known.ece[0])} of 1"
        assert float(temperature) == round(known.temperature, 2)
