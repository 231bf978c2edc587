"""The frames of a long recording, part by part, are those of the whole at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.audio.decoding import SAMPLE_RATE, AudioError, LongRecording, load, load_or_stream
from mrkd_ray.representations import parts, pretrained
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip

NAMES = sorted(set(REPRESENTATIONS) - set(pretrained.FILES))  # which need weights


def sweep(file: Path, seconds: float, rate: int = 44_100) -> Path:
    """A tone that rises, over noise that swells; loud at its end, near silence in its middle."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(size=len(t)) * 10 ** (-4 + 3 * t / seconds)
    sound = 0.1 * np.sin(2 * np.pi * t * (200 + 30 * t)) + noise
    sound[len(t) // 3 : len(t) // 2] *= 1e-5
    soundfile.write(file, np.stack([sound, 0.5 * sound], axis=1) / 4, rate)
    return file


def together(names: list[str], recording: LongRecording) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for name, frames in parts.compute_parts(names, recording):
        found[name].append(frames)
    assert all(len(own) > 2 for own in found.values())
    return {name: np.concatenate(own) for name, own in found.items()}


@pytest.mark.parametrize("seconds", [13.37, 12.0])  # 12: a frame stands on the end of a part
def test_parts_are_the_whole(
    tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "SECONDS", 4.0)
    file = sweep(tmp_path / "a.wav", seconds, 44_000 if seconds == 12 else 44_100)
    whole = compute_clip(NAMES, load(file))
    found = together(NAMES, LongRecording(file))
    for name in NAMES:
        assert found[name].shape == whole[name].shape
        np.testing.assert_allclose(found[name], whole[name], atol=1e-3)
    assert whole["logmel64"].min() == pytest.approx(whole["logmel64"].max() - 80)


def test_the_bits_at_another_rate_are_those_of_the_whole(tmp_path: Path) -> None:
    file = sweep(tmp_path / "a.wav", 3, 48_000)
    found = np.concatenate(list(LongRecording(file).blocks(SAMPLE_RATE)))
    np.testing.assert_array_equal(found, load(file).at(SAMPLE_RATE))


def test_from_two_minutes_on_a_recording_is_long(tmp_path: Path) -> None:
    for seconds, long in ((119, False), (121, True)):
        soundfile.write(tmp_path / "a.wav", np.full(seconds * 1000, 0.1), 1000)
        recording = load_or_stream(tmp_path / "a.wav")
        assert isinstance(recording, LongRecording) == long
        assert len(recording) == seconds * 1000


def test_a_long_recording_with_nan_is_refused(tmp_path: Path) -> None:
    samples = np.full(121_000, 0.1)
    samples[-1] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 1000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN or infinite"):
        load_or_stream(tmp_path / "a.wav")
