"""Exported programs against the classifier, run in a process that cannot import the package."""

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mrkd_ray.common.errors import UserError
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.model_folder import write_model
from mrkd_ray.inference.program_export import description, export
from mrkd_ray.networks.catalogue import build, classifier_layer
from mrkd_ray.representations.catalogue import REPRESENTATIONS

BRANCHES = {"cqt": "vgg_small", "mfcc": "vgg_small", "logmel64": "resnet_small"}

WITHOUT_US = "import sys, numpy as np; sys.modules['mrkd_ray'] = sys.modules['librosa'] = None\n"
RUN = {
    ".pt2": (
        "import torch; program = torch.export.load(sys.argv[1]).module()\n"
        "run = lambda x: program(torch.from_numpy(x)).detach().numpy()\n"
    ),
    ".onnx": (
        "import onnxruntime; program = onnxruntime.InferenceSession(sys.argv[1])\n"
        "run = lambda x: program.run(['probabilities'], {'waveforms': x})[0]\n"
    ),
}
SAVE = "np.save(sys.argv[3], run(np.load(sys.argv[2])))\n"


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three branches of 4 classes with random weights that tell recordings apart."""
    root = tmp_path_factory.mktemp("cell")
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    for representation, network in BRANCHES.items():
        entry = REPRESENTATIONS[representation]
        module, _ = build(network, 4)
        with torch.no_grad():
            module.get_submodule(classifier_layer(module)).weight.mul_(30)
        shape = (3, entry.bins)
        statistics = Statistics(
            rng.normal([[-30], [0], [0]], 5, shape).astype(np.float32),
            rng.uniform(5, 15, shape).astype(np.float32),
        )
        name = f"{representation}-{network}"
        write_model(
            root / "branches" / name,
            branch=name,
            representation=representation,
            representation_version=entry.version,
            network_name=network,
            network=module,
            statistics=statistics,
            classes="abcd",
            multi_label=False,
            window_ticks=220 if representation == "mfcc" else 150,
            trained_on=(),
            made_with={},
        )
    return root


def predictions(classifier: Classifier, waveforms: np.ndarray, folder: Path) -> np.ndarray:
    """What the classifier says of the waveforms as files."""
    results = []
    for i, waveform in enumerate(waveforms):
        soundfile.write(folder / f"{i}.wav", waveform, 22050, subtype="FLOAT")
        results.append(classifier.predict(folder / f"{i}.wav").probabilities)
    return np.stack(results)


@pytest.mark.parametrize("suffix", RUN)
@pytest.mark.parametrize(
    ("part", "seconds"), [("", 4.0), ("branches/cqt-vgg_small", 0.7)]
)  # three windows of an ensemble; less than a window
def test_a_program_alone_gives_the_classifiers_probabilities(
    cell: Path, tmp_path: Path, suffix: str, seconds: float, part: str
) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    classifier = Classifier.load(cell / part)
    file = tmp_path / f"model{suffix}"
    export(classifier, file, seconds)

    rng = np.random.default_rng(1)
    samples = round(22050 * seconds)
    envelope = np.sin(np.outer([3, 5, 11], np.arange(samples) / samples)) ** 2
    waveforms = (0.3 * envelope * rng.normal(size=envelope.shape)).astype(np.float32)
    np.save(tmp_path / "in.npy", waveforms)
    code = WITHOUT_US + RUN[suffix] + SAVE
    paths = (file, tmp_path / "in.npy", tmp_path / "out.npy")
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    expected = predictions(classifier, waveforms, tmp_path)
    assert expected.max(axis=1).std() > 1e-3  # they differ, so that a mixed-up batch would show
    assert np.abs(np.load(tmp_path / "out.npy") - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [
        ("model.pt", 1.0, r"ends in \.pt2"),
        ("model.pt2", 0.0, "at least one sample"),
        ("model.pt2", float("nan"), "at least one sample"),
        ("model.pt2", float("inf"), "and an end"),
    ],
)
def test_what_cannot_be_written_is_refused(
    cell: Path, tmp_path: Path, name: str, seconds: float, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export(Classifier.load(cell), tmp_path / name, seconds)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_onnx_without_its_packages_says_what_to_install(
    cell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r"pip install -e '.\[onnx\]'"):
        export(Classifier.load(cell), tmp_path / "model.onnx", 1.0)


READ = {
    ".pt2": (
        "import torch, json, sys; files = dict.fromkeys(sys.argv[2:], '')\n"
        "torch.export.load(sys.argv[1], extra_files=files); print(json.dumps(files))\n"
    ),
    ".onnx": (
        "import onnxruntime, json, sys; session = onnxruntime.InferenceSession(sys.argv[1])\n"
        "print(json.dumps(session.get_modelmeta().custom_metadata_map))\n"
    ),
}


@pytest.mark.parametrize("suffix", READ)
def test_a_program_says_what_it_is(cell: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    folder = cell / "branches/cqt-vgg_small"
    file = tmp_path / f"model{suffix}"
    export(Classifier.load(folder), file, 0.5)
    names = list(description(Classifier.load(folder), 1))
    done = subprocess.run(
        [sys.executable, "-c", READ[suffix], file, *names],
        check=True,
        capture_output=True,
        text=True,
    )
    weights = (folder / "model.safetensors").read_bytes()
    found = {name: json.loads(value) for name, value in json.loads(done.stdout).items()}
    assert found == {
        "classes": list("abcd"),
        "multi_label": False,
        "sample_rate": 22050,
        "samples": 11025,
        "seconds": 0.5,
        "representations": ["cqt"],
        "representation_versions": [REPRESENTATIONS["cqt"].version],
        "networks": ["vgg_small"],
        "sha256": [hashlib.sha256(weights).hexdigest()],
        "mrkd_ray": version("mrkd-ray"),
    }


def test_hidden_files_beside_branches_are_no_branches(cell: Path) -> None:
    (cell / "branches/.DS_Store").touch()
    (cell / "branches/.ipynb_checkpoints").mkdir()
    assert len(Classifier.load(cell).branches) == len(BRANCHES)
