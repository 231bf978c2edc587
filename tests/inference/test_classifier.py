"""The classifier in Python: one file, and many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.classifier import Classifier, load
from mrkd_ray.representations.timing import ticks_of
from tests.conftest import TaskMaker


@pytest.fixture(scope="module")
def classifier(make_tasks: TaskMaker, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Two branches with random weights."""
    from mrkd_ray.training.branch import Branch

    folder = tmp_path_factory.mktemp("cell")
    for task in make_tasks("logmel64:vgg_small", "cqt:resnet_small"):
        Branch(task).export(folder / "branches" / task.name)
    return load(folder)


def test_a_file_is_given_as_a_path_or_as_text(classifier: Classifier, clips: Path) -> None:
    file = clips / "00.wav"
    np.testing.assert_array_equal(classifier.predict(file), classifier.predict(str(file)))


def test_files_folders_and_patterns_give_the_bits_of_one_file_at_a_time(
    classifier: Classifier, clips: Path
) -> None:
    expected = {f: classifier.by_class(classifier.predict(f)) for f in sorted(clips.glob("*.wav"))}
    assert len(expected) == 24
    assert dict(classifier.predict_all(clips)) == expected
    assert dict(classifier.predict_all(f"{clips}/*.wav")) == expected
    some = [str(clips / "05.wav"), clips / "01.wav", f"{clips}/0[0-5].wav"]
    names = [file.name for file, _ in classifier.predict_all(some)]
    assert names == ["05.wav", "01.wav", "00.wav", "02.wav", "03.wav", "04.wav"]
    scores = expected[clips / "00.wav"]
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


def test_what_cannot_be_classified_is_raised_or_told(
    classifier: Classifier, clips: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    inputs = [clips / "00.wav", bad, clips / "01.wav"]
    with pytest.raises(UserError, match=r"bad\.wav: cannot be classified"):
        list(classifier.predict_all(inputs))
    told: list[UserError] = []
    names = [file.name for file, _ in classifier.predict_all(inputs, on_error=told.append)]
    assert names == ["00.wav", "01.wav"]
    (error,) = told
    assert "bad.wav" in str(error)
    with pytest.raises(UserError, match=r"nowhere/\*: no such file"):
        classifier.predict_all("nowhere/*")  # before the first is asked for


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
            found += [classifier.predict_branches(file)]
            assert torch.get_num_threads() == count
            ((_, scores),) = classifier.predict_all(file)
            assert scores == classifier.by_class(classifier.predict(file))
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
        list(classifier.predict_all(clips))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
        hook.remove()
    assert seen == [1] * (1 + 2 + 24)  # a long recording has two batches of windows


def test_tf32_stays_as_it_is_set(classifier: Classifier, clips: Path) -> None:
    """It is the whole process's: threads that set and restore it would cross each other."""
    before = torch.backends.cudnn.allow_tf32
    seen = {torch.backends.cudnn.allow_tf32 for _ in classifier.predict_all(clips)}
    assert seen == {before}


@pytest.mark.parametrize("seconds", [5, 31.5])
def test_a_long_recording_has_the_scores_of_the_whole(
    classifier: Classifier, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "noise.flac"
    noise = np.random.default_rng(1).normal(size=(round(44_100 * seconds), 2)) / 9
    soundfile.write(file, noise * np.linspace(0, 1, len(noise))[:, None], 44_100)
    whole = classifier.predict_branches(file)
    seen: list[int] = []
    network = classifier.branches[0].model.network
    hook = network.register_forward_hook(lambda _, args, out: seen.append(len(out)))
    monkeypatch.setattr("mrkd_ray.audio.decoding.LONG", 2.0)
    monkeypatch.setattr("mrkd_ray.representations.parts.SECONDS", 4.0)
    try:
        np.testing.assert_allclose(classifier.predict_branches(file), whole, atol=1e-5)
    finally:
        hook.remove()
    ticks = ticks_of(len(noise), 44_100)
    assert sum(seen) == np.ceil(ticks / 150)  # every window once
    assert len(seen) > 1
