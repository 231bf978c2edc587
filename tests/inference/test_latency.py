"""What is measured of a model; no test says how fast it has to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.inference import latency
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.model_folder import read_size, write_model
from mrkd_ray.networks.catalogue import build
from mrkd_ray.representations.catalogue import REPRESENTATIONS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    entry = REPRESENTATIONS["logmel64"]
    shape = (3, entry.bins)
    write_model(
        tmp_path,
        branch="logmel64-vgg_small",
        representation="logmel64",
        representation_version=entry.version,
        network_name="vgg_small",
        network=build("vgg_small", 4)[0],
        statistics=Statistics(np.zeros(shape, np.float32), np.ones(shape, np.float32)),
        classes=("a", "b", "c", "d"),
        multi_label=False,
        trained_on=(),
        made_with={},
    )
    return tmp_path


def test_the_size_is_that_of_the_network(folder: Path) -> None:
    network, _ = build("vgg_small", 4)
    parameters, size = read_size(folder)
    assert parameters == sum(each.numel() for each in network.parameters())
    assert size == (folder / "model.safetensors").stat().st_size


def test_a_whole_clip_is_classified_on_one_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = Classifier.branches_of

    def noted(self: Classifier, recording: Recording) -> np.ndarray:
        seen.append((len(self.branches), len(recording), torch.get_num_threads()))
        return real(self, recording)

    monkeypatch.setattr(Classifier, "branches_of", noted)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert latency.milliseconds([folder, folder], 0.5) > 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {(2, 11025, 1)}
    assert len(seen) == latency.TRIES + 1
