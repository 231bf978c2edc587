"""What is taken for recordings: files, folders and patterns; samples; open files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrkd_ray.audio import containers
from mrkd_ray.audio.decoding import AudioError, Recording
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.inputs import is_one, recording_of, recordings, sources


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
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "available", lambda: False)
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


WAVE = np.array([0.0, 0.5, -0.25, -1.0])


@pytest.mark.parametrize(
    "samples",
    [
        WAVE,
        WAVE.astype(np.float32),
        (WAVE * 2**15).astype(np.int16),
        (WAVE * 2**31).astype(np.int32),
        (WAVE * 128 + 128).astype(np.uint8),
        np.stack([WAVE + 0.25, WAVE - 0.25]),
        np.stack([WAVE * 2**15 - 100, WAVE * 2**15 + 100]).clip(-(2**15), 2**15).astype(np.int32)
        * 2**16,
    ],
)
def test_samples_of_any_type_and_channels_are_one_recording(samples: np.ndarray) -> None:
    found = recording_of(samples, 8000)
    assert (found.sample_rate, len(found)) == (8000, 4)
    assert found.at(8000).dtype == np.float32
    if samples.ndim == 1 or samples.dtype == np.float64:
        np.testing.assert_array_equal(found.at(8000), WAVE)
    else:
        np.testing.assert_allclose(found.at(8000), WAVE, atol=0.01)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (WAVE[:, None], 8000, "transpose them"),
        (WAVE[None, None], 8000, "not of shape"),
        (WAVE[:0], 8000, "not of shape"),
        (WAVE * 2**15, 8000, "divide them by the largest value"),
        (WAVE * np.nan, 8000, "NaN"),
        (WAVE > 0, 8000, "not bool"),
        (WAVE.astype(np.uint16), 8000, "not uint16"),
        (WAVE, 44.1, "rates from 1000"),
        (WAVE, 22050.5, "a whole number"),
        (WAVE, True, "rates from"),
    ],
)
def test_samples_that_would_be_misread_are_refused(
    samples: np.ndarray, rate: int, message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        recording_of(samples, rate)


def test_inputs_are_told_apart(folder: Path) -> None:
    with (folder / "b.wav").open("rb") as file:
        found = sources(
            [WAVE, file, folder / "a.flac", folder / "deep", str(folder / "a.flac")], 8000
        )
    assert [source.name for source in found] == [
        "input 1",
        *(str(folder / name) for name in ("b.wav", "a.flac", "deep/d.wav", "deep/er/c.ogg")),
    ]
    assert isinstance(found[0].sound, Recording)
    assert is_one(WAVE)
    assert is_one(str(folder / "a.flac"))
    assert is_one(folder / "lost.wav")
    assert not is_one(folder)
    assert not is_one(f"{folder}/*.wav")
    assert not is_one([WAVE])


@pytest.mark.parametrize(
    ("given", "rate", "message"),
    [
        ([WAVE], None, "input 1: say the samples' rate"),
        (WAVE, None, "input 1: say the samples' rate"),
        ([0.1, 0.2], 8000, "input 1: a path, an array of samples or an open file"),
        ("b.wav", 8000, "a file says its own"),
        ([WAVE, WAVE[None, None]], 8000, "input 2: samples are"),
    ],
)
def test_what_is_no_input_is_refused(
    folder: Path, given: object, rate: int | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message):
        sources(given, rate)  # type: ignore[arg-type]
