"""The classifier in Python: one file, and many."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mrkd_ray.audio.decoding import load as load_recording
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.prediction import Prediction
from mrkd_ray.networks.catalogue import classifier_layer
from mrkd_ray.representations.timing import ticks_of
from tests.conftest import TaskMaker


@pytest.fixture(scope="module")
def classifier(make_tasks: TaskMaker, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Two branches with random weights."""
    from mrkd_ray.training.branch import Branch

    folder = tmp_path_factory.mktemp("cell")
    for task in make_tasks("logmel64:vgg_small", "cqt:resnet_small"):
        Branch(task).export(folder / "branches" / task.name)
    return Classifier.load(folder)


def test_a_file_its_samples_and_the_open_file_are_one(classifier: Classifier, clips: Path) -> None:
    file = clips / "00.wav"
    samples, rate = soundfile.read(file, dtype="int16")
    found = classifier.predict(file)
    assert found.file == str(file)
    assert (found.start, found.end) == (0.0, len(samples) / rate)
    assert found.branches.shape == (2, 3)
    with file.open("rb") as stream:
        others = classifier.predict(
            [str(file), samples, np.stack([samples, samples]), stream], sample_rate=rate
        )
    for other in others:
        np.testing.assert_array_equal(other.branches, found.branches)
    names = [str(file), "input 2", "input 3", str(file)]
    assert [other.file for other in others] == names
    with file.open() as text, pytest.raises(UserError, match="open it for bytes"):
        classifier.predict(text)  # type: ignore[call-overload]


def test_a_prediction_names_classes_by_their_probability(classifier: Classifier) -> None:
    branches = np.array([[0.2, 0.5, 0.3], [0.4, 0.5, 0.1]], np.float32)
    found = Prediction("a.wav", 0, 1, ("x", "y", "z"), branches)
    np.testing.assert_allclose(found.probabilities, [0.3, 0.5, 0.2], rtol=1e-6)
    assert found.label == "y"
    assert found.top(2) == {"y": pytest.approx(0.5), "x": pytest.approx(0.3)}
    assert list(found.top()) == ["y", "x", "z"]
    assert found.labels(0.25) == ["y", "x"]
    assert found.labels() == ["y"]


def test_files_folders_and_patterns_give_the_bits_of_one_file_at_a_time(
    classifier: Classifier, clips: Path
) -> None:
    expected = {str(f): classifier.predict(f).top() for f in sorted(clips.glob("*.wav"))}
    assert len(expected) == 24
    assert {found.file: found.top() for found in classifier.predict(clips)} == expected
    assert {found.file: found.top() for found in classifier.predict(f"{clips}/*.wav")} == expected
    some = [str(clips / "05.wav"), clips / "01.wav", f"{clips}/0[0-5].wav"]
    names = [Path(found.file).name for found in classifier.stream(some)]
    assert names == ["05.wav", "01.wav", "00.wav", "02.wav", "03.wav", "04.wav"]


def test_a_gpu_gets_windows_of_several_recordings_together(
    classifier: Classifier, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU is given them; here on the CPU."""
    bad, long = tmp_path / "bad.wav", tmp_path / "long.wav"
    bad.write_text("no sound")
    soundfile.write(long, np.random.default_rng(2).normal(size=22050 * 3) / 9, 22050)
    monkeypatch.setattr("mrkd_ray.audio.decoding.LONG", 2.5)
    files = [*sorted(clips.glob("*.wav"))[:7], bad, long, clips / "23.wav"]
    told: list[UserError] = []
    single = classifier.predict(files, on_error=told.append)
    sizes: list[int] = []
    network = classifier.branches[0].model.network
    hook = network.register_forward_hook(lambda _, args, out: sizes.append(len(out)))
    monkeypatch.setattr(classifier, "_group", 5)
    try:
        together = classifier.predict(files, on_error=told.append)
    finally:
        hook.remove()
    assert max(sizes) >= 5
    assert [found.file for found in together] == [found.file for found in single]
    for one, other in zip(single, together, strict=True):
        np.testing.assert_allclose(one.branches, other.branches, rtol=0, atol=1e-5)
    assert ["bad.wav" in str(error) for error in told] == [True, True]


def test_what_cannot_be_classified_is_raised_or_told(
    classifier: Classifier, clips: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    inputs = [clips / "00.wav", bad, clips / "01.wav"]
    for window in (None, 0.5):
        with pytest.raises(UserError, match=r"bad\.wav: cannot be classified"):
            list(classifier.stream(inputs, window=window))
        told: list[UserError] = []
        found = classifier.stream(inputs, window=window, on_error=told.append)
        assert list(dict.fromkeys(Path(each.file).name for each in found)) == ["00.wav", "01.wav"]
        (error,) = told
        assert "bad.wav" in str(error)
    with pytest.raises(UserError, match=r"nowhere/\*: no such file"):
        classifier.stream("nowhere/*")  # before the first is asked for
    with pytest.raises(UserError, match=r"lost\.wav: no such file"):
        classifier.predict(tmp_path / "lost.wav")
    with pytest.raises(UserError, match="give window too"):
        classifier.predict(clips, hop=1.0)
    with pytest.raises(UserError, match="window: -1"):
        classifier.predict(clips, window=-1)


def test_a_runs_folder_stands_for_its_best(
    classifier: Classifier, clips: Path, tmp_path: Path
) -> None:
    cell = classifier.branches[0].folder.parents[1]
    shutil.copytree(cell, tmp_path / "run" / "best")
    found = Classifier.load(tmp_path / "run").predict(clips / "00.wav")
    np.testing.assert_array_equal(found.branches, classifier.predict(clips / "00.wav").branches)
    with pytest.raises(UserError, match="no model there"):
        Classifier.load(tmp_path)


def test_an_embedding_is_what_the_last_layer_is_given(classifier: Classifier, clips: Path) -> None:
    files = sorted(clips.glob("*.wav"))[:3]
    found = classifier.embed(files)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(classifier.embed(files[1]), found[1])
    place = 0
    for branch, logits in zip(classifier.branches, _logits(classifier, files), strict=True):
        network = branch.model.network
        layer = network.get_submodule(classifier_layer(network))
        assert isinstance(layer, torch.nn.Linear)
        own = torch.from_numpy(found[:, place : place + layer.in_features])
        place += layer.in_features
        np.testing.assert_allclose(layer(own).detach().numpy(), logits, rtol=0, atol=1e-4)
        assert not layer._forward_pre_hooks
    assert found.shape == (3, place)


def _logits(classifier: Classifier, files: list[Path]) -> list[np.ndarray]:
    heard = [classifier.heard(load_recording(file)) for file in files]
    return [branch.logits(heard).numpy() for branch in classifier.branches]


@pytest.mark.parametrize("seconds", [4, 100])
def test_neither_pytorchs_threads_nor_the_cpus_change_a_bit(
    classifier: Classifier, seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "noise.wav"
    noise = np.random.default_rng(1).normal(size=22050 * seconds) / 9
    soundfile.write(file, noise, 22050)
    found = []
    before = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        monkeypatch.setattr("mrkd_ray.inference.threads.cpus", lambda count=count: count)
        try:
            found += [classifier.predict(file).branches]
            assert torch.get_num_threads() == count
            assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])


def test_networks_compute_on_one_thread_of_whatever_many(
    classifier: Classifier, clips: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    long = tmp_path / "long.wav"
    soundfile.write(long, np.random.default_rng(2).normal(size=22050 * 100) / 9, 22050)
    network = classifier.branches[0].model.network
    hook = network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        classifier.predict(clips / "00.wav")
        classifier.predict(long)
        classifier.predict(clips)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
        hook.remove()
    assert seen == [1] * (1 + 2 + 24)  # a long recording has two batches of windows


def test_tf32_stays_as_it_is_set(classifier: Classifier, clips: Path) -> None:
    """It is the whole process's: threads that set and restore it would cross each other."""
    before = torch.backends.cudnn.allow_tf32
    seen = {torch.backends.cudnn.allow_tf32 for _ in classifier.stream(clips)}
    assert seen == {before}


@pytest.mark.parametrize("seconds", [5, 31.5])
def test_a_long_recording_has_the_scores_of_the_whole(
    classifier: Classifier, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "noise.flac"
    noise = np.random.default_rng(1).normal(size=(round(44_100 * seconds), 2)) / 9
    soundfile.write(file, noise * np.linspace(0, 1, len(noise))[:, None], 44_100)
    whole = classifier.predict(file).branches
    seen: list[int] = []
    network = classifier.branches[0].model.network
    hook = network.register_forward_hook(lambda _, args, out: seen.append(len(out)))
    monkeypatch.setattr("mrkd_ray.audio.decoding.LONG", 2.0)
    monkeypatch.setattr("mrkd_ray.representations.parts.SECONDS", 4.0)
    try:
        np.testing.assert_allclose(classifier.predict(file).branches, whole, atol=1e-5)
    finally:
        hook.remove()
    ticks = ticks_of(len(noise), 44_100)
    assert sum(seen) == np.ceil(ticks / 150)  # every window once
    assert len(seen) > 1
