"""From a finished run to a student, which is a cell like any other."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mrkd_ray import Classifier, distil
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import DistilConfig, GridConfig, TrainConfig
from mrkd_ray.grid.distil import as_grid
from mrkd_ray.grid.run import run
from mrkd_ray.report.grid_results import read_results

STUDENT = "logmel64:vgg_small"


@pytest.fixture(scope="module")
def run_folder(clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of two branches trained alone for a cycle, on fold 1, 1 s windows."""
    fields = {
        "data": str(clips),
        "cache": cache,
        "output": tmp_path_factory.mktemp("results"),
        "branches": [STUDENT, "cqt:vgg_small"],
        "folds": 1,
        "cycles": 1,
        "batch_size": 8,
        "window": 1.0,
        "group_by": "none",
        "alone": True,
        "runner": "local",
    }
    asked = parse(TrainConfig, fields, "test").as_grid()
    return run(asked, console=Console(quiet=True)).folder


def student(folder: Path, **fields: Any) -> dict[str, Any]:
    """The fields of a student of all that a run has trained."""
    return {"teachers": f"{folder}/cells/independent_*", "student": STUDENT, **fields}


def test_a_student_takes_over_the_data_and_what_windows_its_teachers_hear(
    run_folder: Path, clips: Path
) -> None:
    asked = as_grid(parse(DistilConfig, student(run_folder), "test"))
    assert (asked.data, asked.group_by, asked.folds) == (str(clips), "none", (1,))
    assert (asked.window, asked.cycles, asked.mixup) == (0.9977, 240, 0.3)  # 1 s in whole frames
    assert (asked.ce_weight, asked.kl_weight, asked.t_squared) == (0.02, 0.98, True)
    assert asked.temperatures == (2.0,)
    given = {"data": "elsewhere", "folds": "2", "window": 3, "cycles": 7}
    asked = as_grid(parse(DistilConfig, student(run_folder, **given), "test"))
    assert (asked.data, asked.folds, asked.window, asked.cycles) == ("elsewhere", (2,), 3.0, 7)


def test_teachers_that_were_moved_do_not_say_where_their_data_lie(
    run_folder: Path, clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_folder / "cells", tmp_path / "cells")
    moved = student(tmp_path)
    with pytest.raises(UserError, match=r"grid\.yaml is gone.*--data"):
        as_grid(parse(DistilConfig, moved, "test"))
    asked = as_grid(parse(DistilConfig, moved | {"data": str(clips)}, "test"))
    assert (asked.data, asked.window) == (str(clips), 0.9977)


def test_teachers_of_unlike_data_are_refused(run_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "cells").mkdir(parents=True)
    first = next((run_folder / "cells").glob("independent_cqt*"))
    (other / "cells" / first.name).symlink_to(first)
    written = (run_folder / "grid.yaml").read_text()
    (other / "grid.yaml").write_text(written.replace("skip_bad: false", "skip_bad: true"))
    both = [f"{place}/cells/independent_*" for place in (run_folder, other)]
    with pytest.raises(UserError, match="skip_bad: teachers were trained with False and with True"):
        as_grid(parse(DistilConfig, student(run_folder) | {"teachers": both}, "test"))


def test_a_student_hides_the_labels_that_were_hidden_from_its_teachers(
    run_folder: Path, tmp_path: Path
) -> None:
    for copied in sorted((run_folder / "cells").iterdir()):
        cell = Path(shutil.copytree(copied, tmp_path / "cells" / copied.name))
        for folder in (*(cell / "branches").iterdir(), cell):
            (folder / "SHA256SUMS").unlink()
            if (config := folder / "config.json").exists():
                changed = json.loads(config.read_text())
                changed["training"] |= {"labelled": 0.5}
                config.write_text(json.dumps(changed))
    fields = student(tmp_path, data="x")
    assert as_grid(parse(DistilConfig, fields, "test")).labelled == 0.5
    with pytest.raises(UserError, match="the student's is 3, a teacher's 0"):
        as_grid(parse(DistilConfig, fields | {"seed": 3}, "test"))


def test_a_student_is_a_cell_that_is_read_resumed_and_used(
    run_folder: Path,
    clips: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields: dict[str, Any] = student(
        run_folder, cycles=2, batch_size=8, cache=cache, output=tmp_path, runner="local"
    )
    results = distil(**fields, independent=True)
    (cell,) = (tmp_path / "distil" / "cells").glob("distilled_*")
    assert json.loads((cell / "result.json").read_text())["teachers"] == [
        f"{folder.name}/{folder.name.split('_fold')[0].removeprefix('independent_')}"
        for folder in sorted((run_folder / "cells").iterdir())
    ]
    read = read_results(results.folder)
    (cohort,) = read.cohorts
    assert (cohort.name, cohort.temperature, len(read.pairs(cohort, "logmel64-vgg_small"))) == (
        STUDENT,
        2.0,
        1,
    )
    found = Classifier.load(cell).predict(clips / "00.wav").probabilities
    assert found.sum() == pytest.approx(1, abs=1e-5)
    before = (cell / "result.json").stat().st_mtime_ns
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (left := tmp_path / "mrkd-tune-left").mkdir()  # by a run that was killed at its very end
    again = distil(**fields, independent=True, resume=True)
    assert not left.exists()
    assert again.folder == results.folder
    assert (cell / "result.json").stat().st_mtime_ns == before
    one = str(next((run_folder / "cells").glob("independent_cqt*")))  # other teachers, other cell
    residual = {"student": "logmel64:resnet_small", "name": "fewer", "cycles": 1}
    fewer = distil(**fields | {"teachers": one} | residual)
    (other,) = (fewer.folder / "cells").iterdir()
    assert other.name.startswith("distilled_logmel64-resnet_small_")
    assert (other / "branches" / "logmel64-resnet_small" / "model.safetensors").is_file()
    assert Classifier.load(other).predict(clips / "00.wav").probabilities.shape == (3,)


def test_soft_labels_of_other_windows_than_the_students_are_refused() -> None:
    asked = {"data": "x", "cohorts": [STUDENT], "teachers": "y"}
    assert parse(GridConfig, asked, "test").teachers == ("y",)
    with pytest.raises(UserError, match="soft_labels: clip"):
        parse(GridConfig, asked | {"soft_labels": "clip"}, "test")
    with pytest.raises(UserError, match="soft_labels: clip"):
        parse(GridConfig, asked | {"variants": {"c": {"soft_labels": "clip"}}}, "test")
    with pytest.raises(TypeError, match="student"):
        distil(parse(DistilConfig, {"teachers": "y", "student": STUDENT}, "t"), student=STUDENT)
