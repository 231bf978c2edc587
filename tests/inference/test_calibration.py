"""What a model says of clips that it did not learn from travels with it, and is applied."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from mrkd_ray.cells.files import read_predictions
from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.calibration import FILE, Calibration, Evidence
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.noise import noises
from mrkd_ray.inference.prediction import NONE, SILENCE, Prediction
from mrkd_ray.scores.tempering import temper
from tests.conftest import TaskMaker

M = 3


def evidence(scores: list[list[float]], truth: list[int], part: str = "test") -> Evidence:
    ids = [str(i) for i in range(len(truth))]
    labels, none = np.array(truth, np.int64), np.zeros((0, M), np.float32)
    return Evidence.of(ids, np.array(scores, np.float32), labels, none, part)


def test_scores_are_those_of_trainings_evaluation_and_their_calibration_is_beside_them(
    taught_cell: Path, clips: Path
) -> None:
    clip_ids, truth, scores = read_predictions(taught_cell)
    classifier = Classifier.load(taught_cell)
    found = [classifier.predict(clips / clip_id) for clip_id in clip_ids]
    for place, name in enumerate(classifier.names):
        raw = [each.branches[place] for each in found]
        np.testing.assert_allclose(raw, scores[name], atol=1e-5)
        own = classifier.branches[place].model.evidence
        assert own is not None
        np.testing.assert_allclose(own.probabilities, scores[name], atol=1e-6)
        np.testing.assert_array_equal(own.truth, truth)
        assert own.noise.shape == (len(noises(1)), M)
    known = classifier.calibration
    assert known.part == "test"
    assert known.temperature != 1
    expected = temper(scores["ensemble"], known.temperature, multi_label=False)
    np.testing.assert_allclose([each.probabilities for each in found], expected, atol=1e-5)
    alone = Classifier.load(taught_cell / "branches" / classifier.names[0])
    assert alone.calibration.temperature == known.members[0]
    np.testing.assert_allclose(
        alone.predict(clips / clip_ids[0]).probabilities, found[0].apart[0], atol=1e-6
    )


def test_held_out_clips_come_first(make_tasks: TaskMaker, tmp_path: Path) -> None:
    from mrkd_ray.training.branch import Branch

    (task,) = make_tasks("logmel64:vgg_small", held_out=0.4)
    Branch(task).export(tmp_path)
    few = len(task.held_out.clip_ids) < 10
    assert Classifier.load(tmp_path).calibration.part == ("test" if few else "held_out")


def test_a_model_of_an_earlier_version_is_as_it_was(taught_cell: Path, tmp_path: Path) -> None:
    old = tmp_path / "cell"
    shutil.copytree(taught_cell / "branches", old / "branches")
    for branch in (old / "branches").iterdir():
        (branch / FILE).unlink()
    with pytest.raises(UserError, match=f"{FILE}.*gone|No such file"):
        Classifier.load(old)
    for branch in (old / "branches").iterdir():
        manifest.write(branch)
    known = Classifier.load(old).calibration
    assert (known.temperature, known.least, known.part) == (1.0, None, None)


@pytest.mark.parametrize("change", ["classes", "range", "label"])
def test_evidence_of_another_model_is_refused(
    taught_cell: Path, tmp_path: Path, change: str
) -> None:
    branch = tmp_path / "branch"
    shutil.copytree(next((taught_cell / "branches").iterdir()), branch)
    tensors = load_file(branch / FILE)
    if change == "classes":
        tensors["probabilities"] = tensors["probabilities"][:, :2].copy()
    elif change == "range":
        tensors["noise"][0, 0] = 2
    else:
        tensors["truth"][0] = M
    save_file(tensors, branch / FILE, {"part": "test", "clips": "0"})
    manifest.write(branch)
    with pytest.raises(UserError, match=FILE):
        Classifier.load(branch)


def test_an_ensemble_has_a_temperature_of_its_own_where_its_members_know_the_same_clips() -> None:
    truth = [0, 1, 2] * 8
    one = [[0.8 if i == label else 0.1 for i in range(M)] for label in truth]
    other = [[0.4 if i == label else 0.3 for i in range(M)] for label in truth]
    both = Calibration.of([evidence(one, truth), evidence(other, truth)], False)
    assert both.temperature not in both.members
    unlike = Calibration.of([evidence(one, truth), evidence(other, truth, "held_out")], False)
    assert (unlike.temperature, unlike.members) == (1.0, (1.0, 1.0))
    assert Calibration.of([evidence(one[:9], truth[:9])], False).clips == 0  # too few


def test_the_answer_is_a_class_none_of_these_or_silence(taught_cell: Path) -> None:
    row = np.array([[0.4, 0.3, 0.3]], np.float32)
    classes = ("a", "b", "c")
    known = Calibration(members=(1.0,), least=0.5)
    assert Prediction("x", 0, 1, classes, row).answer == "a"
    found = Prediction("x", 0, 1, classes, row, known)
    assert (found.answer, found.labels(), found.label) == (NONE, [], "a")
    assert found.labels(0.35) == ["a"]
    assert Prediction("x", 0, 1, classes, row, silent=True).answer == SILENCE
    several = Calibration(True, thresholds=np.array([0.5, 0.2, 0.25]))
    assert Prediction("x", 0, 1, classes, row, several).labels() == ["b", "c"]
    classifier = Classifier.load(taught_cell)
    quiet = np.full(30_000, 1e-5, np.float32)
    assert classifier.predict(quiet, sample_rate=22_050).answer == SILENCE
    assert classifier.predict(quiet + 0.3, sample_rate=22_050).answer == SILENCE
    steps = np.tile(np.array([-1e-4, 0.99e-4, 1.1e-4], np.float32), 10_000)
    assert classifier.predict(steps, sample_rate=22_050).answer != SILENCE


def test_a_recording_that_is_not_held_is_silent_too(
    taught_cell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrkd_ray.audio.decoding.LONG", 1.0)
    classifier = Classifier.load(taught_cell)
    for name, level, silent in (("quiet", 1e-5, True), ("loud", 1e-3, False)):
        samples = np.full(100_000, level, np.float32)
        samples[70_000:] = 0
        soundfile.write(tmp_path / f"{name}.wav", samples, 22_050, subtype="FLOAT")
        answer = classifier.predict(tmp_path / f"{name}.wav").answer
        assert (answer == SILENCE) == silent, name
