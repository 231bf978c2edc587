"""What `experiments/studies/by_seed.py` prints of a grid with several seeds."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.studies import by_seed
from tests.experiments.studies.printed import figures, rows
from tests.report.fakes import fake_grid

PAIRING = "logmel64:resnet_small+cqt:vgg_small"
MODELS = ("logmel64-resnet_small", "cqt-vgg_small", "ensemble")


def printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, list[float]]]:
    """Of each score and row, mean, low and high of every model, one model after the other."""
    monkeypatch.setattr(sys, "argv", ["by_seed.py", str(folder)])
    monkeypatch.setenv("COLUMNS", "120")
    by_seed.main()
    texts = capsys.readouterr().out.split(", T = 1, ")[1:]
    assert [text.split("\n")[0] for text in texts] == ["accuracy", "mAP@3"]
    return [{name: figures(values) for name, values in rows(text).items()} for text in texts]


def test_each_seed_is_what_a_grid_of_it_alone_would_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"pairings": (PAIRING,), "temperatures": (1,), "folds": (1, 2)}
    folder = fake_grid(tmp_path / "g", seeds=(3, 5), **asked)
    found, of_map3 = printed(folder, monkeypatch, capsys)
    assert list(found) == ["3", "5", "all"]
    tidy = pd.read_csv(folder / "results.csv")
    tidy["name"] = tidy["branch"].fillna("ensemble")
    means = tidy.pivot_table("accuracy", ["seed", "name"], "condition")
    gains = 100 * (means["distilled"] - means["independent"])
    for seed in (3, 5):
        assert found[str(seed)][::3] == pytest.approx([gains[seed, m] for m in MODELS], abs=0.051)
    assert found["3"] != found["5"]
    table = pd.read_csv(folder / "table.csv").set_index("model")
    columns = [f"accuracy_difference{end}" for end in ("", "_low", "_high")]
    of_all = [table.loc[name, column] for name in MODELS for column in columns]
    assert found["all"] == pytest.approx(of_all, abs=0.051)
    gained = [table.loc[name, "map3_difference"] for name in MODELS]
    assert of_map3["all"][::3] == pytest.approx(gained, abs=0.051)


def test_a_folder_that_is_no_grids_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="no such folder"):
        printed(tmp_path / "lost", monkeypatch, capsys)
