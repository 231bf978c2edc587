"""What strangers bring: nothing of it is run, and nothing is allocated on its word."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import resource
import shutil
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mrkd_ray.cells import files as cell_files
from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import Damaged, read_array
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.model_folder import write_model
from mrkd_ray.networks import catalogue
from mrkd_ray.networks.weights import load_weights
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.training import checkpoints
from tests.conftest import ROOT

CODE = sorted((ROOT / "mrkd_ray").rglob("*.py"))


# No code is run ----------------------------------------------------------------------------------


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def keyword(call: ast.Call, name: str) -> object:
    """The value of a keyword, None where it is not given."""
    found = [k.value for k in call.keywords if k.arg == name]
    return getattr(found[0], "value", found[0]) if found else None


RUN = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
UNPICKLE = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_run(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {name.name.partition(".")[0] for name in node.names} & UNPICKLE
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in UNPICKLE
    for call in calls(tree):
        name = ast.unparse(call.func)
        assert name not in RUN
        assert not name.endswith(("read_pickle", "export.load", "jit.load", "unsafe_load"))
        assert keyword(call, "allow_pickle") in (None, False)
        assert keyword(call, "shell") in (None, False)
        assert keyword(call, "trust_remote_code") in (None, False)
        if name == "torch.load":
            assert keyword(call, "weights_only") is True
        if name == "yaml.load":
            assert ast.unparse(call.args[1]) == "_loader()"


class Bomb:
    """A pickle that makes a file where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


@pytest.fixture
def bomb(tmp_path: Path) -> tuple[bytes, Path]:
    """The bytes of a malicious pickle, and what it makes."""
    mark = tmp_path / "it ran"
    content = pickle.dumps(Bomb(mark))
    pickle.loads(content)
    mark.rmdir()
    return content, mark


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("container", ["a pickle", "torch.save"])
def test_malicious_weights_are_not_run(
    suffix: str, container: str, bomb: tuple[bytes, Path], tmp_path: Path
) -> None:
    content, mark = bomb
    file = tmp_path / f"weights{suffix}"
    if container == "torch.save":
        torch.save({"fc.weight": Bomb(mark)}, file)
    else:
        file.write_bytes(content)
    network, _ = catalogue.build("vgg_small", 3)
    with pytest.raises(UserError, match="cannot be read"):
        load_weights(network, "vgg_small", file, classifier="x")
    assert not mark.exists()


def test_weights_that_would_be_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    network, _ = catalogue.build("vgg_small", 3)
    torch.save({"x": torch.zeros(10_000)}, tmp_path / "plain.pt")
    bomb = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for each in plain.infolist():
            packed.writestr(each.filename, plain.read(each))
    with pytest.raises(UserError, match=r"bomb\.pt: cannot be read .*compressed"):
        load_weights(network, "vgg_small", bomb, classifier="x")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network, _ = catalogue.build("vgg_small", 3)
    state = network.state_dict()
    state["0.weight" if "0.weight" in state else next(iter(state))].fill_(torch.nan)
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(UserError, match="holds NaN"):
        load_weights(network, "vgg_small", tmp_path / "nan.pth", classifier="x")


def object_array(bomb: bytes) -> bytes:
    """A .npy of objects, which NumPy would unpickle."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": (1, 1, 1)}
    )
    return header.getvalue() + bomb


@pytest.mark.parametrize("make", [bytes, object_array])
def test_malicious_figures_and_checkpoints_are_not_run(
    make: Callable[[bytes], bytes], bomb: tuple[bytes, Path], tmp_path: Path
) -> None:
    content, mark = bomb
    network, _ = catalogue.build("vgg_small", 3)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    modules, place = {"network": network}, torch.device("cpu")
    folder = tmp_path / "cycle-000001"
    folder.mkdir()
    for name in ("a.safetensors", "rows.json", "predictions.csv", "history.csv", "predicted.npy"):
        (folder / name).write_bytes(make(content))
    with pytest.raises(Damaged):
        checkpoints.load_branch(folder, "a", modules, optimiser, "fp32", place)
    with pytest.raises(Damaged):
        checkpoints.read_rows(folder)
    with pytest.raises(Damaged):
        cell_files.read_predictions(folder)
    with pytest.raises(Damaged):
        cell_files.read_figures(folder)
    with pytest.raises(Damaged):
        read_array(folder / "predicted.npy", "int16", 3)
    assert not mark.exists()


# A stranger's model ------------------------------------------------------------------------------

NAME, BINS = "vgg_small", 64


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A whole model that was sent without sums: as a stranger would, who changed it."""
    folder = tmp_path / "model"
    network, _ = catalogue.build(NAME, 3)
    write_model(
        folder,
        branch="b",
        representation="logmel64",
        representation_version=REPRESENTATIONS["logmel64"].version,
        network_name=NAME,
        network=network,
        statistics=Statistics(np.zeros((3, BINS), np.float32), np.ones((3, BINS), np.float32)),
        classes=("a", "b", "c"),
        multi_label=False,
        trained_on=["00"],
        made_with={},
    )
    Classifier.load(folder)
    (folder / manifest.NAME).unlink()
    Classifier.load(folder)
    return folder


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "a word for a truth value": ({"multi_label": "no"}, "multi_label: "),
    "a number for a name": ({"branch": 1}, "branch: "),
    "no classes": ({"classes": []}, "classes: "),
    "a class twice": ({"classes": ["a", "a", "b"]}, "classes: a class is there twice"),
    "another number of classes": ({"classes": ["a", "b"]}, "has shape"),
    "a class that clears the screen": ({"classes": ["a", "b", "\x1b[2J"]}, r"'\\x1b\[2J'"),
    "a class that forges a line": ({"classes": ["a", "b", "c\nd: e 99 %"]}, r"'c\\nd: e 99 %'"),
    "a huge network": ({"network": "vit_h_14"}, "has shape"),
    "another network": ({"network": "resnet_small"}, "has shape"),
    "a network of a hub": ({"network": "timm.hf-hub:someone/something"}, "unknown network"),
    "a network of a path": ({"network": "../../weights"}, "unknown network"),
    "a representation of other bins": (
        {"representation": "cqt", "representation_version": REPRESENTATIONS["cqt"].version},
        "has shape",
    ),
    "an unknown representation": ({"representation": "/etc/passwd"}, "unknown representation"),
    "a window of years": ({"window_ticks": 10**12}, "window_ticks: "),
    "a window of nothing": ({"window_ticks": 0}, "window_ticks: "),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_is_checked_before_anything_is_built(
    case: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, message = CONFIGS[case]
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    built: list[str] = []
    monkeypatch.setattr(catalogue, "build", lambda name, *rest, **more: built.append(name))
    with pytest.raises(UserError, match=message) as error:
        Classifier.load(model)
    assert built == []
    assert "\x1b" not in str(error.value)
    assert "\n" not in str(error.value).replace("\n ", "")


@pytest.mark.parametrize(
    "text", ["[]", "null", "{", '{"branch": NaN}', "[" * 100_000, '{"a": 1e999}', "\ufeff{}", ""]
)
def test_a_config_that_is_none_is_refused(text: str, model: Path) -> None:
    (model / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: damaged"):
        Classifier.load(model)


Tensors = dict[str, torch.Tensor]
FIRST = "network.0.weight"
TENSORS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "NaN in a weight": (lambda t: t | {k: x * torch.nan for k, x in t.items()}, "holds NaN"),
    "infinity in the mean": (lambda t: t | {"mean": t["mean"] / 0 + torch.inf}, "holds NaN"),
    "a mean of another rank": (lambda t: t | {"mean": t["mean"][0]}, "'mean' has shape"),
    "a mean of other bins": (lambda t: t | {"mean": torch.zeros(3, 1)}, "'mean' has shape"),
    "a deviation of 0": (lambda t: t | {"std": t["std"] * 0}, "not above 0"),
    "a deviation below 0": (lambda t: t | {"std": -t["std"]}, "not above 0"),
    "no mean": (lambda t: {k: x for k, x in t.items() if k != "mean"}, "'mean' has shape None"),
    "a tensor more": (lambda t: t | {"network.more": torch.zeros(3)}, "'network.more' has shape"),
    "none at all": (lambda t: {"x": torch.zeros(1)}, "has shape"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_are_checked_before_they_are_used(case: str, model: Path) -> None:
    change, message = TENSORS[case]
    path = model / "model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(UserError, match=message):
        Classifier.load(model)


def test_a_header_that_promises_more_than_there_is_is_refused(model: Path) -> None:
    path = model / "model.safetensors"
    header = b'{"mean":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,399999999996]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        Classifier.load(model)
    path.write_bytes((2**62).to_bytes(8, "little"))
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        Classifier.load(model)


@pytest.mark.parametrize("line", ["../secret", "/etc/passwd", "a/../../b", "..\\b", "a\x00"])
def test_a_manifest_names_nothing_outside_its_folder(line: str, model: Path) -> None:
    (model / manifest.NAME).write_text(f"{'0' * 64}  {line}\n")
    with pytest.raises(UserError, match="not a line of a manifest"):
        Classifier.load(model)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "trained_on.txt"])
@pytest.mark.parametrize("kind", ["a pipe", "/dev/zero"])
def test_a_file_of_a_model_that_is_no_file_is_not_waited_for(
    name: str, kind: str, model: Path
) -> None:
    (model / name).unlink()
    if kind == "a pipe":
        os.mkfifo(model / name)
    else:
        (model / name).symlink_to(kind)
    with pytest.raises(UserError):
        Classifier.load(model)


def test_the_sizes_of_a_huge_network_take_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = catalogue.shapes("vit_h_14", 10, 64)
    assert sum(shape.numel() for shape in found.values()) > 630e6  # 2.5 GB of float32
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("name", ["vgg_small", "leaf_small", "mn01", "linear", "regnet_y_400mf"])
def test_sizes_are_those_of_the_network(name: str) -> None:
    module, _ = catalogue.build(name, 5, bins=64)
    assert catalogue.shapes(name, 5, 64) == {k: x.shape for k, x in module.state_dict().items()}


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label", ["\x1b[2J", "a\nerror: forged", "a\x00b", "a\u202eb", "a\u2028b", "a\rb"]
)
@pytest.mark.parametrize("layout", ["folders", "csv"])
def test_labels_with_control_characters_are_refused(
    label: str, layout: str, clips: Path, tmp_path: Path
) -> None:
    if layout == "folders":
        if "\x00" in label:
            pytest.skip("no file system has such names")
        for name in ("plain", label):
            (tmp_path / "data" / name).mkdir(parents=True)
            shutil.copy(clips / "00.wav", tmp_path / "data" / name)
    else:
        (tmp_path / "data").mkdir()
        shutil.copy(clips / "00.wav", tmp_path / "data")
        rows = f'filename,label\n00.wav,"{label}"\n'
        (tmp_path / "data" / "meta.csv").write_text(rows, newline="")
    with pytest.raises(UserError) as error:
        open_dataset(tmp_path / "data", tmp_path)
    assert not set("\x1b\x00\r\u202e\u2028") & set(str(error.value))


def test_names_of_files_are_printed_as_text(clips: Path, tmp_path: Path) -> None:
    from mrkd_ray.cli.main import main

    name = tmp_path / "\x1b[2J\x1b]0;owned\x07.wav"
    name.write_text("no sound")
    printed = io.StringIO()
    with redirect_stderr(printed), pytest.raises(SystemExit):
        main(["prepare", "--data", str(name), "--representations", "logmel64"])
    assert r"\x1b[2J" in printed.getvalue()
    assert "\x1b" not in printed.getvalue()


def test_no_cell_of_a_table_is_a_formula(tmp_path: Path) -> None:
    from mrkd_ray.training.branch_task import Part

    classes = ("=cmd|' /C calc'!A0", "@x")
    part = Part(clip_ids=("=1+1.wav", "-2.wav"), labels=np.array([0, 1]))
    scores = {"m": np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)}
    cell_files.write_predictions(tmp_path, part, classes, scores)
    text = (tmp_path / "predictions.csv").read_text()
    for line in text.splitlines():
        assert not any(cell.lstrip('"').startswith(("=", "@", "-")) for cell in line.split(","))
    clip_ids, labels, found = cell_files.read_predictions(tmp_path)
    assert tuple(clip_ids) == part.clip_ids
    assert labels.tolist() == [0, 1]
    np.testing.assert_array_equal(found["m"], scores["m"])
