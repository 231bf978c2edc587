"""What `mrkd predict` takes: files, folders and patterns."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.inputs import recordings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.wav", "a.flac", "notes.txt", "deep/er/c.ogg", "deep/d.wav", "[x].wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(folder: Path, *inputs: str | Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in recordings(inputs)]


def test_a_folder_stands_for_its_recordings_at_any_depth(folder: Path) -> None:
    assert names(folder, folder) == ["[x].wav", "a.flac", "b.wav", "deep/d.wav", "deep/er/c.ogg"]


def test_what_a_folder_holds_besides_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "deep/phone.m4a").touch()
    names(folder, folder)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"note: {folder}: recordings left out, since their ending is not read")
    assert "(1 .m4a): deep/phone.m4a." in first
    assert second.endswith("files that are no recordings, not read (1): notes.txt.")


def test_a_pattern_stands_for_the_files_that_it_matches(folder: Path) -> None:
    assert names(folder, f"{folder}/?.wav") == ["b.wav"]
    assert names(folder, f"{folder}/**/*.wav") == ["[x].wav", "b.wav", "deep/d.wav"]
    assert names(folder, str(folder / "[x].wav")) == ["[x].wav"]  # a file of this name is there


def test_each_is_taken_once_in_the_order_given_whatever_its_ending(folder: Path) -> None:
    given = (folder / "notes.txt", str(folder / "deep"), f"{folder}/deep/*")
    assert names(folder, *given) == ["notes.txt", "deep/d.wav", "deep/er/c.ogg"]


def test_all_that_is_nothing_is_named(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError) as error:
        recordings([folder / "b.wav", "lost.wav", folder / "empty", f"{folder}/*.aiff"])
    assert str(error.value).splitlines() == [
        "lost.wav: no such file",
        f"{folder}/empty: the folder holds no recordings (wav, flac, ogg, mp3, ...).",
        f"{folder}/*.aiff: no such file",
    ]
