"""A data set on which the default pairing is a poor one: `mrkd recommend` has to find a better.

The classes are tones of 5 to 7.5 kHz in noise. The CQT ends at 4.2 kHz, so that its branch, half of
the default pairing, hears none of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from mrkd_ray.config.grid_files import read_grid
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig, RecommendConfig
from mrkd_ray.grid import run as grid
from mrkd_ray.recommend.recommend import recommend
from mrkd_ray.report import grid_results
from tests.conftest import FAST

DEFAULT = "logmel64:resnet_small+cqt:vgg_small"
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def whistles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 clips of 6 classes in 4 folds."""
    root = tmp_path_factory.mktemp("whistles")
    rng = np.random.default_rng(3)
    rows = ["filename,fold,label"]
    time = np.arange(22050) / 22050
    for i in range(96):
        pitch = 5000 * 1.08 ** (i % 6) * rng.uniform(0.985, 1.015)
        sound = 0.02 * np.sin(2 * np.pi * pitch * time) + 0.1 * rng.normal(size=len(time))
        soundfile.write(root / f"{i:02d}.wav", sound, 22050)
        rows.append(f"{i:02d}.wav,{1 + i // 6 % 4},{i % 6}")
    (root / "meta.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.slow
def test_the_recommended_cohort_beats_the_default_pairing(whistles: Path, tmp_path: Path) -> None:
    shared = {
        **FAST,
        "data": str(whistles),
        "cache": tmp_path / "cache",
        "output": tmp_path / "results",
        "runner": "local",
        "cycles": 5,
    }
    file = tmp_path / "recommended.yaml"
    known = {name: x for name, x in shared.items() if name in RecommendConfig.model_fields}
    asked = {**known, "parts": 1, "representations": "logmel64,mfcc,cqt"}
    recommend(parse(RecommendConfig, asked, "test"), file, console=QUIET)
    grid.run(read_grid(file, {**FAST, "cycles": 5}), console=QUIET)
    values = {**shared, "folds": (1,), "name": "default", "cohorts": [DEFAULT]}
    grid.run(parse(GridConfig, values, "test"), console=QUIET)
    for condition in ("independent", "distilled"):
        chosen, default = (
            _accuracies(tmp_path / "results" / name, condition)
            for name in ("recommended", "default")
        )
        assert min(chosen.values()) > min(default.values()) + 0.3
    assert chosen["ensemble"] > default["ensemble"] + 0.1  # distilled: a deaf branch taught it


def _accuracies(folder: Path, condition: str) -> dict[str, float]:
    results = grid_results.read_results(folder)
    (cohort,) = results.cohorts
    found = {}
    for model in cohort.models:
        (run,) = getattr(results, condition)(cohort, model).values()
        found[model] = float((run.probabilities.argmax(axis=1) == run.labels).mean())
    shown = ", ".join(f"{model} {100 * accuracy:.1f}" for model, accuracy in found.items())
    print(f"{cohort.name}, {condition}: {shown}")
    return found
