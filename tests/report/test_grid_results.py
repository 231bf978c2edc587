"""A grid's folder is read back as it was written, and what is missing is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.report import page
from mrkd_ray.report.grid_results import read_results
from mrkd_ray.report.paper_tables import tables
from mrkd_ray.scores import comparison, metrics
from tests.report.fakes import fake_grid

BRANCHES = ("logmel64-resnet_small", "cqt-vgg_small")
PAIRING = "logmel64:resnet_small+cqt:vgg_small"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fake_grid(tmp_path / "g", pairings=(PAIRING,), temperatures=(1, 3, 8), folds=(1, 2))


def test_a_cohort_is_shown_at_the_temperature_nearest_to_2_whatever_it_scored(folder: Path) -> None:
    (cohort,) = read_results(folder).cohorts
    assert (cohort.name, cohort.temperature, cohort.branches) == (PAIRING, 1, BRANCHES)
    assert cohort.models == (*BRANCHES, "ensemble")
    assert cohort.specs == [("logmel64", "resnet_small"), ("cqt", "vgg_small")]


def test_models_are_paired_by_run_and_have_the_scores_of_results_csv(folder: Path) -> None:
    results = read_results(folder)
    (cohort,) = results.cohorts
    for name in cohort.models:
        pairs = results.pairs(cohort, name)
        assert [(p.distilled.fold, p.distilled.seed) for p in pairs] == [(1, 0), (2, 0)]
        for pair in pairs:
            assert pair.independent.clip_ids == pair.distilled.clip_ids
            for model in (pair.independent, pair.distilled):
                rows = results.tidy[
                    (results.tidy["cell"] == model.cell)
                    & (results.tidy["branch"] == ("" if name == "ensemble" else name))
                    & (results.tidy["fold"] == model.fold)
                ]
                expected = metrics.accuracy(model.probabilities, model.labels)
                if name == "ensemble" or model.condition == "distilled":
                    assert rows["accuracy"].tolist() == pytest.approx([expected])
                assert model.probabilities.shape == (30, 5)
    assert results.classes == tuple(f"class {i}" for i in range(5))


def test_each_variant_is_a_cohort_with_its_own_control(tmp_path: Path) -> None:
    variants = {"2": {}, "mixed": {"mixup": 1, "temperatures": 4}}
    results = read_results(
        fake_grid(tmp_path, pairings=(PAIRING,), temperatures=(1,), variants=variants)
    )
    plain, mixed = results.cohorts
    assert (plain.variant, plain.temperature) == ("2", 1)  # a name, though it looks like a number
    assert (mixed.variant, mixed.temperature) == ("mixed", 4)
    assert mixed.title.endswith("cqt:vgg_small, mixed, T = 4")
    for name in (*BRANCHES, "ensemble"):
        one, other = (results.pairs(cohort, name)[0] for cohort in (plain, mixed))
        assert (one.independent.probabilities != other.independent.probabilities).any()
        for cohort, pair in ((plain, one), (mixed, other)):
            rows = results.table[results.table["variant"] == cohort.variant].set_index("model")
            found = comparison.difference(
                results.pairs(cohort, name), comparison.terms(metrics.SINGLE_LABEL[0])
            )
            assert rows.loc[name, "accuracy_difference"] == pytest.approx(found.mean)
            assert pair.distilled.cell.startswith("distilled")


def test_the_independent_ensemble_is_the_mean_of_its_branches(folder: Path) -> None:
    results = read_results(folder)
    (cohort,) = results.cohorts
    members = [results.independent(cohort, name)[1, 0].probabilities for name in BRANCHES]
    ensemble = results.independent(cohort, "ensemble")[1, 0]
    assert np.allclose(ensemble.probabilities, (members[0] + members[1]) / 2)


def test_what_is_missing_is_named_with_the_way_to_mend_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_results(tmp_path / "nowhere")
    cell = next((folder / "cells").glob("distilled*_T3_*"))
    (cell / "predicted.npy").unlink()
    with pytest.raises(UserError, match=rf"(?s)1 file.*--resume.*{re.escape(cell.name)}/pred"):
        read_results(folder)
    (folder / "results.csv").unlink()
    with pytest.raises(UserError, match=r"not finished a cohort yet.*--resume"):
        read_results(folder)


def older(folder: Path) -> Path:
    """Make a folder one of an earlier version, which wrote no sums."""
    (folder / manifest.NAME).unlink()
    return folder


def test_a_grid_without_a_finished_cohort_is_refused(folder: Path) -> None:
    older(folder)
    (folder / "table.csv").write_text("\n")
    with pytest.raises(UserError, match="not finished a cohort"):
        read_results(folder)


def test_a_table_of_an_older_version_is_refused_with_the_way_to_mend_it(folder: Path) -> None:
    path = older(folder) / "table.csv"
    pd.read_csv(path).drop(columns=["folds", "seeds", "epochs"]).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"table\.csv.*epochs, folds, seeds.*run the grid again"):
        read_results(folder)


def test_a_table_without_marks_is_marked_all_the_same(folder: Path) -> None:
    results = read_results(older(folder))
    path = folder / "table.csv"
    table = pd.read_csv(path)
    marks = [name for name in table if name.endswith("_mark")]
    assert len(marks) == 8
    table.drop(columns=marks).to_csv(path, index=False)
    without = read_results(folder)
    assert page.findings(without.table) == page.findings(results.table)
    assert tables.tables(without) == tables.tables(results)


def test_names_may_look_like_numbers(tmp_path: Path) -> None:
    folder = fake_grid(
        tmp_path / "2018", pairings=(PAIRING,), temperatures=(2,), dataset="2018", reported="table6"
    )
    results = read_results(folder)
    assert set(results.tidy["dataset"]) == set(results.tidy["grid"]) == {"2018"}
    assert "2018" in page.summary(results)
    assert "2018, not" in tables.tables(results)[0].warnings[0]


def test_classes_and_clips_may_have_names_that_look_like_no_value(tmp_path: Path) -> None:
    folder = fake_grid(tmp_path / "g", pairings=(PAIRING,), temperatures=(2,), folds=(1,))
    for path in (folder / "cells").glob("*/predictions.csv"):
        path.write_text(path.read_text().replace("class 0", "nan").replace("1-0,", "NA,"))
    results = read_results(folder)
    (pair,) = results.pairs(results.cohorts[0], BRANCHES[0])
    assert results.classes[0] == "nan"
    assert pair.distilled.clip_ids[0] == "NA"
