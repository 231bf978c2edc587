"""Recordings without labels beside a data set."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from mrkd_ray.audio import containers
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.checking.scan import ClipScan
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.unlabelled import with_unlabelled, without_copies
from tests.conftest import prepare_clips

NAMES = ("a.wav", "z.flac", "in/b.wav", "in/c.wav", "in/deep/d.wav")


def test_every_recording_at_any_depth_is_one(clips: Path, sounds: Path) -> None:
    labelled = open_dataset(clips, clips)
    found = with_unlabelled(labelled, sounds)
    names = sorted((*NAMES, "in/00.wav", "in/copy.wav"))
    assert sorted(clip.clip_id for clip in found.unlabelled) == [f"unlabelled:{n}" for n in names]
    assert all(clip.path.is_file() and clip.labels == () for clip in found.unlabelled)
    assert found.recordings == found.clips + found.unlabelled
    assert (found.clips, found.classes) == (labelled.clips, labelled.classes)
    assert found.fingerprint == labelled.fingerprint


def test_a_folder_that_is_none_or_holds_none_is_refused(clips: Path, tmp_path: Path) -> None:
    labelled = open_dataset(clips, clips)
    with pytest.raises(UserError, match=r"unlabelled '.*nowhere': no such folder"):
        with_unlabelled(labelled, tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no sound")
    with pytest.raises(UserError, match="holds no recordings"):
        with_unlabelled(labelled, tmp_path)


def test_bytes_of_the_data_set_and_copies_are_left_out() -> None:
    def clips(*names: str) -> tuple[Clip, ...]:
        return tuple(Clip(clip_id=name, path=Path("/x"), labels=("x",)) for name in names)

    data = Dataset(name="d", root=Path("/x"), clips=clips("1"), unlabelled=clips("a", "b", "c"))
    digests = {"1": "one", "left out": "two", "a": "two", "b": "three", "c": "three"}
    scans = {name: ClipScan(digest=digest) for name, digest in digests.items()}
    kept = without_copies(data, scans)
    assert [clip.clip_id for clip in kept.unlabelled] == ["b"]
    scans["a"] = ClipScan(digest="one")
    assert [clip.clip_id for clip in without_copies(data, scans).unlabelled] == ["b"]
    assert kept.clips == data.clips


def test_they_are_computed_and_their_number_is_said(
    clips: Path, sounds: Path, cache: Path, with_sounds: Prepared, prepared: Prepared
) -> None:
    said = io.StringIO()
    again = prepare_clips(Console(file=said), data=str(clips), cache=cache, unlabelled=sounds)
    assert "2 of 7 unlabelled clips are left out" in " ".join(said.getvalue().split())
    ids = [clip.clip_id for clip in again.dataset.unlabelled]
    assert ids == [f"unlabelled:{name}" for name in NAMES]
    for store in with_sounds.stores.values():
        assert (store.bank(ids).lengths > 0).all()
    assert with_sounds.content == prepared.content  # that of the labelled clips
    assert with_sounds.splits == prepared.splits


def test_what_is_wrong_with_either_is_listed_at_once(
    clips: Path, sounds: Path, tmp_path: Path
) -> None:
    data, more = tmp_path / "data", tmp_path / "more"
    shutil.copytree(clips, data)
    shutil.copytree(sounds, more)
    (data / "05.wav").write_text("no sound")
    (more / "in" / "bad.ogg").write_text("no sound")
    asked = {"data": str(data), "cache": tmp_path / "cache", "unlabelled": more}
    with pytest.raises(UserError) as refused:
        prepare_clips(**asked)
    assert "unreadable (2): 05.wav (" in str(refused.value)
    assert "unlabelled:in/bad.ogg (" in str(refused.value)
    found = prepare_clips(**asked, skip_bad=True)
    assert len(found.dataset.clips) == 23
    assert [clip.clip_id for clip in found.dataset.unlabelled] == [f"unlabelled:{n}" for n in NAMES]


def test_a_folder_of_nothing_but_the_data_set_is_refused(clips: Path, cache: Path) -> None:
    with pytest.raises(UserError, match="not in the data set too"):
        prepare_clips(data=str(clips), cache=cache, unlabelled=clips)


def test_recordings_that_are_not_read_are_named(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "available", lambda: False)
    shutil.copy(clips / "00.wav", tmp_path / "a.wav")
    (tmp_path / "b.m4a").touch()
    dataset = with_unlabelled(open_dataset(clips, tmp_path), tmp_path)
    assert dataset.notes[-1].startswith(
        "unlabelled: recordings left out, since their ending is not read (1 .m4a): b.m4a."
    )
    (tmp_path / "a.wav").unlink()
    with pytest.raises(UserError, match=r"no recordings .*, but 1 \.m4a"):
        with_unlabelled(open_dataset(clips, tmp_path), tmp_path)
