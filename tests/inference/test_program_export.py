"""Exported programs against the classifier, run in a process that cannot import the package."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.errors import UserError
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.model_folder import write_model
from mrkd_ray.inference.program_export import (
    PARITY,
    Clips,
    _compared,
    _quantised,
    _session,
    description,
    export,
)
from mrkd_ray.inference.tflite_export import program_of
from mrkd_ray.networks.catalogue import build, classifier_layer
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.representations.fourier import real_numbers

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
SAVE = "np.savez(sys.argv[3], *map(run, np.load(sys.argv[2]).values()))\n"


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
            module.get_submodule(classifier_layer(module)).weight.mul_(10)
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


@pytest.fixture(scope="module")
def programs(cell: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An ensemble as .onnx and a branch as .pt2, for recordings of any length."""
    pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    folder = tmp_path_factory.mktemp("programs")
    made = {".onnx": folder / "model.onnx", ".pt2": folder / "model.pt2"}
    for suffix, file in made.items():
        found = export(Classifier.load(cell / PARTS[suffix]), file, clips_of(3, 30_000))
        assert found.clips == 3
        assert found.difference <= PARITY
    return made


PARTS = {".onnx": "", ".pt2": "branches/cqt-vgg_small"}


def clips_of(count: int, samples: int) -> Clips:
    rng = np.random.default_rng(1)
    envelope = np.sin(np.outer([3, 5, 11][:count], np.arange(samples) / samples)) ** 2
    waveforms = (0.3 * envelope * rng.normal(size=envelope.shape)).astype(np.float32)
    return Clips("made", [Recording(each, 22050) for each in waveforms], [0] * count)


@pytest.mark.parametrize("samples", [9_000, 33_000, 88_217])  # below a window; one; three
def test_what_tensorflow_lite_is_made_of_gives_the_classifiers_probabilities(
    cell: Path, tmp_path: Path, samples: int
) -> None:
    """Real numbers alone, and windows of one length."""
    classifier = Classifier.load(cell)
    waveform = np.stack([each.at(22050) for each in clips_of(1, samples).recordings])
    with real_numbers(), torch.no_grad():
        found = program_of(classifier, samples)(torch.from_numpy(waveform)).numpy()
    expected = predictions(classifier, waveform, tmp_path)
    assert expected.std() > 100 * PARITY  # other windows would show
    assert np.abs(found - expected).max() < PARITY


@pytest.mark.slow
def test_a_tensorflow_lite_program_alone(cell: Path, tmp_path: Path) -> None:
    """It runs, says what it is, and has the classifier's probabilities."""
    pytest.importorskip("litert_torch", reason="the tflite extra is not installed")
    classifier = Classifier.load(cell / "branches/logmel64-resnet_small")
    file = tmp_path / "model.tflite"
    assert export(classifier, file, clips_of(3, 40_000), seconds=1.8).difference <= PARITY
    with zipfile.ZipFile(file) as archive:
        told = json.loads(archive.read("description.json"))
    assert told["classes"] == list("abcd")
    assert told["samples"] == 39_690
    assert told["parity"]["clips"] == 3


def test_tensorflow_lite_takes_one_length(cell: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one length: give --seconds"):
        export(Classifier.load(cell), tmp_path / "model.tflite", clips_of(1, 40_000))


@pytest.mark.parametrize("suffix", RUN)
def test_a_program_alone_gives_the_classifiers_probabilities_of_any_length_and_number(
    cell: Path, programs: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    classifier = Classifier.load(cell / PARTS[suffix])
    given = [  # below a window; one; three
        np.stack([each.at(22050) for each in clips_of(count, samples).recordings])
        for samples, count in ((9_000, 1), (33_000, 3), (88_217, 2))
    ]
    np.savez(tmp_path / "in.npz", *given)
    code = WITHOUT_US + RUN[suffix] + SAVE
    paths = (programs[suffix], tmp_path / "in.npz", tmp_path / "out.npz")
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    for waveforms, found in zip(given, np.load(tmp_path / "out.npz").values(), strict=True):
        expected = predictions(classifier, waveforms, tmp_path)
        if len(waveforms) > 1:
            assert expected.max(axis=1).std() > 2 * PARITY  # a mixed-up batch would show
        assert np.abs(found - expected).max() < PARITY


def test_branches_share_one_fourier_transform(programs: dict[str, Path]) -> None:
    """Of the log-Mel and the MFCC branch: recordings are cut into hops once, by ones and zeros."""
    import onnx

    graph = onnx.load(programs[".onnx"]).graph
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    cuts = [node for node in graph.node if shapes.get("".join(node.input[1:2])) == (220, 1, 220)]
    assert [node.op_type for node in cuts] == ["Conv"]
    # ONNX Runtime's own is coarse at 1,764 samples: MFCC are then 3e-4 from the model.
    assert not {"STFT", "DFT"} & {node.op_type for node in graph.node}


def test_int8_is_smaller_and_leaves_the_front_end(programs: dict[str, Path]) -> None:
    made = _quantised(programs[".onnx"])
    assert made.stat().st_size < 0.6 * programs[".onnx"].stat().st_size
    import onnx

    nodes = [node.op_type for node in onnx.load(made).graph.node]
    assert "ConvInteger" in nodes
    assert "Conv" in nodes  # of the CQT
    (one,) = clips_of(1, 30_000).recordings
    waveforms = one.at(22050)[None]
    np.testing.assert_allclose(
        _session(made)(waveforms), _session(programs[".onnx"])(waveforms), atol=0.1
    )


def test_another_program_than_the_model_is_not_written(cell: Path) -> None:
    classifier = Classifier.load(cell / PARTS[".pt2"])
    given = clips_of(2, 9_000)

    def right(waveforms: np.ndarray) -> np.ndarray:
        return np.stack(
            [classifier.predict(each, sample_rate=22050).probabilities for each in waveforms]
        )

    def wrong(waveforms: np.ndarray) -> np.ndarray:
        return right(waveforms) + np.float32(2e-4)

    assert _compared(classifier, right, given, None, Path("a.onnx"), int8=False).difference == 0
    with pytest.raises(UserError, match=r"a\.onnx: not written: on made .* 2\.0e-04"):
        _compared(classifier, wrong, given, None, Path("a.onnx"), int8=False)
    found = _compared(classifier, wrong, given, None, Path("a.onnx"), int8=True)
    assert found.accuracy is not None
    assert "before" in found.text


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
        export(Classifier.load(cell), tmp_path / name, clips_of(1, 9_000), seconds=seconds)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_onnx_without_its_packages_says_what_to_install(
    cell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r"pip install -e '.\[onnx\]'"):
        export(Classifier.load(cell), tmp_path / "model.onnx", clips_of(1, 9_000))


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
def test_a_program_says_what_it_is(cell: Path, programs: dict[str, Path], suffix: str) -> None:
    classifier = Classifier.load(cell / PARTS[suffix])
    names = [*description(classifier, None), "parity"]
    done = subprocess.run(
        [sys.executable, "-c", READ[suffix], programs[suffix], *names],
        check=True,
        capture_output=True,
        text=True,
    )
    found = {name: json.loads(value) for name, value in json.loads(done.stdout).items()}
    assert found.pop("parity").keys() == {
        "clips", "of", "difference", "accuracy", "accuracy_of_program"
    }  # fmt: skip
    assert found == description(classifier, None)
    assert found["classes"] == list("abcd")
    assert (found["sample_rate"], found["samples"]) == (22050, None)
    weights = (cell / "branches/cqt-vgg_small/model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in found["sha256"]


def test_hidden_files_beside_branches_are_no_branches(cell: Path) -> None:
    (cell / "branches/.DS_Store").touch()
    (cell / "branches/.ipynb_checkpoints").mkdir()
    assert len(Classifier.load(cell).branches) == len(BRANCHES)
