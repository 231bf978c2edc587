"""The samples of two challenges, from their folders to a model on AudioSet's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import TrainConfig
from mrkd_ray.grid.run import run
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.model_folder import BACKBONE
from mrkd_ray.representations import pretrained


def halved(release: Path, to: Path) -> Path:
    """TUT's sample, whose four clips are too few to train on, as eight: half of each tests."""
    rows = (release / "meta.csv").read_text().splitlines()
    sides: list[list[str]] = [[], []]
    meta = [rows[0]]
    (to / "audio").mkdir(parents=True)
    (to / "evaluation_setup").mkdir()
    for row in rows[1:]:
        name, label, place, source = row.split("\t")
        samples, rate = soundfile.read(release / name)
        for half, part in enumerate(np.array_split(samples, 2)):
            own = name.replace(place, f"{place}{half}")
            soundfile.write(to / own, part, rate)
            meta.append("\t".join((own, label, f"{place}{half}", source)))
            sides[half].append(f"{own}\t{label}")
    (to / "meta.csv").write_text("\n".join(meta) + "\n")
    for side, lines in zip(("train", "evaluate"), sides, strict=True):
        (to / "evaluation_setup" / f"fold1_{side}.txt").write_text("\n".join(lines) + "\n")
    tested = "\n".join(line.split("\t")[0] for line in sides[1])
    (to / "evaluation_setup" / "fold1_test.txt").write_text(tested + "\n")
    return to


@pytest.mark.parametrize("name", ["fsdkaggle2018_sample", "tut2018_sample"])
def test_a_sample_trains_from_its_folder_to_a_model(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shared / "data" / name
    if not data.is_dir():
        pytest.skip(f"{data} is not there")
    monkeypatch.setenv(pretrained.FOLDER, str(shared / "weights"))
    asked: dict[str, Any] = {
        "cache": tmp_path / "cache",
        "output": tmp_path / "results",
        "branches": ["mn04:linear"],
        "alone": True,
        "cycles": 10,
        "folds": "1",
        "runner": "local",
    }
    if name.startswith("tut"):  # nothing would make a model of it as it lies, which it is told
        (release,) = data.glob("TUT*")
        with pytest.raises(UserError, match=r"--skip-bad\) is not enough: at least two classes"):
            run(parse(TrainConfig, asked | {"data": str(release)}, "test").as_grid())
        data = halved(release, tmp_path / release.name)
    asked |= {"data": str(data)}
    results = run(parse(TrainConfig, asked, "test").as_grid(), console=Console(quiet=True))
    assert results.best is not None
    (branch,) = (results.best_folder / "branches").iterdir()
    assert (branch / BACKBONE).is_file()
    classifier = Classifier.load(results.best_folder)
    file = next(path for path in data.rglob("*") if path.suffix in (".wav", ".flac", ".ogg"))
    assert classifier.predict(file).probabilities.sum() == pytest.approx(1, abs=1e-5)
