"""A model in one file: nothing is lost, and nothing of a stranger's is taken unseen."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.calibration import Calibration
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.packing import card, pack, unpack, write_folder
from tests.cli.test_main import mrkd, refused
from tests.inference.test_classifier import classifier  # noqa: F401  # a fixture


@pytest.fixture
def packed(classifier: Classifier, tmp_path: Path) -> Path:  # noqa: F811
    done = mrkd("pack", classifier.branches[0].folder.parents[1], tmp_path / "two.mrkd")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'two.mrkd'}\n"
    return tmp_path / "two.mrkd"


def test_it_says_the_same_and_lies_alone(
    classifier: Classifier,  # noqa: F811
    clips: Path,
    packed: Path,
) -> None:
    again = Classifier.load(packed)
    assert again.names == classifier.names
    assert again.trained_on == classifier.trained_on
    file = clips / "00.wav"
    np.testing.assert_array_equal(again.predict(file).branches, classifier.predict(file).branches)
    assert again.branches[0].model.sha256 == classifier.branches[0].model.sha256


def test_it_is_pickled_whole(packed: Path, clips: Path) -> None:
    """As another process gets it, where the file and the folder of its parts are not."""
    first = Classifier.load(packed)
    expected = first.predict(clips / "00.wav").probabilities
    content = pickle.dumps(first)
    packed.unlink()
    del first
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.predict(clips / "00.wav").probabilities, expected)
    assert isinstance(pickle.loads(pickle.dumps(again)), Classifier)


def test_the_same_model_is_the_same_bytes(
    classifier: Classifier,  # noqa: F811
    packed: Path,
) -> None:
    other = packed.with_name("again.mrkd")
    mrkd("pack", classifier.branches[0].folder.parents[1], other)
    assert other.read_bytes() == packed.read_bytes()


def test_a_folder_for_the_hub_has_a_card_and_is_a_model(
    classifier: Classifier,  # noqa: F811
    tmp_path: Path,
) -> None:
    cell = classifier.branches[0].folder.parents[1]
    hub = tmp_path / "hub"
    assert mrkd("pack", cell, "--hub", hub).returncode == 0
    _, metadata, text = (hub / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(metadata)["pipeline_tag"] == "audio-classification"
    assert "clicks, noise, tone" in text
    assert "logmel64:vgg_small" in text
    assert "| Calibration | temperature " in text
    assert "| None of these | below a probability of " in text
    facts = json.loads((hub / "mrkd.json").read_text())
    known = classifier.calibration
    assert known.temperature != 1
    assert facts["calibration"] == known.as_json(classifier.classes)
    again = Classifier.load(hub).calibration
    assert again.temperature == known.temperature
    np.testing.assert_array_equal(again.least, known.least)
    (cqt, logmel) = (branch["representation"] for branch in facts["branches"])
    assert (cqt["name"], logmel["name"]) == ("cqt", "logmel64")
    assert (logmel["bins"], logmel["sample_rate"], logmel["hop"]) == (64, 22050, 220)
    assert Classifier.load(hub).names == classifier.names
    refused(mrkd("pack", cell, "--hub", hub), "there is something in it")
    refused(mrkd("pack", cell), "FILE.mrkd")
    refused(mrkd("pack", cell, tmp_path / "a.zip"), "ends in .mrkd")


def rewritten(packed: Path, change: Callable[[dict[str, bytes]], None], **how: int) -> Path:
    """A packed model whose parts are others."""
    with zipfile.ZipFile(packed) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    change(parts)
    other = packed.with_name("other.mrkd")
    with zipfile.ZipFile(other, "w", **how) as new:  # type: ignore[call-overload]
        for name, content in parts.items():
            new.writestr(name, content)
    return other


WEIGHTS = "branches/cqt-resnet_small/model.safetensors"


@pytest.mark.parametrize(
    ("change", "how", "message"),
    [
        (
            lambda parts: parts.update({WEIGHTS: parts[WEIGHTS][:-1] + b"x"}),
            {},
            "sha256 is not",
        ),
        (lambda parts: parts.pop(WEIGHTS), {}, "it is gone"),
        (lambda parts: parts.pop("SHA256SUMS"), {}, "the sums are not"),
        (lambda parts: parts.update({"../evil": b""}), {}, "it holds '../evil'"),
        (
            lambda parts: parts.update({"branches/a/run.py": b""}),
            {},
            "it holds 'branches/a/run",
        ),
        (lambda parts: parts.update({"branches/.a/config.json": b""}), {}, "it holds 'branches/.a"),
        (lambda parts: parts.update({"branches/b/config.json": b"{}"}), {}, "is not in its"),
        (lambda parts: None, {"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    ],
)
def test_what_was_changed_is_refused(
    packed: Path, change: Callable[[dict[str, bytes]], None], how: dict[str, int], message: str
) -> None:
    other = rewritten(packed, change, **how)
    with pytest.raises(UserError, match=message):
        Classifier.load(other)
    assert not (packed.parents[1] / "evil").exists()


def test_what_is_no_zip_is_refused_and_damage_is_seen_before_packing(
    classifier: Classifier,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "text.mrkd").write_text("no zip")
    with pytest.raises(UserError, match="not a packed model"):
        Classifier.load(tmp_path / "text.mrkd")
    with pytest.raises(UserError, match="not a packed model"):
        unpack(tmp_path / "text.mrkd", tmp_path)
    branch = tmp_path / "cqt"
    shutil.copytree(classifier.branches[0].folder, branch)
    (branch / "trained_on.txt").write_text("0")
    with pytest.raises(UserError, match="not a whole model"):
        write_folder(tmp_path / "parts", [branch], {}, Calibration())
    with pytest.raises(UserError, match=r"ends in \.mrkd"):
        pack(tmp_path / "model.zip", tmp_path)


def bare(file: Path, parts: dict[str, bytes]) -> bytearray:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return bytearray(file.read_bytes())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (8, b"\x01\x00"),  # encrypted
        (8, b"\x00\x08"),  # a name in UTF-8, which it is not
        (10, b"\x63\x00"),  # another compression
        (42, b"\xff\xff\xff\xf0"),  # it begins elsewhere
    ],
)
def test_parts_that_cannot_be_read_are_one_error(tmp_path: Path, place: int, value: bytes) -> None:
    file = tmp_path / "x.mrkd"
    content = bare(file, {"SHA256SUMS": b"", "README.md": b"x"})
    entry = content.index(b"PK\x01\x02")  # of the first part
    content[entry + place : entry + place + len(value)] = value
    if value == b"\x00\x08":
        content[entry + 46] = 0xFF
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.mrkd: (not a packed model|damaged)"):
        unpack(file, tmp_path / "parts")


def test_parts_that_lie_in_each_other_are_no_bomb(tmp_path: Path) -> None:
    file = tmp_path / "x.mrkd"
    names = [f"branches/{i}/config.json" for i in range(9)]
    content = bare(file, {"SHA256SUMS": b"", **dict.fromkeys(names, b""), "README.md": b"x" * 9000})
    begin = content.rindex(b"PK\x03\x04")
    for name in names:  # each is said to be where the large one is, and as large
        entry = content.rindex(name.encode()) - 46
        content[entry + 20 : entry + 28] = struct.pack("<II", 9000, 9000)
        content[entry + 42 : entry + 46] = struct.pack("<I", begin)
    file.write_bytes(content)
    with pytest.raises(UserError, match="too large"):
        unpack(file, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()


def test_names_of_data_are_text_in_the_card() -> None:
    facts = {"classes": ["<img src=x>", "a|b [c](d)"], "dataset": "*x*", "multi_label": False}
    text = card(facts | {"mrkd_ray": "1", "calibration": Calibration().as_json([])}, [], {})
    assert "&lt;img src=x&gt;, a\\|b \\[c\\](d)." in text
    assert "# Audio classifier: \\*x\\*" in text
