"""`best/`: what a run recommends, as a model that everything takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mrkd_ray.cells.cell import Cell, independent_cell, with_baselines
from mrkd_ray.cells.files import read_predictions
from mrkd_ray.common import manifest
from mrkd_ray.common.arrays import Float32
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.datasets.checking.scan import digest
from mrkd_ray.grid.run import run, train
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.evaluate import evaluate
from mrkd_ray.inference.model_folder import TRAINED_ON, read_size
from mrkd_ray.results import best as best_of_run
from mrkd_ray.results.best import Latency
from mrkd_ray.results.compare import compare, read_kinds
from mrkd_ray.results.gather import Results, gather
from tests.conftest import FAST, make_cell
from tests.results.test_gather import NAMES, TWO, fake
from tests.results.test_models import weights
from tests.test_architecture import loaded

CLIPS = [f"1-{i}" for i in range(8)]
TEST_CLIP = "00.wav"  # of fold 1


def hits(count: int) -> list[bool]:
    return [i < count for i in range(len(CLIPS))]


def finished(folder: Path, alone: tuple[int, int], taught: tuple[int, int]) -> list[Cell]:
    """A cohort and its baselines, with weights, whose branches hit so many of eight clips."""
    cell = make_cell(*TWO)
    baselines = [independent_cell(n, cell, device="cpu", content="test") for n in cell.names]
    cell = with_baselines(cell, baselines)
    for each, count in zip(baselines, alone, strict=True):
        fake(folder, each, CLIPS, {each.names[0]: hits(count)})
        weights(folder, each.key, each.names[0], 100)
    both = {name: hits(count) for name, count in zip(cell.names, taught, strict=True)}
    fake(folder, cell, CLIPS, {**both, "ensemble": hits(min(taught))})
    for name in cell.names:
        weights(folder, cell.key, name, 100)
    return [*baselines, cell]


def test_gathering_points_it_at_the_best_model_each_time(tmp_path: Path) -> None:
    made = finished(tmp_path, alone=(4, 6), taught=(5, 3))
    found = gather(tmp_path, "g", made)
    assert found.best is not None
    assert found.best.model == "cqt:vgg_small, independent"
    assert found.best.cells == {NAMES[1]: made[1].key}
    assert (found.best.scores["accuracy"], found.best.runs) == (0.75, 1)
    assert (found.best.parameters, found.best.deviations["accuracy"]) == (100, None)
    assert best_of_run.read(tmp_path) == found.best
    assert found.best_folder == tmp_path / "best"
    assert [path.name for path in (tmp_path / "best" / "branches").iterdir()] == [NAMES[1]]
    finished(tmp_path, alone=(4, 6), taught=(7, 3))  # as a resumed run may find
    again = gather(tmp_path, "g", made).best
    assert again is not None
    assert again.model == f"{TWO[0]}, distilled at T = 2 in {TWO[0]} + {TWO[1]}"
    assert [path.name for path in (tmp_path / "best" / "branches").iterdir()] == [NAMES[0]]
    assert not list(tmp_path.glob(".best*"))


def test_what_was_measured_of_the_same_networks_is_kept(tmp_path: Path) -> None:
    made = finished(tmp_path, alone=(4, 6), taught=(5, 3))
    best = gather(tmp_path, "g", made).best
    assert best is not None
    latency = Latency(milliseconds=3.0, seconds=5.0, processor="a CPU")
    best_of_run.note_latency(tmp_path, best, latency)
    again = gather(tmp_path, "g", made).best
    assert again == replace(best, latency=latency)
    finished(tmp_path, alone=(7, 6), taught=(5, 3))
    other = gather(tmp_path, "g", made).best
    assert other is not None
    assert other.latency is None


def test_it_stays_where_weights_were_deleted(tmp_path: Path) -> None:
    made = finished(tmp_path, alone=(4, 6), taught=(5, 3))
    gather(tmp_path, "g", made)
    for path in (tmp_path / "cells").glob("*/branches/*/model.safetensors"):
        path.unlink()
    best = gather(tmp_path, "g", made).best
    assert best is not None
    assert best.bytes is None
    assert "not in cells/ any more" in best.text
    assert read_size(tmp_path / "best" / "branches" / NAMES[1]).parameters == 100


def test_one_that_is_no_model_of_the_run_or_damaged_is_made_anew(tmp_path: Path) -> None:
    made = finished(tmp_path, alone=(4, 6), taught=(5, 3))
    expected = gather(tmp_path, "g", made).best
    kinds = read_kinds(tmp_path)
    facts = tmp_path / "best" / "best.json"
    whole = json.loads(facts.read_text())
    for text in ("{", "[]", json.dumps({**whole, "cells": {NAMES[1]: "of_another_run"}})):
        facts.write_text(text)
        assert best_of_run.current(tmp_path, kinds) == expected
    facts.write_text(json.dumps({**whole, "chosen_by": "size"}))  # the user's choice
    chosen = best_of_run.current(tmp_path, kinds)
    assert chosen is not None
    assert chosen.chosen_by == "size"


def test_the_end_of_a_run_loads_no_torch(tmp_path: Path) -> None:
    gather(tmp_path, "g", finished(tmp_path, alone=(4, 6), taught=(5, 3)))
    code = (
        "from pathlib import Path; from mrkd_ray.results import best, compare\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "assert best.recommend(folder, compare.read_kinds(folder)).parameters == 100\n"
    )
    assert loaded(code, ("torch", "ray")) == []


# A real run ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def options(clips: Path, cache: Path) -> dict[str, Any]:
    fields = {**FAST, "cycles": 1, "data": str(clips), "cache": cache, "runner": "local"}
    return {name: value for name, value in fields.items() if name != "temperatures"}


@pytest.fixture(scope="module")
def trained(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two branches on two folds, alone and as a cohort."""
    output = tmp_path_factory.mktemp("results")
    fields = {name: value for name, value in options.items() if name != "temperature"}
    asked = {**fields, "cohorts": ["logmel64:vgg_small+cqt:vgg_small"], "output": output}
    return run(parse(GridConfig, asked, "test"), console=Console(quiet=True))


def test_every_model_of_a_run_can_be_the_best_one_and_predicts_as_in_training(
    trained: Results, clips: Path
) -> None:
    folder = trained.folder
    assert best_of_run.read(folder) == trained.best
    kinds = read_kinds(folder)
    assert len(kinds) == 2 * 3
    for kind in kinds:
        best_of_run.point(folder, best_of_run.facts(folder, kind, "accuracy"))
        classifier = Classifier.load(folder / "best")
        assert sorted(classifier.names) == sorted(kind.branches)
        mean = np.mean(list(_predicted(folder, kind.cells[1, 0], kind.branches)), axis=0)
        found = classifier.predict(clips / TEST_CLIP).branches.mean(axis=0)
        np.testing.assert_allclose(found, mean, atol=1e-5)
    best_of_run.recommend(folder, kinds)


def _predicted(folder: Path, cells: Iterable[str], names: Iterable[str]) -> Iterator[Float32]:
    for cell, name in zip(cells, names, strict=True):
        clip_ids, _, scores = read_predictions(folder / "cells" / cell)
        yield scores[name][clip_ids.index(TEST_CLIP)]


def test_it_is_scored_on_clips_that_no_member_has_seen(
    trained: Results, clips: Path, cache: Path
) -> None:
    folder = trained.folder
    kinds = read_kinds(folder)
    (ensemble,) = (k for k in kinds if k.is_ensemble and k.condition == "independent")
    best_of_run.point(folder, best_of_run.facts(folder, ensemble, "accuracy"))
    members = sorted((folder / "best" / "branches").iterdir())
    other = members[0] / TRAINED_ON  # as if one member had seen a test clip
    seen = set(members[1].joinpath(TRAINED_ON).read_text().split())
    report = evaluate(folder / "best", str(clips), cache).report
    assert (report["clips"], report["trained_on"]) == (12, 12)
    assert [row["model"] for row in report["models"]][-1] == "ensemble"
    main = ensemble.scores[1, 0][0]
    assert report["models"][-1]["accuracy"] == pytest.approx(main)
    clip = digest(clips / TEST_CLIP)
    assert clip not in seen
    text = other.read_text()
    other.unlink()  # a hard link: the cell's file stays as it is
    other.write_text(f"{text}{clip}\n")
    (members[0] / manifest.NAME).unlink()
    manifest.write(members[0])
    assert len(evaluate(folder / "best", str(clips), cache).truth) == 11
    best_of_run.recommend(folder, kinds)


def test_branches_are_trained_alone(options: dict[str, Any], tmp_path: Path) -> None:
    fields = {name: value for name, value in options.items() if name != "temperatures"}
    branches = ["logmel64:vgg_small", "cqt:vgg_small"]
    made = train(**fields, branches=branches, alone=True, output=tmp_path, folds=[1])
    assert set(made.tidy["condition"]) == {"independent"}
    assert sorted(p.name.split("_")[0] for p in (made.folder / "cells").iterdir()) == [
        "independent",
        "independent",
    ]
    names = ["logmel64-vgg_small", "cqt-vgg_small", "ensemble", "best branch"]
    assert list(made.table["model"]) == names
    assert made.table["temperature"].isna().all()
    assert made.table["accuracy_independent"].notna().all()
    assert made.table["accuracy_distilled"].isna().all()
    assert (made.table["runs"] == 1).all()
    assert made.best is not None
    assert Classifier.load(made.best_folder).classes == ("clicks", "noise", "tone")
    found = compare(made.folder)
    assert len(found.rows) == 3
    assert found.best.latency is not None
