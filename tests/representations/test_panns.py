"""PANNs' networks: the layers of the official files, and what they compute. No file is here."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.errors import UserError
from mrkd_ray.representations import panns, pretrained
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip

PARAMETERS = {"panns_cnn10": 5_219_279, "panns_mobilenetv1": 4_796_303}  # as the paper counts them


def official(name: str) -> dict[str, Tensor]:
    """A state dict as the official one: its keys and shapes, its filters, random weights."""
    torch.manual_seed(0)
    network = panns.NETWORKS[name]()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    filters = librosa.filters.mel(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000)
    transforms = dict.fromkeys(panns.TRANSFORMS, torch.zeros(513, 1, 1024))
    own = {**network.state_dict(), "logmel_extractor.melW": torch.from_numpy(filters.T)}
    return transforms | own


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_are_the_published_ones(name: str) -> None:
    network = panns.NETWORKS[name]()
    learned = sum(p.numel() for p in network.parameters()) - network.logmel_extractor.melW.numel()
    assert learned == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_file_is_loaded_whole_or_not_at_all(name: str) -> None:
    tensors = official(name)
    network = panns.load(name, {"model": tensors})
    loaded = network.state_dict()
    assert {*loaded, *panns.TRANSFORMS} == tensors.keys()
    assert all(torch.equal(loaded[key], tensors[key]) for key in loaded)
    for wrong in (
        {key: x for key, x in tensors.items() if key != "fc1.bias"},
        {key: x for key, x in tensors.items() if key != panns.TRANSFORMS[0]},
        tensors | {"more": torch.zeros(1)},
        tensors | {"fc1.bias": torch.zeros(7)},
    ):
        with pytest.raises((RuntimeError, ValueError)):
            panns.load(name, {"model": wrong})


def test_the_front_end_is_librosas_power_in_db() -> None:
    network = panns.load("panns_cnn10", official("panns_cnn10")).eval()
    network.bn0 = nn.BatchNorm2d(64).eval()  # changes (almost) nothing
    wave = noise(20_000)
    with torch.no_grad():
        found = network.logmel(torch.from_numpy(wave)[None])[0, 0].numpy()
    mel = librosa.feature.melspectrogram(
        y=wave,
        sr=32_000,
        n_fft=1024,
        hop_length=320,
        pad_mode="reflect",
        n_mels=64,
        fmin=50,
        fmax=14_000,
    )
    np.testing.assert_allclose(found, 10 * np.log10(mel).T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("samples", [1, 319, 600, 5_120, 40_960])
def test_the_representation_is_the_last_convolution_from_its_file(
    name: str, samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = official(name)
    file = tmp_path / pretrained.FILES[name].file
    torch.save({"model": tensors}, file)
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    with pytest.raises(UserError, match="not the official file"):
        REPRESENTATIONS[name].check()
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(pretrained.FILES, name, replace(pretrained.FILES[name], md5=md5))
    panns.trained.cache_clear()
    pretrained._verified.cache_clear()
    found = compute_clip([name], Recording(noise(samples), 32_000))[name]
    assert found.shape == (REPRESENTATIONS[name].timing.frames(samples), len(found[0]))
    assert np.isfinite(found).all()
    if samples == 40_960:
        network = panns.load(name, tensors).eval()
        with torch.no_grad():
            spectrogram = network.logmel(torch.from_numpy(noise(samples))[None])
            whole = spectrogram[:, :, : 128 // network.stride * network.stride]
            expected = network.convolved(whole).mean(3)[0].T
        np.testing.assert_allclose(found[:2], expected[:2], rtol=0, atol=1e-4)
    panns.trained.cache_clear()
