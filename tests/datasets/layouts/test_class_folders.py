import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mrkd_ray.audio import containers
from mrkd_ray.audio.decoding import read
from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.audio_files import audio_files
from mrkd_ray.datasets.opening import LAYOUTS, layout, open_dataset


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(10, 0.1), 8000, format="WAV")


def test_labels_are_the_folders_at_any_depth(tmp_path: Path) -> None:
    root = tmp_path / "sounds"
    for name in ["dog/b.wav", "dog/a.WAV", "cat/kitten/x.flac", "cat/kitten/y.mp3", "owl/z.ogg"]:
        put(root / name)
    dataset = open_dataset(root, tmp_path / "cache")
    assert dataset.name == "sounds"
    assert dataset.root == root
    assert [(c.clip_id, c.label) for c in dataset.clips] == [
        ("cat/kitten/x.flac", "cat"),
        ("cat/kitten/y.mp3", "cat"),
        ("dog/a.WAV", "dog"),
        ("dog/b.wav", "dog"),
        ("owl/z.ogg", "owl"),
    ]
    assert all(c.path == root / c.clip_id and c.split is None for c in dataset.clips)
    assert dataset.classes == ("cat", "dog", "owl")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2]
    assert dataset.labels.dtype == np.int64


def test_hidden_files_are_ignored_and_others_named(tmp_path: Path) -> None:
    for name in ["a/1.wav", "b/2.wav", "a/._1.wav", ".git/3.wav", "a/.old/4.wav", "5.wav"]:
        put(tmp_path / name)
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.rst").touch()
    dataset = open_dataset(tmp_path, tmp_path / "cache")
    assert [c.clip_id for c in dataset.clips] == ["a/1.wav", "b/2.wav"]
    assert dataset.notes == (
        f"1 recordings directly in {tmp_path} have no class: left out.",
        "folders without a recording, so no classes (1): docs/ (1 .rst).",
        "files that are no recordings, not read (2): a/notes.txt, docs/readme.rst.",
    )


def test_a_recording_of_an_ending_that_is_not_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "available", lambda: False)
    for name in ["train/a/1.wav", "train/b/2.wav", "test/a/3.wav", "test/b/4.wav"]:
        put(tmp_path / name)
    (tmp_path / "train/c").mkdir()
    for name in ["train/a/x.m4a", "train/c/y.M4A", "train/c/z.wma"]:
        (tmp_path / name).touch()
    notes = open_dataset(tmp_path, tmp_path / "cache").notes
    assert notes == (
        "folders without a recording, so no classes (1): train/c/ (1 .m4a, 1 .wma).",
        "recordings left out, since their ending is not read (2 .m4a, 1 .wma): train/a/x.m4a, "
        "train/c/y.M4A, train/c/z.wma. PyAV reads them: pip install -e '.[formats]'",
    )


def test_only_one_class_of_recordings_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "available", lambda: False)
    put(tmp_path / "a/1.wav")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/2.m4a").touch()
    with pytest.raises(UserError, match=r"found only 'a'.*so no classes \(1\): b/ \(1 .m4a\)"):
        open_dataset(tmp_path, tmp_path / "cache")
    (tmp_path / "a/1.wav").unlink()
    with pytest.raises(UserError, match=r"no recordings .*, but 1 .m4a. PyAV reads m4a"):
        open_dataset(tmp_path, tmp_path / "cache")


FORMATS = {
    "w64": "W64",
    "caf": "CAF",
    "aifc": "AIFF",
    "rf64": "RF64",
    "wave": "WAV",
    "snd": "AU",
    "voc": "VOC",
    "sph": "NIST",
    "avr": "AVR",
    "htk": "HTK",
    "svx": "SVX",
    "pvf": "PVF",
    "AIF": "AIFF",
    "sf": "IRCAM",
    "paf": "PAF",
    "sds": "SDS",
    "oga": "OGG",
}


@pytest.mark.parametrize(("ending", "kind"), FORMATS.items())
def test_every_ending_that_libsndfile_reads_is_a_recording(
    tmp_path: Path, ending: str, kind: str
) -> None:
    put(tmp_path / "a/1.wav")
    put(tmp_path / "b/2.wav")
    soundfile.write(tmp_path / f"b/x.{ending}", np.full(800, 0.1), 8000, format=kind)
    assert [c.path.name for c in open_dataset(tmp_path, tmp_path).clips][-1] == f"x.{ending}"
    assert len(read(tmp_path / f"b/x.{ending}")[0]) >= 800


def test_folders_called_fold1_are_no_classes(tmp_path: Path) -> None:
    for name in ["audio/fold1/1.wav", "audio/fold2/2.wav"]:
        put(tmp_path / name)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/labels.csv").touch()
    with pytest.raises(UserError, match=r"found only 'audio'\. .*path: lists/labels\.csv") as error:
        open_dataset(tmp_path, tmp_path / "cache")
    assert "are the classes" not in str(error.value)
    with pytest.raises(UserError, match=r"\(fold1, fold2\) are parts .*path: lists/labels\.csv"):
        open_dataset(tmp_path / "audio", tmp_path / "cache")


def test_a_relative_path_gives_absolute_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "d/a/1.wav")
    put(tmp_path / "d/b/2.wav")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("d", tmp_path).clips[0].path == tmp_path / "d/a/1.wav"


def test_links_to_folders_are_followed_but_not_round_and_round(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/1.wav")
    put(tmp_path / "d/b/2.wav")
    put(tmp_path / "elsewhere/deeper/3.wav")
    (tmp_path / "d/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d/b/more").symlink_to(tmp_path / "elsewhere/deeper")
    (tmp_path / "d/b/up").symlink_to(tmp_path / "d")
    dataset = open_dataset(tmp_path / "d", tmp_path)
    found = [c.clip_id for c in dataset.clips]
    assert found == ["a/1.wav", "a/deeper/3.wav", "b/2.wav", "b/more/3.wav"]


def test_links_round_two_folders_end(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.wav").touch()
        (tmp_path / name / "to").symlink_to(tmp_path / other)
    found = [path.relative_to(tmp_path).as_posix() for path in audio_files(tmp_path)]
    assert found == ["a/1.wav", "a/to/1.wav", "b/1.wav", "b/to/1.wav"]


def test_a_folder_that_may_not_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.wav").touch()
    scandir = os.scandir

    def refused(folder: Path) -> Any:  # root may read everything
        if Path(folder).name == "a":
            raise PermissionError(errno.EACCES, "x", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError):
        list(audio_files(tmp_path))


def test_train_and_test_folders_give_the_split(tmp_path: Path) -> None:
    for name in ["Training/a/1.wav", "Training/b/2.wav", "test/a/3.wav", "test/b/sub/4.wav"]:
        put(tmp_path / name)
    dataset = open_dataset(tmp_path, tmp_path / "cache")
    assert [(c.clip_id, c.label, c.split) for c in dataset.clips] == [
        ("Training/a/1.wav", "a", "train"),
        ("Training/b/2.wav", "b", "train"),
        ("test/a/3.wav", "a", "test"),
        ("test/b/sub/4.wav", "b", "test"),
    ]


def test_validation_is_left_out_only_beside_a_test_folder(tmp_path: Path) -> None:
    for name in ["train/a/1.wav", "train/b/2.wav", "valid/a/3.wav", "valid/b/4.wav"]:
        put(tmp_path / name)
    dataset = open_dataset(tmp_path, tmp_path / "cache")
    assert [c.split for c in dataset.clips] == ["train", "train", "test", "test"]
    put(tmp_path / "test/a/5.wav")
    dataset = open_dataset(tmp_path, tmp_path / "cache")
    assert [c.clip_id for c in dataset.clips] == ["test/a/5.wav", "train/a/1.wav", "train/b/2.wav"]
    assert "valid/ is left out" in dataset.notes[0]


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    for name in ["train/1.wav", "test/2.wav", "bus/3.wav"]:
        put(tmp_path / name)
    dataset = open_dataset(tmp_path, tmp_path / "cache")
    assert dataset.classes == ("bus", "test", "train")
    assert {c.split for c in dataset.clips} == {None}


def test_other_folders_beside_train_and_test_are_refused(tmp_path: Path) -> None:
    for name in ["train/a/1.wav", "test/a/2.wav", "noise/3.wav"]:
        put(tmp_path / name)
    with pytest.raises(UserError, match=r"beside test, train stand other folders.*: noise\."):
        open_dataset(tmp_path, tmp_path / "cache")


def test_one_class_is_refused_with_the_likely_mend(tmp_path: Path) -> None:
    put(tmp_path / "audio/dog/1.wav")
    put(tmp_path / "audio/cat/2.wav")
    (tmp_path / "labels.csv").touch()
    with pytest.raises(UserError) as error:
        open_dataset(tmp_path, tmp_path / "cache")
    assert f"give the path {tmp_path / 'audio'}." in str(error.value)
    assert "labels.csv" in str(error.value)


def test_what_is_no_data_set_says_why_and_lists_the_layouts(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path / "flat/1.wav")
    (tmp_path / "texts/a").mkdir(parents=True)
    (tmp_path / "texts/a/x.txt").touch()
    put(tmp_path / "note.wav")
    for name, reason in {
        "absent": "no such file or folder",
        "empty": "the folder is empty",
        "flat": "lie directly in the folder",
        "texts": "holds no recordings",
        "note.wav": "a file that is not .csv",
    }.items():
        with pytest.raises(UserError) as error:
            open_dataset(tmp_path / name, tmp_path / "cache")
        assert reason in str(error.value)
        assert name in str(error.value)
        assert all(f"\n  {known}: " in str(error.value) for known in ("csv", "folder"))


def test_a_more_specific_layout_is_asked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a/1.wav")
    put(tmp_path / "b/2.wav")
    monkeypatch.setattr(LAYOUTS, "_entries", dict(LAYOUTS.items()))
    opened = open_dataset(tmp_path, tmp_path)

    @layout("special", description="s", specificity=20, matches=lambda path: path.is_dir())
    def read_special(path: Path) -> object:
        return opened.without(["a/1.wav"])

    assert [c.clip_id for c in open_dataset(tmp_path, tmp_path).clips] == ["b/2.wav"]


def test_the_fingerprint_follows_all_that_decides_but_not_the_place(tmp_path: Path) -> None:
    for root in ("one", "two"):
        put(tmp_path / root / "a/1.wav")
        put(tmp_path / root / "b/2.wav")
    one, two = (open_dataset(tmp_path / name, tmp_path) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    changed = [
        tuple(replace(clip, **{field: value}) for clip in one.clips)
        for field, value in [("labels", ("c",)), ("fold", 1), ("split", "test"), ("group", "g")]
    ]
    prints = {replace(one, clips=clips).fingerprint for clips in changed}
    assert len(prints | {one.fingerprint, one.without(["a/1.wav"]).fingerprint}) == 6
    assert one.without(["a/1.wav"]).classes == ("b",)
