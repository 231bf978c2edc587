"""What `experiments/studies/versus.py` prints of two variants of a grid."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.studies import versus
from tests.experiments.studies.printed import figures, rows
from tests.report.fakes import fake_grid

PAIRING = "logmel64:resnet_small+cqt:vgg_small"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    variants = {"one": {"kl_weight": 2}, "other": {}}
    seeds = (0, 1)
    return fake_grid(
        tmp_path / "g", cohorts=(PAIRING,), temperatures=(2,), variants=variants, seeds=seeds
    )


def printed(
    folder: Path,
    variants: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> dict[str, list[float]]:
    """The figures of each model: both scores, the difference and its interval."""
    monkeypatch.setattr(sys, "argv", ["versus.py", str(folder), *variants])
    monkeypatch.setenv("COLUMNS", "120")
    versus.main()
    text = capsys.readouterr().out
    seeds = text.count("95 % intervals: bootstrap over clips and seeds, paired;")
    assert seeds == len(text.split("┡")[1:])  # below every table
    return {name: figures(values) for name, values in rows(text).items()}


def test_differences_are_of_the_distilled_models_and_turn_with_the_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(folder / "table.csv").set_index(["variant", "model"])
    there = printed(folder, ("one", "other"), monkeypatch, capsys)
    back = printed(folder, ("other", "one"), monkeypatch, capsys)
    assert list(there) == ["logmel64-resnet_small", "cqt-vgg_small", "ensemble"]
    for name, (one, other, gain, low, high) in there.items():
        assert one == pytest.approx(table.loc[("one", name), "accuracy_distilled"], abs=0.051)
        assert other == pytest.approx(table.loc[("other", name), "accuracy_distilled"], abs=0.051)
        assert gain == pytest.approx(one - other, abs=0.11)
        assert low <= gain <= high
        assert back[name][:3] == pytest.approx([other, one, -gain])
    assert any(gain for _, _, gain, _, _ in there.values())


def test_only_runs_that_both_have_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tidy = pd.read_csv(folder / "results.csv")
    lost = (tidy["variant"] == "other") & (tidy["fold"] == 2) & (tidy["condition"] == "distilled")
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    tidy[~lost].to_csv(folder / "results.csv", index=False)
    rest = tidy[(tidy["variant"] == "one") & (tidy["fold"] == 1)]
    expected = rest[rest["condition"] == "distilled"].groupby("branch")["accuracy"].mean()
    found = printed(folder, ("one", "other"), monkeypatch, capsys)
    assert found["cqt-vgg_small"][0] == pytest.approx(100 * expected["cqt-vgg_small"], abs=0.051)


def test_an_unknown_variant_is_one_line_that_names_those_there_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="no finished variant 'tow'; it has one, other"):
        printed(folder, ("one", "tow"), monkeypatch, capsys)


def test_one_variant_twice_compares_its_pairings_by_the_branches_in_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "mfcc:resnet_small+cqt:vgg_small"
    folder = fake_grid(
        tmp_path / "g",
        cohorts=(PAIRING, other, "mfcc:vgg_small+cqt:resnet_small"),
        temperatures=(2,),
        variants={"one": {}},
        seeds=(0, 1),
    )
    shown = printed(folder, ("one", "one"), monkeypatch, capsys)
    assert list(shown) == ["cqt-vgg_small", "ensemble"]
    table = pd.read_csv(folder / "table.csv").set_index(["cohort", "model"])
    for name, (first, second, *_) in shown.items():
        assert first == pytest.approx(table.loc[(PAIRING, name), "accuracy_distilled"], abs=0.051)
        assert second == pytest.approx(table.loc[(other, name), "accuracy_distilled"], abs=0.051)
