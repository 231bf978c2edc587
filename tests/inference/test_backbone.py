"""A model on a frozen network travels: its folder and its program hold all that it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mrkd_ray.audio.decoding import SAMPLE_RATE, Recording
from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import write_json
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.inference import packing
from mrkd_ray.inference.calibration import UNCALIBRATED
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.model_folder import BACKBONE, CONFIG, read_size, write_model
from mrkd_ray.inference.program_export import Clips, export
from mrkd_ray.networks.catalogue import build
from mrkd_ray.representations import mobilenet, panns, pretrained
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.representations.mobilenet import AudioMobileNet
from mrkd_ray.training.branch import elsewhere


@pytest.fixture
def folder(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of `mn04:linear` with random weights, made where the official file is."""
    return make(shared, tmp_path, monkeypatch, "mn04")


def make(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    monkeypatch.setenv(pretrained.FOLDER, str(shared / "weights"))
    monkeypatch.setattr(mobilenet, "_carried", {})
    mobilenet.trained.cache_clear()
    mobilenet.write_backbone(name, tmp_path / "store.safetensors")
    torch.manual_seed(0)
    bins = REPRESENTATIONS[name].bins
    write_model(
        tmp_path / "model",
        branch=f"{name}-linear",
        representation=name,
        representation_version=REPRESENTATIONS[name].version,
        network_name="linear",
        network=build("linear", 5, bins=bins)[0],
        statistics=Statistics(np.zeros((3, bins), np.float32), np.full((3, bins), 0.1, np.float32)),
        classes="abcde",
        multi_label=False,
        trained_on=(),
        made_with={},
        backbone=tmp_path / "store.safetensors",
    )
    return tmp_path / "model"


def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 3 * SAMPLE_RATE).astype(np.float32)


def test_its_folder_is_enough_where_the_weights_are_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Classifier.load(folder).branches_of(Recording(noise()))
    assert expected.max() < 0.9
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    mobilenet.trained.cache_clear()
    np.testing.assert_array_equal(Classifier.load(folder).branches_of(Recording(noise())), expected)
    packing.write_folder(tmp_path / "parts", [folder], {}, UNCALIBRATED)
    packing.pack(tmp_path / "one.mrkd", tmp_path / "parts")
    monkeypatch.setattr(mobilenet, "_carried", {})
    mobilenet.trained.cache_clear()
    packed = Classifier.load(tmp_path / "one.mrkd")
    np.testing.assert_array_equal(packed.branches_of(Recording(noise())), expected)
    parameters, trained, size = read_size(folder)
    assert trained == 385 * 5
    features = mobilenet.trained("mn04", torch.device("cpu")).features
    assert parameters == sum(p.numel() for p in features.parameters()) + 385 * 5
    assert size > 4 * parameters


@pytest.mark.parametrize("name", ["mn10", "panns_cnn10"])
def test_a_frozen_network_that_does_not_come_along_is_counted_too(
    name: str, folder: Path, tmp_path: Path
) -> None:
    told = elsewhere(name)
    network = (panns.Cnn10 if name in panns.NETWORKS else partial(AudioMobileNet, 1.0, 527))()
    named = network.named_parameters()
    needed = [p for n, p in named if not n.startswith(("fc", "classifier"))]
    assert told["backbone"]["parameters"] == sum(p.numel() for p in needed)
    (folder / BACKBONE).unlink()
    config = json.loads((folder / CONFIG).read_text())
    write_json(folder / CONFIG, config | told)
    manifest.write(folder)
    alone, whole = 385 * 5, read_size(folder)
    assert whole[:2] == (alone + told["backbone"]["parameters"], alone)
    assert whole.bytes > 4 * whole.parameters


def test_the_hidden_layer_comes_along_where_it_is_needed(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(shared, tmp_path, monkeypatch, "mn04_context")
    expected = Classifier.load(folder).branches_of(Recording(noise()))
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    mobilenet.trained.cache_clear()
    np.testing.assert_array_equal(Classifier.load(folder).branches_of(Recording(noise())), expected)


def test_a_folder_from_before_needs_the_weights_and_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / BACKBONE).unlink()
    Classifier.load(folder)
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    mobilenet.trained.cache_clear()
    with pytest.raises(UserError, match="mrkd download mn04"):
        Classifier.load(folder)


def test_another_network_in_its_place_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = load_file(folder / BACKBONE)
    tensors["0.0.weight"] *= 1.01
    (folder / BACKBONE).unlink()
    save_file(tensors, folder / BACKBONE)
    manifest.write(folder)
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    mobilenet.trained.cache_clear()
    with pytest.raises(UserError, match=r"backbone.*not the network mn04"):
        Classifier.load(folder)


def test_its_onnx_needs_neither_torch_nor_the_weights(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    classifier = Classifier.load(folder)
    waveform = Recording(noise()).at(32_000)
    clips = Clips("clips", [Recording(waveform, 32_000)])
    export(classifier, tmp_path / "program.onnx", clips, seconds=len(waveform) / 32_000)
    np.save(tmp_path / "x.npy", waveform[None])
    code = (
        "import sys; sys.modules['torch'] = sys.modules['mrkd_ray'] = None\n"
        "import numpy as np, onnxruntime\n"
        "program = onnxruntime.InferenceSession('program.onnx')\n"
        "np.save('y.npy', program.run(None, {'waveforms': np.load('x.npy')})[0])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    expected = classifier.branches_of(Recording(waveform, 32_000))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=0, atol=1e-4)
