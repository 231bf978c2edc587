"""Multi-label tagging from a csv to a report, through the loop that one label a clip takes."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from rich.console import Console
from sklearn.metrics import average_precision_score

from mrkd_ray.audio.decoding import load
from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.intact import result_of
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.cli.main import main
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig, RecommendConfig
from mrkd_ray.distributed.ray_cohort import RayCohort
from mrkd_ray.grid.run import run
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.evaluate import evaluate
from mrkd_ray.inference.program_export import Clips, export
from mrkd_ray.recommend.probes import parts_of
from mrkd_ray.report.page import write
from mrkd_ray.results.gather import Results
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.local_cohort import LocalCohort
from mrkd_ray.training.minibatches import Teacher
from tests.conftest import FAST, make_cell, prepare_clips
from tests.distributed.test_ray_cohort import TWO, actors_of, same_files

PAIRING = "logmel64:resnet_small+cqt:vgg_small"
SOUNDS = ("clicks", "hiss", "tone")


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 clips with one to three of three sounds, in two folds."""
    root = tmp_path_factory.mktemp("tagged")
    rng = np.random.default_rng(3)
    time = np.arange(24000) / 22050
    rows = ["filename,fold,labels"]
    for i in range(42):
        present = [name for bit, name in enumerate(SOUNDS) if (i % 7 + 1) >> bit & 1]
        made = {
            "tone": np.sin(2 * np.pi * rng.uniform(200, 800) * time),
            "hiss": np.diff(rng.normal(size=len(time) + 1)) / 3,
            "clicks": (np.floor(time * 40) % 8 == 0) * rng.normal(size=len(time)),
        }
        sound = sum(made[name] for name in present) / 4 + 0.01 * rng.normal(size=len(time))
        soundfile.write(root / f"{i:02d}.wav", np.clip(sound, -1, 1), 22050)
        rows.append(f'{i:02d}.wav,{1 + i // 7 % 2},"{",".join(present)}"')
    (root / "meta.csv").write_text("\n".join(rows) + "\n")
    return root


def config(tagged: Path, cache: Path, output: Path, **options: object) -> GridConfig:
    fields = {"data": str(tagged), "cache": cache, "output": output, "folds": [1], "cycles": 6}
    fields |= {"cohorts": [PAIRING], "runner": "local", "batch_size": 8, "lr": 0.02}
    return parse(GridConfig, fields | options, "test")


@pytest.fixture(scope="module")
def results(tagged: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One cohort and its baselines, trained."""
    asked = config(tagged, cache, tmp_path_factory.mktemp("results"))
    return run(asked, console=Console(quiet=True))


@pytest.fixture
def cell(results: Results) -> Path:
    (found,) = (results.folder / "cells").glob("distilled_*")
    return found


@pytest.mark.slow
def test_branches_learn_which_sounds_are_there(results: Results, cell: Path) -> None:
    labels = cell_files.read_predictions(cell)[1]
    chance = labels.mean(axis=0).mean()
    assert chance < 0.6
    assert (results.tidy["map"] > 0.85).all()
    assert (results.tidy["lwlrap"] > 0.85).all()


@pytest.mark.slow
def test_figures_are_those_of_the_predictions(results: Results, cell: Path) -> None:
    table = pd.read_csv(cell / "predictions.csv")
    rows = table[table["model"] == "cqt-vgg_small"]
    hot = np.array([[name in row.split(",") for name in SOUNDS] for row in rows["labels"]])
    scores = rows[[f"p_{name}" for name in SOUNDS]].to_numpy()
    expected = average_precision_score(hot, scores, average="macro")
    tidy = results.tidy.set_index(["condition", "branch"])
    assert tidy.loc[("distilled", "cqt-vgg_small"), "map"] == pytest.approx(expected, abs=1e-9)
    history = pd.read_csv(cell / "history.csv")
    last = history[history["branch"] == "cqt-vgg_small"].iloc[-1]
    assert last["map"] == pytest.approx(expected, abs=1e-9)
    row = results.table.set_index("model").loc["cqt-vgg_small"]
    assert row["map_distilled"] == pytest.approx(100 * expected)
    assert row["map_difference_low"] <= row["map_difference"] <= row["map_difference_high"]
    console = Console(width=80, file=StringIO())
    results.show(console)
    assert "lwlrap" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "accuracy" not in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_an_exported_branch_says_that_it_is_multi_label(
    cell: Path, tagged: Path, cache: Path, tmp_path: Path
) -> None:
    branch = cell / "branches" / "cqt-vgg_small"
    assert json.loads((branch / "config.json").read_text())["multi_label"] is True
    clip_ids, _, scores = cell_files.read_predictions(cell)
    file = tagged / clip_ids[0]
    said = Classifier.load(branch).predict(file)
    np.testing.assert_allclose(said.branches[0], scores["cqt-vgg_small"][0], atol=1e-5)
    assert said.calibration.thresholds is not None
    assert said.calibration.temperature != 1
    found = said.probabilities
    made = Clips("clips", [load(file)])
    export(Classifier.load(branch), tmp_path / "program.pt2", made, seconds=24000 / 22050)
    program = torch.export.load(tmp_path / "program.pt2").module()
    waveform = torch.from_numpy(soundfile.read(file, dtype="float32")[0])
    np.testing.assert_allclose(program(waveform[None])[0].detach().numpy(), found, atol=1e-3)
    report = evaluate(cell, str(tagged), cache).report
    models = {row["model"]: row["map"] for row in report["models"]}
    result = result_of(cell)
    assert result is not None
    assert models == pytest.approx({row["model"]: row["map"] for row in result["models"]})


@pytest.mark.slow
def test_prediction_prints_the_classes_above_a_threshold(cell: Path, tagged: Path) -> None:
    def predicted(*options: str) -> str:
        printed = StringIO()
        with redirect_stdout(printed), pytest.raises(SystemExit):
            main(["predict", str(cell), str(tagged / "00.wav"), *options])
        return printed.getvalue()

    probabilities = Classifier.load(cell).predict(tagged / "00.wav").probabilities
    above = {name for name, p in zip(SOUNDS, probabilities, strict=True) if p >= 0.3}
    (row,) = json.loads(predicted("--format", "json", "--min-confidence", "0.3"))
    assert set(row["labels"]) == above
    assert set(row["scores"]) == set(SOUNDS)
    assert all(name in predicted("--min-confidence", "0") for name in SOUNDS)
    assert "no class from 100 % up" in predicted("--min-confidence", "1")


@pytest.mark.slow
def test_a_model_is_not_scored_on_data_of_the_other_kind(
    cell: Path, clips: Path, cache: Path
) -> None:
    with pytest.raises(UserError, match="one label each, the model's have several"):
        evaluate(cell, str(clips), cache)


@pytest.mark.slow
def test_a_report_shows_its_figures(results: Results) -> None:
    page = write(results.folder).read_text()
    assert "The mAP of a distilled branch" in page
    assert "lwlrap" in page
    assert "Learning curves" in page
    assert "those are of one label a clip" in page


def test_label_noise_is_refused(tagged: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"label_noise.*multi-label"):
        run(config(tagged, cache, tmp_path, label_noise=0.3), console=Console(quiet=True))


@pytest.fixture(scope="module")
def prepared(tagged: Path, cache: Path) -> Prepared:
    return prepare_clips(data=str(tagged), cache=cache)


@pytest.mark.cluster
@pytest.mark.parametrize(
    "options",
    [
        {"average": "logits"},
        {"average": "leave_one_out", "divergence": "forward", "soft_labels": "virtual"},
        {"trust": True, "teacher_momentum": 0.5, "labelled": 0.5},
    ],
)
def test_ray_cohort_gives_the_bits_of_local_cohort(
    prepared: Prepared, ray_cluster: str, tmp_path: Path, options: dict[str, object]
) -> None:
    cell = make_cell(*TWO, **{**FAST, **options})
    tasks = branch_tasks(cell, prepared)
    assert tasks[0].multi_label
    local, remote = tmp_path / "local", tmp_path / "remote"
    list(run_cell(cell, tasks, LocalCohort(tasks, local), local))
    with actors_of(*TWO) as processes:
        list(run_cell(cell, tasks, RayCohort(processes, tasks, remote), remote))
    same_files(local, remote, cell.names)


def test_trust_and_unlabelled_clips_in_hard_labels(prepared: Prepared) -> None:
    cell = make_cell(TWO[1], **{**FAST, "mixup": 0.0, "trust": True, "labelled": 0.5})
    (task,) = branch_tasks(cell, prepared)
    n, labelled = len(task.taught), len(task.train.clip_ids)
    assert 0 < labelled < n
    teacher = np.random.default_rng(0).uniform(0.1, 0.9, (n, 3)).astype(np.float32)
    says = np.stack([task.train.labels, 1 - task.train.labels], axis=2)
    beliefs = np.stack([teacher, 1 - teacher], axis=2)
    trusted = (says * beliefs[:labelled]).sum(axis=2) / beliefs[:labelled].max(axis=2)
    expected = np.concatenate([says * trusted[:, :, None], np.zeros((n - labelled, 3, 2))])
    rows = torch.from_numpy(teacher)
    seen = []
    for batch in Branch(task).minibatches.epoch(0, 0, 0, Teacher(rows, rows, 1.0)):
        np.testing.assert_allclose(batch.targets, expected[batch.rows], rtol=1e-5)
        seen += batch.rows.tolist()
    assert sorted(seen) == list(range(n))


def test_recommend_refuses_it(prepared: Prepared) -> None:
    with pytest.raises(UserError, match="recommend chooses by"):
        parts_of(prepared.dataset, RecommendConfig(data="mixtures"))


@pytest.mark.slow
def test_a_weighted_teacher_gives_each_class_a_probability_of_its_own(
    tagged: Path, cache: Path, tmp_path: Path
) -> None:
    asked = config(tagged, cache, tmp_path, average="weighted", held_out=0.3, cycles=1)
    found = run(asked, console=Console(quiet=True))
    (cell,) = (found.folder / "cells").glob("distilled_*")
    teacher = np.load(cell / "soft_labels.npz")["teacher"]
    assert teacher.min() >= 0
    assert teacher.max() <= 1
    assert not np.allclose(teacher.sum(axis=-1), 1)
