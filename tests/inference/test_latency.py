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
    parameters, _, size = read_size(folder)
    assert parameters == sum(each.numel() for each in network.parameters())
    assert size == (folder / "model.safetensors").stat().st_size


def test_multiplications_are_those_of_all_windows_and_of_what_is_shared_once(folder: Path) -> None:
    products = []

    def count(layer: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        assert isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)
        products.append(output.numel() * layer.weight[0].numel())

    network, _ = build("vgg_small", 4)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 64, 150))
    one = latency.multiplications([folder], 1.4)  # a window
    three = latency.multiplications([folder], 4.2)
    assert three == pytest.approx(3 * one, rel=0.01)
    twice = latency.multiplications([folder, folder], 1.4)
    assert twice - one == sum(products)


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
