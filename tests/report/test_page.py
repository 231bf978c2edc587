"""The page says what the numbers say, holds all it needs, and is small."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mrkd_ray.common.files import write_json
from mrkd_ray.report import page
from mrkd_ray.report.figures import Figure, Section, embedding
from mrkd_ray.report.grid_results import GridResults, read_results
from mrkd_ray.report.paper_tables.tables import tables
from mrkd_ray.results import best as best_of_run
from mrkd_ray.results.best import Latency
from tests.report.fakes import TABLE6, fake_embed, fake_grid
from tests.results.test_models import weights


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    folder = tmp_path_factory.mktemp("grids") / "t6"
    return read_results(fake_grid(folder, reported="table6", dataset="<i>fake</i>"))


def test_the_page_is_the_same_each_time_and_escapes_what_it_is_given(results: GridResults) -> None:
    figure = Figure("one", "A <b> & c", "Caption", "<svg></svg>")
    sections = [Section("Some", (figure,)), Section("Missing", (), "There is no data set.")]
    text = page.render(results, sections, None)
    assert text == page.render(results, sections, None)
    assert "A &lt;b&gt; &amp; c" in text
    assert "<svg></svg>" in text
    assert "&lt;i&gt;fake&lt;/i&gt;" in text
    assert "<i>" not in text
    assert "There is no data set." in text


def test_nothing_is_loaded_and_nothing_runs(results: GridResults) -> None:
    text = page.render(results, [], None)
    assert not re.search(
        r"<script|\son\w+=|@import|url\(|<link(?! rel=\"icon\" href=\"data:,\")", text
    )
    assert "default-src 'none'" in text


def test_every_anchor_has_its_place_and_no_id_is_used_twice(results: GridResults) -> None:
    text = page.render(results, [Section("Some", (), "note")], None)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_it_begins_with_the_model_to_use(tmp_path: Path) -> None:
    folder = fake_grid(tmp_path / "g", pairings=TABLE6[:1], temperatures=(2,), gain=0.3)
    text = page.write(folder).read_text()
    assert "its weights are not in cells/ any more" in text
    assert "mrkd predict" not in text
    for path in (folder / "cells").iterdir():
        for name in path.name.split("_T2")[0].removeprefix("distilled_").split("+"):
            weights(folder, path.name, name, 1234567)
    text = page.write(folder).read_text()  # an older run has no best/: it is made
    best = best_of_run.read(folder)
    assert best is not None
    assert best.condition == "distilled"
    head = text[: text.index("<nav")]
    command = f"mrkd predict {folder / 'best'} FILE"
    for said in (best.model, best.score_text, "parameters", " MB", str(folder / "best"), command):
        assert said in head, said
    assert "fold 1, seed 0: the first run, not the luckiest" in head
    assert head.index(command) < head.index('class="finding"')
    latency = Latency(milliseconds=8.42, seconds=5.0, processor="a CPU")
    best_of_run.note_latency(folder, best, latency)
    text = page.write(folder).read_text()
    assert "8.4 ms for a clip of 5 s" in text
    assert "on one thread of a CPU" in text


def test_what_was_only_trained_alone_is_reported(tmp_path: Path) -> None:
    folder = fake_grid(tmp_path / "g", pairings=TABLE6[:2], alone=True, reported="table6")
    results = read_results(folder)
    assert page.summary(results) == (
        "2 cohorts of classifiers, each trained alone, on fake (5 classes), 6 epochs, "
        "2 folds × 1 seed."
    )
    assert page.findings(results.table) == ["Each branch was trained alone: nothing was distilled."]
    (table,) = tables(results)
    assert [box.text for box in table.head[1]] == ["independent", "independent"]
    assert "–" not in [box.text for group in table.groups for row in group for box in row]
    text = page.write(folder).read_text()
    first = results.alone[0].title
    for kind in ("Learning curves", "Confusion matrices", "Reliability"):
        assert f"{kind}: {first}" in text
    assert "distilled" not in text[text.index("Learning curves: ") : text.index("What was run<")]


def test_without_baselines_no_column_has_dashes_only(tmp_path: Path) -> None:
    folder = fake_grid(tmp_path / "g", pairings=TABLE6[:1], temperatures=(1, 2), independent=False)
    (table,) = tables(read_results(folder))
    assert [box.text for box in table.head[0]] == ["Model", "T", "Accuracy", "mAP@3"]
    assert [box.text for box in table.head[1]] == ["distilled", "distilled"]
    assert table.columns == 4
    assert "–" not in [box.text for group in table.groups for row in group for box in row]


def test_findings_count_the_comparisons(results: GridResults) -> None:
    table = results.table.copy()
    table[["accuracy_difference_low", "accuracy_difference_high"]] = (-1.0, 1.0)
    table["accuracy_difference"] = 0.5
    branches = table.index[~table["model"].isin(("ensemble", "best branch"))]
    table.loc[branches[:3], "accuracy_difference_low"] = 0.1
    table.loc[branches[3:4], "accuracy_difference_high"] = -0.1
    assert page.findings(table)[0] == (
        "The accuracy of a distilled branch, beside the same branch trained alone, is "
        "significantly higher in 3 of 18 comparisons, significantly lower in 1, "
        "not significantly different in 14 (+0.5 points on average)."
    )
    assert "With one seed" in page.findings(table)[-1]
    assert "about one misses" not in page.findings(table)[-1]
    assert "share baselines" in page.findings(table)[-1]
    several = table.assign(paired_runs=4, seeds=2)  # of 2 folds
    assert "With one seed" not in page.findings(several)[-1]
    assert "about one misses" in page.findings(several)[-1]
    table["paired_runs"] = 0
    assert "nobody knows what teaching changed" in page.findings(table)[0]


def test_summary_and_facts(results: GridResults) -> None:
    summary = page.summary(results)
    assert summary.startswith("3 cohorts of classifiers that teach each other, at temperatures 1, ")
    assert "(5 classes), 6 epochs, 2 folds × 1 seed; each" in summary
    facts = {fact.name: fact.value for fact in page.facts(results)}
    assert facts["Cells"] == "28 trained here"  # 2 folds of 5 branches alone, and 3 cohorts x 3
    assert facts["Wall time"] == "28 min 0 s, the sum over cells"
    assert results.environment["commit"] in facts["Commit"]


def test_an_unfinished_grid_says_how_much_is_missing(results: GridResults) -> None:
    assert page.unfinished(results) == ""
    tidy = results.tidy
    run = (tidy["fold"] == 1) & (tidy["seed"] == 0)
    at = (tidy["cohort"] == tidy["cohort"].iloc[-1]) & (tidy["temperature"] == 4)
    alone = (tidy["branch"] == "cqt-vgg_small") & (tidy["condition"] == "independent")
    less = replace(results, tidy=tidy[~(run & (at | alone))])
    missing = "Unfinished: 1 of 18 distilled runs and 1 of 10 independent runs are missing"
    assert missing in page.summary(less)
    asked = {**results.config, "seeds": [0, 1], "independent": False}
    assert "18 of 36 distilled runs are" in page.unfinished(replace(results, config=asked))


def test_variants_are_said_and_counted(tmp_path: Path) -> None:
    variants = {"one": {}, "two": {"kl_weight": 2, "cycles": 4}}
    folder = fake_grid(tmp_path, pairings=TABLE6[:1], temperatures=(2,), variants=variants)
    results = read_results(folder)
    summary = page.summary(results)
    assert "1 cohort of classifiers that teach each other, in 2 variants of the method, " in summary
    assert "6 to 8 epochs" in summary
    assert "Unfinished" not in summary
    less = replace(results, tidy=results.tidy[results.tidy["variant"] == "one"])
    assert "2 of 4 distilled runs and 4 of 8 independent runs are" in page.unfinished(less)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"label_noise": 0.2}, ", with 20 % of the training clips given a wrong label"),
        ({"labelled": 0.3}, ", with 30 % of the training clips' labels"),
        ({"unlabelled": "more"}, ", with unlabelled clips of more"),
        ({}, " epochs, 1 fold × 1 seed; each"),
        (
            {"early_stop": 2, "held_out": 0.1, "cycles": 4},
            "4 to 8 epochs, 1 fold × 1 seed; each branch also trained alone with the same "
            "schedule, stopped early by the same clips.",
        ),
    ],
)
def test_labels_that_are_wrong_or_lack_are_said(
    tmp_path: Path, asked: dict[str, object], said: str
) -> None:
    folder = fake_grid(tmp_path / "g", temperatures=(2,), folds=(1,), **asked)
    assert said in page.summary(read_results(folder))


def test_cells_of_other_grids_are_told_apart(tmp_path: Path) -> None:
    folder = fake_grid(tmp_path / "g", pairings=TABLE6[:1], temperatures=(2,), folds=(1, 2))
    made = {"commit": "abc", "date": "2026-01-31T12:00:00+00:00"}
    for cell in sorted((folder / "cells").glob("independent_*fold1*")):
        write_json(cell / "environment.json", made)
    facts = {fact.name: fact.value for fact in page.facts(read_results(folder))}
    assert facts["Cells"] == (
        "4 trained here, 2 taken over from other grids "
        "(made at commit abc on 2026-01-31 12:00:00 UTC)"
    )
    assert facts["Wall time"] == "4 min 0 s, the sum over cells; of those taken over 2 min 0 s"


def test_a_grid_of_two_environments_names_both(results: GridResults) -> None:
    both = {"date": "2026-01-31T12:00:00+00:00, 2026-02-01T12:00:00+00:00", "gpus": "none, A, B"}
    joined = replace(results, environment={**results.environment, **both})
    facts = {fact.name: fact.value for fact in page.facts(joined)}
    assert facts["Date"] == "2026-01-31 12:00:00 UTC, 2026-02-01 12:00:00 UTC"
    assert facts["GPUs"] == "none, A, B"


def test_the_command_writes_the_page_and_prints_its_path(tmp_path: Path) -> None:
    folder = fake_grid(tmp_path / "g", pairings=("cqt:vgg_small",), temperatures=(2,), folds=(1,))
    command = [str(Path(sys.executable).with_name("mrkd")), "report"]
    env = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([*command, folder], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout.strip()) == (0, str(folder / "report.html")), done.stderr
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    (folder / "results.csv").unlink()
    for wrong in (folder, tmp_path / "nowhere"):
        done = subprocess.run([*command, wrong], capture_output=True, text=True, env=env)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {wrong}")
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_large_grid_stays_below_5_mb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "embed", fake_embed)
    folder = fake_grid(
        tmp_path, reported="table6", folds=(1, 2, 3, 4, 5), seeds=(0, 1), classes=50, clips=100
    )
    assert page.write(folder).stat().st_size < 5e6


@pytest.mark.slow
def test_as_many_and_as_large_cohorts_as_are_drawn_stay_below_5_mb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "embed", fake_embed)
    networks = ("resnet_small", "vgg_small", "resnet18")
    pairings = tuple(
        f"logmel64:{a}+mfcc:{b}+cqt:{c}" for a in networks for b in networks for c in networks
    )[:9]
    folder = fake_grid(
        tmp_path / "g", pairings=pairings, temperatures=(2,), folds=(1,), classes=50, clips=490
    )
    assert page.write(folder).stat().st_size < 5e6


HOSTILE = (
    "<script>alert(1)</script>",
    "$x^{",
    '"><img src=x onerror=alert(2)>',
    "&lt;b&gt;",
    "=1+1",
)


def test_hostile_names_of_classes_and_data_are_shown_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "embed", fake_embed)
    folder = fake_grid(
        tmp_path / "g",
        pairings=TABLE6[:1],
        temperatures=(2,),
        folds=(1,),
        classes=HOSTILE,
        dataset=HOSTILE[0],
    )
    text = page.write(folder).read_text()
    assert not re.search(r"<script|<img|<b>", text)
    for name in HOSTILE:
        assert html.escape(name, quote=False) in text or html.escape(name) in text
