"""Networks from ImageNet as frozen representations of spectrograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchvision import models

from mrkd_ray.audio.decoding import SAMPLE_RATE, LongRecording, Recording
from mrkd_ray.audio.decoding import load as load_recording
from mrkd_ray.common.errors import UserError
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.inference import packing
from mrkd_ray.inference.calibration import UNCALIBRATED
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.model_folder import write_model
from mrkd_ray.networks.catalogue import build
from mrkd_ray.networks.freezing import can_freeze, freeze
from mrkd_ray.representations import frozen, parts, pretrained
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip

FILES = {
    "squeezenet1_0": "squeezenet1_0-imagenet.pth",
    "mobilenet_v2": "mobilenet_v2-features-imagenet.pth",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, empty."""
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    monkeypatch.setattr(frozen, "_brought", {})
    return tmp_path


def noise(seconds: float = 2.2) -> Recording:
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    return Recording(samples.astype(np.float32))


@pytest.mark.parametrize(("network", "bins"), [("squeezenet1_0", 512), ("mobilenet_v2", 1280)])
def test_features_are_those_of_the_network_on_each_excerpt(
    network: str, bins: int, shared: Path
) -> None:
    weights = shared / "weights" / FILES[network]
    freeze(network, weights)
    name = f"logmel64@{network}"
    entry = REPRESENTATIONS[name]
    assert (entry.bins, entry.embedding) == (bins, True)
    frames = compute_clip([name, "logmel64"], noise())
    assert frames[name].shape == (entry.timing.frames(len(noise())), bins)
    whole = models.get_model(network, weights=None).eval()
    whole.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    excerpt = torch.from_numpy(frames["logmel64"][frozen.HOP : 3 * frozen.HOP].T)
    image = (excerpt - excerpt.mean()) / (excerpt.std() + frozen.SILENCE)
    with torch.no_grad():
        expected = whole.features(image.expand(1, 3, -1, -1)).mean((2, 3))[0]
    np.testing.assert_allclose(frames[name][2], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("samples", [1, 219, 220, 48 * 220 - 1, 48 * 220, 48 * 220 + 1, 70_000])
def test_any_length_has_the_frames_of_its_timing(samples: int) -> None:
    spectrogram = torch.randn(2, 8, 1 + samples // 220)
    count = 1 + samples // (220 * frozen.HOP)
    assert frozen.excerpts(spectrogram).shape == (2 * count, 3, 8, 2 * frozen.HOP)


def test_what_is_not_there_says_how_to_get_it(folder: Path) -> None:
    with pytest.raises(UserError, match="mrkd download resnet18"):
        REPRESENTATIONS["logmel64@resnet18"]
    with pytest.raises(UserError, match="unknown representation 'logmle64'"):
        REPRESENTATIONS["logmle64@resnet18"]
    torch.save(models.squeezenet1_1(weights=None).state_dict(), folder / "other.pth")
    with pytest.raises(UserError, match="not those of squeezenet1_0"):
        freeze("squeezenet1_0", folder / "other.pth")
    assert can_freeze("resnet18")
    assert can_freeze("timm.resnet18")
    assert not can_freeze("esc51")


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v3_small", "timm.resnet18"])
def test_networks_of_both_libraries_become_representations(network: str, folder: Path) -> None:
    if network.startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    torch.save(frozen.backbone(network).state_dict(), folder / "random.pth")
    freeze(network, folder / "random.pth")
    found = compute_clip([f"mfcc@{network}"], noise())[f"mfcc@{network}"]
    assert found.shape[1] == REPRESENTATIONS[f"mfcc@{network}"].bins
    assert np.isfinite(found).all()


def test_a_long_recording_is_seen_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(frozen.backbone("squeezenet1_0").state_dict(), folder / "random.pth")
    freeze("squeezenet1_0", folder / "random.pth")
    name = "logmel64@squeezenet1_0"
    soundfile.write(folder / "long.wav", noise(13.3).at(SAMPLE_RATE), SAMPLE_RATE)
    monkeypatch.setattr(parts, "SECONDS", 4.0)
    made = parts.compute_parts([name], LongRecording(folder / "long.wav"))
    found = np.concatenate([frames for _, frames in made])
    whole = compute_clip([name], load_recording(folder / "long.wav"))[name]
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-4)


def test_a_model_brings_its_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(frozen.backbone("squeezenet1_0").state_dict(), folder / "random.pth")
    file = freeze("squeezenet1_0", folder / "random.pth")
    name = "logmel64@squeezenet1_0"
    entry = REPRESENTATIONS[name]
    write_model(
        tmp_path / "model",
        branch="x",
        representation=name,
        representation_version=entry.version,
        network_name="linear",
        network=build("linear", 3, bins=entry.bins)[0],
        statistics=Statistics(
            np.zeros((3, entry.bins), np.float32), np.ones((3, entry.bins), np.float32)
        ),
        classes="abc",
        multi_label=False,
        trained_on=(),
        made_with={},
        backbone=file,
    )
    expected = Classifier.load(tmp_path / "model").branches_of(noise())
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path / "elsewhere"))
    np.testing.assert_array_equal(
        Classifier.load(tmp_path / "model").branches_of(noise()), expected
    )
    packing.write_folder(tmp_path / "parts", [tmp_path / "model"], {}, UNCALIBRATED)
    packing.pack(tmp_path / "one.mrkd", tmp_path / "parts")
    monkeypatch.setattr(frozen, "_brought", {})
    packed = Classifier.load(tmp_path / "one.mrkd")
    np.testing.assert_array_equal(packed.branches_of(noise()), expected)
    (tmp_path / "other").write_bytes(b"of a stranger")
    with pytest.raises(UserError, match="another squeezenet1_0"):
        frozen.bring("squeezenet1_0", tmp_path / "other")
