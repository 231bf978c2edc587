"""What `experiments/studies/reasons.py` prints of a grid."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from experiments.studies import reasons
from mrkd_ray.report import grid_results
from mrkd_ray.report.curves import agreements
from mrkd_ray.scores import calibration
from mrkd_ray.scores.comparison import Model
from tests.report.fakes import fake_grid

PAIRING = "logmel64:resnet_small+cqt:vgg_small"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    variants = {"clean": {}, "noise": {"label_noise": 0.3}}
    return fake_grid(tmp_path / "g", cohorts=(PAIRING,), temperatures=(2,), variants=variants)


def printed_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, list[str]]]:
    """The figures of each table, by the name of their row."""
    monkeypatch.setattr(sys, "argv", ["reasons.py", str(folder)])
    monkeypatch.setenv("COLUMNS", "120")
    reasons.main()
    tables = capsys.readouterr().out.split("┡")[1:]
    rows = [[line.strip("│").split("│") for line in t.splitlines() if "│" in line] for t in tables]
    return [{name.strip(): [v.strip() for v in values] for name, *values in t} for t in rows]


def test_figures_of_every_cohort_are_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Three cycles, of which the first one warmed up: no teacher, so no entropy.
    for file in folder.glob("cells/distilled_*/history.csv"):
        history = pd.read_csv(file)
        history.loc[history["cycle"] == 0, "teacher_entropy"] = float("nan")
        history.to_csv(file, index=False)
    results = grid_results.read_results(folder)
    printed = printed_of(folder, monkeypatch, capsys)
    assert len(printed) == len(results.cohorts) == 2
    for cohort, rows in zip(results.cohorts, printed, strict=True):
        both = [results.conditions(cohort, name) for name in cohort.branches]
        for name, models in zip(cohort.branches, both, strict=True):
            assert rows[f"{name}: calibration error, %"] == [
                f"{100 * calibration.pooled(models[kind]).ece:.1f}"
                for kind in ("independent", "distilled")
            ]
        agreement = agreements(results, cohort)
        assert rows["agreement on test clips, %"] == [
            f"{100 * agreement[kind][:, -1].mean():.1f}" for kind in ("independent", "distilled")
        ]
        for text, measure in reasons.MEASURES.items():
            assert rows[text] == [
                f"{reasons.between([models[kind] for models in both], measure):.2f}"
                for kind in ("independent", "distilled")
            ]
        assert rows["teacher's entropy, first and last cycle"] == ["", "2.00, 1.00"]


def test_only_runs_that_all_branches_have_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = printed_of(folder, monkeypatch, capsys)
    tidy = pd.read_csv(folder / "results.csv")
    alone = (tidy["condition"] == "independent") & (tidy["branch"] == "cqt-vgg_small")
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    tidy[~(alone & (tidy["fold"] == 2))].to_csv(folder / "results.csv", index=False)
    part = printed_of(folder, monkeypatch, capsys)
    assert all(len(rows["correlation of their errors"]) == 2 for rows in part)
    assert part != whole
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    tidy[~alone].to_csv(folder / "results.csv", index=False)
    for rows in printed_of(folder, monkeypatch, capsys):
        assert len(rows["correlation of their errors"]) == 1  # distilled alone


@pytest.mark.parametrize("measure", reasons.MEASURES.values())
def test_branches_that_are_the_same_have_1(
    measure: Callable[[Model, Model], float], folder: Path
) -> None:
    results = grid_results.read_results(folder)
    cohort = results.cohorts[0]
    one, other = (results.conditions(cohort, name)["distilled"] for name in cohort.branches)
    assert reasons.between([one, one], measure) == pytest.approx(1)
    assert abs(reasons.between([one, other], measure)) < 0.5


def test_a_folder_without_results_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder)
    with pytest.raises(SystemExit, match="no such folder"):
        printed_of(folder, monkeypatch, capsys)
