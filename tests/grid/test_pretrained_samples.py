"""The samples of two challenges, from their folders to a model on AudioSet's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import TrainConfig
from mrkd_ray.grid.run import run
from mrkd_ray.inference.classifier import load
from mrkd_ray.inference.model_folder import BACKBONE
from mrkd_ray.representations import pretrained


@pytest.mark.parametrize("name", ["fsdkaggle2018_sample", "tut2018_sample"])
def test_a_sample_trains_from_its_folder_to_a_model(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shared / "data" / name
    if not data.is_dir():
        pytest.skip(f"{data} is not there")
    monkeypatch.setenv(pretrained.FOLDER, str(shared / "weights"))
    asked = {
        "data": str(data),
        "cache": tmp_path / "cache",
        "output": tmp_path / "results",
        "branches": ["mn04:linear"],
        "alone": True,
        "cycles": 10,
        "folds": "1",
        "skip_bad": True,  # a class of one clip
        "runner": "local",
    }
    results = run(parse(TrainConfig, asked, "test").as_grid(), console=Console(quiet=True))
    assert results.best is not None
    (branch,) = (results.best_folder / "branches").iterdir()
    assert (branch / BACKBONE).is_file()
    classifier = load(results.best_folder)
    file = next(path for path in data.rglob("*") if path.suffix in (".wav", ".flac", ".ogg"))
    assert classifier.predict(file).sum() == pytest.approx(1, abs=1e-5)
