import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.audio import decoding
from mrkd_ray.audio.decoding import SAMPLE_RATE, AudioError, EmptyAudioError, load, read

RATES = [8000, 22050, 48000, 192000]


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_gives_the_tone_at_the_wanted_rate(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.repeat(tone(1.0, 44100)[:, None], channels, axis=1), 44100)
    samples = load(path).at(SAMPLE_RATE)
    assert samples.dtype == np.float32
    assert samples.flags.c_contiguous
    assert len(samples) == 22050
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) == pytest.approx(440, abs=2)
    assert np.std(samples[2000:-2000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_channels_are_averaged_and_the_native_rate_is_returned(tmp_path: Path) -> None:
    left, right = np.full(100, 0.5), np.full(100, -0.25)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 11025, subtype="FLOAT")
    samples, rate = read(tmp_path / "a.wav")
    assert rate == 11025
    np.testing.assert_array_equal(samples, np.full(100, 0.125, np.float32))
    assert decoding.Decoding(tmp_path / "a.wav").channels == 2


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [1, 2, 1000])
def test_any_length_from_one_sample(tmp_path: Path, rate: int, length: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(length, 0.5), rate)
    samples = load(tmp_path / "a.wav").at(SAMPLE_RATE)
    assert len(samples) == int(np.ceil(length * 22050 / rate)) >= 1
    assert np.isfinite(samples).all()


def test_the_same_rate_leaves_the_samples_alone(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 500).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 22050, subtype="FLOAT")
    recording = load(tmp_path / "a.wav")
    np.testing.assert_array_equal(recording.at(SAMPLE_RATE), samples)
    assert len(recording.at(11025)) == 250


def test_a_long_recording_is_read_over_all_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (1000, 3)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 22050, subtype="FLOAT")
    whole, _ = read(tmp_path / "a.wav")
    monkeypatch.setattr(decoding, "BLOCK_FRAMES", 300)
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0], whole)
    assert len(whole) == 1000


def test_a_cut_off_ogg_gives_what_is_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * 22050)
    soundfile.write(tmp_path / "a.ogg", noise, 22050)
    content = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "b.ogg").write_bytes(content[: len(content) // 2])
    assert 1 <= len(load(tmp_path / "b.ogg")) < len(noise)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_text_is_no_audio(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text("this is no recording\n" * 100)
    with pytest.raises(AudioError, match="not readable as audio: Format not recognised"):
        read(path)


def test_missing_and_empty_files_say_so(tmp_path: Path) -> None:
    (tmp_path / "zero.wav").touch()
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), 44100)
    with pytest.raises(AudioError, match="no such file"):
        read(tmp_path / "absent.wav")
    with pytest.raises(EmptyAudioError, match="0 bytes"):
        read(tmp_path / "zero.wav")
    with pytest.raises(EmptyAudioError, match="0 samples"):
        read(tmp_path / "none.wav")


@pytest.mark.parametrize("rate", [22050, 44100])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_load_refuses_samples_that_are_not_finite(tmp_path: Path, rate: int, value: float) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0, value, 0]), rate, subtype="FLOAT")
    assert len(read(tmp_path / "a.wav")[0]) == 3
    with pytest.raises(AudioError, match="NaN or infinite"):
        load(tmp_path / "a.wav")


def test_a_name_that_is_not_utf_8_is_a_reason_and_no_crash(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    soundfile.write(tmp_path / "a.wav", np.ones(9), 22050)
    (tmp_path / "a.wav").rename(file)
    with pytest.raises(AudioError, match="not valid UTF-8"):
        read(file)


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_rates_that_no_recording_has_are_refused(tmp_path: Path, rate: int) -> None:
    """A wav of 4 kB that says 1 Hz would be an hour long."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.1, 22050), 22050)
    content = path.read_bytes()
    path.write_bytes(content[:24] + rate.to_bytes(4, "little") + content[28:])
    with pytest.raises(AudioError, match=f"{rate} Hz: rates from 1000 to 768000"):
        load(path)


def test_what_is_longer_than_days_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros(3 * 8000), 8000)
    monkeypatch.setattr(decoding, "LONGEST", 2)
    monkeypatch.setattr(decoding, "BLOCK_FRAMES", 4000)
    found = decoding.Decoding(tmp_path / "a.flac")
    with pytest.raises(AudioError, match="longer than"):
        list(found)
    assert found.length <= 20_000


def test_blocks_of_many_channels_are_as_large_as_those_of_few(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((1 << 17, 128)), 22050)
    blocks = list(decoding.Decoding(tmp_path / "a.wav"))
    assert [len(block) for block in blocks] == [1 << 16, 1 << 16]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [pipe, endless, Path.mkdir])
def test_what_is_no_regular_file_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="not a regular file"):
        load(tmp_path / "a.wav")


def test_too_little_memory_is_a_clips_own_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.1, 22050), 22050)

    def none_left(*arguments: object, **keywords: object) -> None:
        raise MemoryError

    monkeypatch.setattr(soundfile.SoundFile, "read", none_left)
    with pytest.raises(AudioError, match="more memory than there is"):
        load(tmp_path / "a.wav")
