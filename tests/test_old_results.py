"""A results folder of an older commit is still reported, predicted with, scored and resumed.

`tests/old_results/make.py` says how it was made. Its files and option names stay as they were.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file

from mrkd_ray.cells.files import read_predictions
from mrkd_ray.common import environment
from mrkd_ray.config.grid_files import read_grid
from mrkd_ray.grid.opening import open_grid
from mrkd_ray.networks.registry import NETWORKS, network
from tests.cli.test_main import mrkd
from tests.conftest import ROOT
from tests.old_results.tiny import DESCRIPTION, NAME, tiny

OLD = ROOT / "tests" / "old_results"
TITLES: dict[str, str] = json.loads((OLD / "expected" / "keys.json").read_text())
FOLDER = Path("results", "old")
CELLS = FOLDER / "cells"
OPTIONS = ("--data", "clips", "--output", "results", "--cache", "cache", "--runner", "local")
DONE_BEFORE = 2  # cycles of the unfinished cell, of 4


def cell_of(words: str) -> Path:
    """The folder of the one cell with these words in its title."""
    (key,) = (key for key, title in TITLES.items() if words in title)
    return CELLS / key


UNFINISHED = cell_of("trusty, T 1")


@pytest.fixture(autouse=True)
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The old files in the working folder, their network, and a CPU, which is in their keys."""
    for name in ("clips", "results"):
        shutil.copytree(OLD / name, tmp_path / name)
    shutil.copy(OLD / "old.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    network(NAME, description=DESCRIPTION)(tiny)
    yield
    del NETWORKS._entries[NAME]


def ran(*arguments: object) -> str:
    """What the command prints; it must not fail."""
    done = mrkd(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def same_machine() -> bool:
    """Whether the old results were made with what is here: only then are the last bits the same."""
    made, here = json.loads((OLD / FOLDER / "environment.json").read_text()), environment.describe()
    packages = ("torch", "numpy", "librosa")
    return made["processor"] == here["processor"] and all(
        made["packages"][name] == here["packages"][name] for name in packages
    )


def files_in(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """When each file was written, and its bytes."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def history(folder: Path) -> list[dict[str, str]]:
    """The rows of a history."""
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("file", ["old.yaml", FOLDER / "grid.yaml"], ids=["asked", "written"])
def test_its_cells_have_the_same_keys(file: str | Path) -> None:
    values = {"data": "clips", "cache": "cache", "output": "results", "runner": "local"}
    with open_grid(read_grid(Path(file), values), Console(quiet=True)) as ready:
        keys = {cell.key for cell in ready.cells}
    assert keys == TITLES.keys()
    assert keys == {path.name for path in CELLS.iterdir()}


@pytest.mark.slow
def test_it_is_reported() -> None:
    assert ran("report", FOLDER).strip() == str(FOLDER / "report.html")
    page = (FOLDER / "report.html").read_text()
    assert "Unfinished: 1 of 4 distilled runs are missing" in page
    assert "in 3 variants of the method, at temperatures 1, 2, 4, on clips (3 classes)" in page
    assert "00.flac" in page  # the data set is found
    for variant in ("default", "paper", "apart", "trusty"):
        assert variant in page


def test_its_best_model_can_be_used() -> None:
    told = json.loads(ran("compare", FOLDER, "--json"))
    best = told["models"][0]
    assert best["is_best"]
    assert told["best"]["chosen_by"] == "accuracy"
    assert [round(best[name], 6) for name in ("accuracy", "map3")] == [0.833333, 0.916667]
    (row,) = json.loads(ran("predict", FOLDER / "best", Path("clips", "00.flac"), "--format=json"))
    assert set(row["scores"]) == {"clicks", "noise", "tone"}


@pytest.mark.parametrize("words", ["paper, T 2", "apart, T 4"])
def test_its_models_predict(words: str) -> None:
    cell = cell_of(words)
    clip_ids, _, scores = read_predictions(cell)
    names = json.loads((cell / "result.json").read_text())["branches"]
    models = {name: cell / "branches" / name for name in names} | {"ensemble": cell}
    assert scores.keys() == models.keys()
    for name, model in models.items():
        printed = ran(
            "predict", model, *(Path("clips", clip) for clip in clip_ids), "--format=json"
        )
        rows: list[dict[str, Any]] = json.loads(printed)
        again = [[row["scores"][label] for label in ("clicks", "noise", "tone")] for row in rows]
        np.testing.assert_allclose(again, scores[name], rtol=0, atol=1e-5)


def test_its_models_are_scored() -> None:
    cell = cell_of("paper, T 2")
    result = json.loads((cell / "result.json").read_text())
    scored = json.loads(ran("evaluate", cell, "--data", "clips", "--json"))
    assert (scored["clips"], scored["trained_on"], scored["skipped"]) == (6, 6, 0)
    by_name = [{row["model"]: row for row in found["models"]} for found in (scored, result)]
    for row in by_name[0].values():
        for name in ("balanced_accuracy", "macro_f1"):  # which the old figures are without
            assert row.pop(name) >= 0
        for name in ("classes", "confusion", "ece", "ece_uncalibrated", "calibration", "none"):
            row.pop(name)  # which only `evaluate` tells
    assert by_name[0] == by_name[1]  # `evaluate` sorts branches by their folders' names


def test_it_is_resumed() -> None:
    before, begun = files_in(CELLS), history(UNFINISHED)
    assert len(begun) == 2 * DONE_BEFORE
    ran("grid", "old.yaml", "--resume", *OPTIONS)

    after = files_in(CELLS)
    others = {path: file for path, file in before.items() if UNFINISHED not in path.parents}
    assert others == {path: file for path, file in after.items() if UNFINISHED not in path.parents}
    assert [path.name for path in Path("results").iterdir()] == ["old"]
    result = json.loads((UNFINISHED / "result.json").read_text())
    assert result["cell"] == UNFINISHED.name
    assert not (UNFINISHED / "checkpoint").exists()
    rows = history(UNFINISHED)
    assert [row["cycle"] for row in rows] == [str(i // 2) for i in range(8)]
    for old, new in zip(begun, rows, strict=False):  # seconds too: they were not run again
        assert old.items() <= new.items()
    with (FOLDER / "results.csv").open(newline="") as file:
        assert {row["cell"] for row in csv.DictReader(file)} == {*TITLES, ""}

    check_against_what_is_expected()


def check_against_what_is_expected() -> None:
    """The bits that the old code gave where nothing stopped it.

    On another processor, or with another PyTorch, sums may differ in their last bits, and then
    everything after them: it is compared loosely.
    """
    exact = same_machine()
    tolerance = 0.0 if exact else 1e-3
    models = sorted((OLD / "expected" / "branches").iterdir())
    assert [path.name for path in models] == [f"{r}-{NAME}" for r in ("cqt", "logmel64")]
    for model in models:
        expected = load_file(model / "model.safetensors")
        found = load_file(UNFINISHED / "branches" / model.name / "model.safetensors")
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance, err_msg=name)
    clip_ids, labels, scores = read_predictions(OLD / "expected")
    found_ids, found_labels, found_scores = read_predictions(UNFINISHED)
    assert found_ids == clip_ids
    np.testing.assert_array_equal(found_labels, labels)
    assert found_scores.keys() == scores.keys()
    for name, p in scores.items():
        np.testing.assert_allclose(found_scores[name], p, rtol=0, atol=tolerance, err_msg=name)
    with (
        np.load(OLD / "expected" / "soft_labels.npz") as expected,
        np.load(UNFINISHED / "soft_labels.npz") as found,
    ):
        assert expected["clip_id"].tolist() == found["clip_id"].tolist()
        np.testing.assert_allclose(found["teacher"], expected["teacher"], rtol=0, atol=tolerance)
    if exact:
        whole = [OLD / "expected" / name for name in ("predictions.csv", "predicted.npy")]
        whole += [model / "model.safetensors" for model in models]
        for path in whole:
            again = UNFINISHED / path.relative_to(OLD / "expected")
            assert again.read_bytes() == path.read_bytes(), path
        for old, new in zip(history(OLD / "expected"), history(UNFINISHED), strict=True):
            assert old.items() <= new.items()
