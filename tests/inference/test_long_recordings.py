"""The memory of commands does not grow with the length of a recording."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.long_recordings import measured, noise
from mrkd_ray.inference.classifier import Classifier
from tests.inference.test_classifier import classifier  # noqa: F401  # a fixture

LESS = 40  # MiB: the samples alone of 12 minutes are 61, their frames of two representations 41


@pytest.mark.slow
def test_memory_does_not_grow_with_length(
    classifier: Classifier,  # noqa: F811
    tmp_path: Path,
) -> None:
    model = str(classifier.branches[0].folder.parents[1])
    peaks: dict[str, list[float]] = {"predict": [], "prepare": []}
    for minutes in (3, 15):
        data = tmp_path / f"{minutes}"
        for i in range(6):
            noise(data / "ab"[i % 2] / f"{i}.wav", 1.0, seed=i)
        long = data / "a" / "long.wav"
        noise(long, 60 * minutes, seed=99)
        asked = ("--representations", "logmel64", "--cache", str(tmp_path / "cache"))
        peaks["predict"] += [measured("predict", model, str(long))[0]]
        peaks["prepare"] += [
            measured("prepare", "--runner", "local", "--data", str(data), *asked)[0]
        ]
    assert {what: long - short < LESS for what, (short, long) in peaks.items()} == {
        "predict": True,
        "prepare": True,
    }, peaks
