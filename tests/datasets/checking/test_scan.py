"""The scan looks at what the networks get: after mixing and resampling."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.checking import scan
from mrkd_ray.datasets.checking.problems import Problem, problems
from mrkd_ray.datasets.checking.scan import ClipScan, scan_file

RNG = np.random.default_rng(0)


def tone(hertz: float, rate: int, seconds: float = 0.5, peak: float = 0.5) -> np.ndarray:
    return peak * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def scanned(
    tmp_path: Path, samples: np.ndarray, rate: int = 22050, name: str = "x.wav"
) -> ClipScan:
    soundfile.write(tmp_path / name, samples, rate)
    return scan_file(tmp_path / name)


def warned(*scans: ClipScan, labels: str = "aabb") -> list[Problem]:
    """The problems of clips in two folds that were scanned so; others are good."""
    clips = tuple(
        Clip(clip_id=str(i), path=Path("/x"), labels=(label,), fold=i % 2)
        for i, label in enumerate(labels)
    )
    dataset = Dataset(name="d", root=Path("/x"), clips=clips)
    good = (ClipScan(digest=f"d{i}", seconds=1.0) for i in range(len(scans), len(clips)))
    return problems(dataset, dict(zip(dataset.by_id, (*scans, *good), strict=True)), [])


def test_channels_that_cancel_are_warned_of(tmp_path: Path) -> None:
    left = tone(440, 22050)
    scan = scanned(tmp_path, np.stack([left, -left], axis=1))
    assert scan.problem is None
    assert scan.cancelled > 0.999999
    (problem,) = warned(scan)
    assert (problem.kind, problem.severity) == ("channels cancel", "warning")
    assert problem.message == (
        "channels cancel in their mean, which is what is trained on (1): 0 (more than 99.9 % lost)."
    )
    partly = scanned(tmp_path, np.stack([left, -0.8 * left], axis=1))
    assert "0 (98.8 % lost)" in warned(partly)[0].message


@pytest.mark.parametrize("samples", [1, 10, 79])
def test_a_clip_of_less_than_a_frame_is_empty(tmp_path: Path, samples: int) -> None:
    noise = RNG.normal(size=80) / 9
    assert scanned(tmp_path, noise[:samples], rate=8000).problem == "empty"
    assert scanned(tmp_path, noise, rate=8000).problem is None


def test_floats_that_were_integers_are_warned_of(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", 9000 * tone(440, 22050), 22050, subtype="FLOAT")
    scan = scan_file(tmp_path / "x.wav")
    assert scan.problem is None
    (problem,) = warned(scan)
    assert (problem.kind, problem.severity) == ("too loud", "warning")
    assert problem.message == "samples far beyond full scale, which is 1 (1): 0 (4,500)."


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_of_other_sounds_are_fine(tmp_path: Path, channels: int) -> None:
    noise = RNG.normal(size=(22050, channels)) / 9
    scan = scanned(tmp_path, noise)
    assert scan.cancelled == pytest.approx(1 - 1 / channels, abs=0.02)
    assert warned(scan) == []
    one = tone(440, 22_050)
    offsets = scanned(tmp_path, np.stack([one + 0.3, one - 0.3], axis=1))
    assert offsets.cancelled == pytest.approx(0, abs=1e-3)  # an offset is no sound
    noise[:, 1:] = 0  # or of one sound only
    assert warned(scanned(tmp_path, noise)) == []


def test_energy_above_what_is_heard_is_warned_of(tmp_path: Path) -> None:
    scan = scanned(tmp_path, tone(45_000, 256_000), 256_000)
    assert scan.problem is None
    assert scan.above > 0.9999
    (problem,) = warned(scan)
    assert (problem.kind, problem.severity) == ("not heard", "warning")
    assert "most energy lies above 11,025 Hz and is not heard (1): 0 (more" in problem.message
    both = tone(45_000, 256_000) + 0.5 * tone(3000, 256_000) + 0.3
    scan = scanned(tmp_path, both, 256_000)
    assert scan.above == pytest.approx(0.8, abs=0.01)  # an offset is no sound
    assert warned(scan) == []


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_what_is_heard_has_no_warning(tmp_path: Path, rate: int) -> None:
    scan = scanned(tmp_path, RNG.normal(size=rate) / 9, rate)
    assert scan.above == pytest.approx(max(0, 1 - 22_050 / rate), abs=0.05)
    assert warned(scan) == []


def test_dither_is_silent(tmp_path: Path) -> None:
    steps = RNG.integers(-1, 2, 22050).astype(np.int16)
    scan = scanned(tmp_path, steps)
    assert (scan.problem, scan.detail) == (
        "silent",
        "peak 3e-05, two steps of 16 bits are 6e-05",
    )
    assert scanned(tmp_path, np.zeros(9)).detail.startswith("peak 0,")
    assert scanned(tmp_path, np.stack([steps, -steps], axis=1)).problem == "silent"


def cut(path: Path, part: float) -> ClipScan:
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    return scan_file(path)


@pytest.mark.parametrize("name", ["x.wav", "x.aiff", "x.au", "x.w64", "x.rf64", "x.mp3"])
def test_less_sound_than_the_header_says_is_warned_of(tmp_path: Path, name: str) -> None:
    noise = RNG.normal(size=(44_100, 2)) / 9
    whole = scanned(tmp_path, noise, name=name)
    assert (whole.missing, warned(whole)) == (0, [])
    scan = cut(tmp_path / name, 0.6)
    assert scan.problem is None
    assert scan.missing == pytest.approx(0.4, abs=0.03)
    (problem,) = warned(scan)
    assert (problem.kind, problem.severity) == ("cut short", "warning")
    assert f"says (1): 0 ({100 * scan.missing:.1f} % lost)." in problem.message


def declare(path: Path, size: int) -> ClipScan:
    """Write another size into a wav's header."""
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    content[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
    path.write_bytes(content)
    return scan_file(path)


def test_less_sound_than_the_size_of_the_file_says_is_warned_of(tmp_path: Path) -> None:
    scanned(tmp_path, RNG.normal(size=44_100) / 9)
    scan = declare(tmp_path / "x.wav", 8820)  # a tenth
    assert scan.seconds == 0.2
    assert scan.missing == pytest.approx(0.9, abs=0.01)
    assert [problem.kind for problem in warned(scan)] == ["cut short"]
    unfinished = declare(tmp_path / "x.wav", 0)
    assert (unfinished.problem, unfinished.detail) == ("empty", "holds 0 samples in 88244 bytes")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_stream_that_was_never_finished_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    scanned(tmp_path, RNG.normal(size=44_100) / 9)
    scan = declare(tmp_path / "x.wav", size)
    assert (scan.seconds, scan.missing) == (2.0, 0)


def test_the_same_sound_under_two_labels_is_warned_of(tmp_path: Path) -> None:
    noise = RNG.integers(-9999, 9999, 22_050).astype(np.int16)
    scans = [scanned(tmp_path, noise, name=name) for name in ("a.wav", "b.flac", "c.aiff")]
    assert len({scan.digest for scan in scans}) == 3
    assert len({scan.sound for scan in scans}) == 1
    assert scanned(tmp_path, noise[:-1]).sound != scans[0].sound
    (problem,) = warned(*scans)
    assert (problem.kind, problem.severity) == ("two labels", "warning")
    assert problem.message == "same sound under two labels (1): 0 (a) = 1 (a) = 2 (b)."
    assert warned(*scans[:2]) == []


def test_samples_whose_power_is_not_finite_are_a_clips_fault(tmp_path: Path) -> None:
    samples = tone(440, 22050).astype(np.float32)
    samples[100] = 1e25
    soundfile.write(tmp_path / "x.wav", samples, 22050, subtype="FLOAT")
    found = scan_file(tmp_path / "x.wav")
    assert (found.problem, found.detail) == (
        "not finite",
        "samples reach 1e+25, and full scale is 1",
    )


def test_what_is_hashed_is_what_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is written to between the two is looked at again."""
    path = tmp_path / "x.wav"
    soundfile.write(path, tone(440, 22050), 22050)
    real, times = scan.digest, []

    def hashed(path: Path, stretch: None) -> str:
        found = real(path, stretch)
        if len(times) < 2:
            soundfile.write(path, tone(440, 22050, seconds=1.0 + len(times)), 22050)
        times.append(found)
        return found

    monkeypatch.setattr(scan, "digest", hashed)
    found = scan_file(path)
    assert len(times) == 3
    assert (found.digest, found.seconds) == (real(path), 2.0)
    times.clear()
    monkeypatch.setattr(scan, "_TRIES", 1)
    assert scan_file(path).detail == "it is being written to"


@pytest.mark.parametrize("damage", ["a digit", "cut", "a list", "a pipe"])
def test_remembered_scans_that_are_damaged_are_made_again(tmp_path: Path, damage: str) -> None:
    soundfile.write(tmp_path / "x.wav", tone(440, 22050), 22050)
    clip = Clip(clip_id="x", path=tmp_path / "x.wav", labels=("a",))
    dataset = Dataset(name="d", root=tmp_path, clips=(clip,))
    seen: list[Path] = []

    def serial(function: Any, items: Any) -> Any:
        for item in items:
            seen.append(item)
            yield function(item)

    first = scan.scan(dataset, tmp_path, serial)
    assert scan.scan(dataset, tmp_path, serial) == first
    assert len(seen) == 1
    (file,) = (tmp_path / "scans").iterdir()
    text = file.read_text()
    file.unlink()
    if damage == "a digit":
        old = first["x"].digest
        file.write_text(text.replace(old, ("0" if old[0] != "0" else "1") + old[1:]))
    elif damage == "a pipe":
        os.mkfifo(file)
    else:
        file.write_text({"cut": text[: len(text) // 2], "a list": "[1]"}[damage])
    assert scan.scan(dataset, tmp_path, serial) == first
    assert len(seen) == 2
