"""What `experiments/studies/beside.py` prints of models of two grids."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.studies import beside
from tests.report.fakes import fake_grid

PAIRING = "logmel64:resnet_small+cqt:vgg_small"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    grids = [
        fake_grid(tmp_path / name, cohorts=(PAIRING,), temperatures=(2,), seeds=(0, 1))
        for name in ("a", "b")
    ]
    return str(grids[0]), str(grids[1])


def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    monkeypatch.setattr(sys, "argv", ["beside.py", *arguments])
    monkeypatch.setenv("COLUMNS", "160")
    beside.main()
    return capsys.readouterr().out


def test_any_two_models_are_paired(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(Path(folders[0]) / "table.csv").set_index("model")
    one = [folders[0], "-", "distilled", "cqt-vgg_small"]
    other = [folders[1], "-", "independent", "logmel64-resnet_small"]
    text = printed(monkeypatch, capsys, *one, *other)
    (row,) = [line for line in text.splitlines() if " less " in line and "│" in line]
    scores = [float(cell) for cell in row.split("│")[2:4]]
    expected = [
        table.loc["cqt-vgg_small", "accuracy_distilled"],
        table.loc["logmel64-resnet_small", "accuracy_independent"],
    ]
    assert scores == pytest.approx(expected, abs=0.051)
    assert "bootstrap" in text
    assert "seeds [0, 1]" in text
    few = printed(monkeypatch, capsys, *one, *other, "--folds", "1")
    assert "folds [1]" in few


def test_a_model_that_is_not_there_is_named(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["-", "distilled", "mfcc-vgg_small"]
    with pytest.raises(SystemExit, match="no finished distilled mfcc-vgg_small"):
        printed(monkeypatch, capsys, folders[0], *wanted, folders[1], *wanted)
