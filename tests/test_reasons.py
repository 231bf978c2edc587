"""What `experiments/reasons.py` prints of a grid."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from report.fakes import fake_grid

from experiments import reasons
from mrkd_ray.report import analysis, measured

PAIRING = "logmel64:resnet_small+cqt:vgg_small"


def test_figures_of_every_cohort_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = {"clean": {}, "noise": {"label_noise": 0.3}}
    folder = fake_grid(tmp_path / "g", pairings=(PAIRING,), temperatures=(2,), variants=variants)
    monkeypatch.setattr(sys, "argv", ["reasons.py", str(folder)])
    monkeypatch.setenv("COLUMNS", "120")
    reasons.main()
    printed = capsys.readouterr().out
    results = measured.read(folder)
    for cohort in results.cohorts:
        assert f"{cohort.variant}, T = 2" in printed
        for name in cohort.branches:
            pair = results.conditions(cohort, name)
            values = [f"{100 * analysis.pooled(pair[kind]).ece:.1f}" for kind in pair]
            line = printed.split(f"{cohort.variant}, T = 2")[1].split(f"{name}: ")[1]
            assert [word for word in line.splitlines()[0].split() if word in values] == values
    assert printed.count("0.50, 0.50") == 2  # the entropy of the made-up teachers


def test_branches_that_err_on_the_same_clips_have_correlation_1(tmp_path: Path) -> None:
    folder = fake_grid(tmp_path / "g", pairings=(PAIRING,), temperatures=(2,))
    results = measured.read(folder)
    (cohort,) = results.cohorts
    one, other = (results.conditions(cohort, name)["distilled"] for name in cohort.branches)
    assert reasons.correlation([one, one]) == pytest.approx(1)
    assert abs(reasons.correlation([one, other])) < 0.5
    assert not np.isnan(reasons.correlation([one, other]))
