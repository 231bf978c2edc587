"""Recordings of phones and browsers, through PyAV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.audio import containers
from mrkd_ray.audio.decoding import AudioError, Decoding, load, read, seconds_of
from mrkd_ray.datasets.audio_files import audio_files
from mrkd_ray.datasets.checking.scan import scan_file

RATE = 48_000


def write(path: Path, codec: str, samples: np.ndarray, rate: int = RATE) -> None:
    """Encode samples [channels, n], float32."""
    av = pytest.importorskip("av", reason="the formats extra is not installed")
    with av.open(str(path), "w") as container:
        layout = "stereo" if len(samples) == 2 else "mono"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 12_200 if rate == 8000 else 128_000
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), "fltp", layout)
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def tone(hz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.m4a", "aac"), ("a.webm", "libopus"), ("a.wma", "wmav2"), ("a.mka", "pcm_s16le")],
)
def test_they_are_read_with_both_channels(tmp_path: Path, name: str, codec: str) -> None:
    left, right = tone(1000), tone(2000)
    write(tmp_path / name, codec, np.stack([left, right]))
    samples, rate = read(tmp_path / name)
    assert rate == RATE
    assert len(samples) == pytest.approx(RATE, abs=4096)  # an encoder puts some before and behind
    middle = samples[RATE // 4 : RATE // 4 + RATE // 2]
    spectrum = np.abs(np.fft.rfft(middle)) / len(middle)
    assert set(np.argsort(spectrum)[-2:] * 2) == {1000, 2000}
    np.testing.assert_allclose(np.sort(spectrum)[-2:], 0.125, atol=0.01)  # a half of each
    decoding = Decoding(tmp_path / name)
    assert sum(map(len, decoding)) == len(samples)
    assert decoding.missing == 0
    assert scan_file(tmp_path / name).problem is None


def test_blocks_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mka", "pcm_s16le", tone(440, 0.5)[None])
    whole = load(tmp_path / "a.mka").at(RATE)
    monkeypatch.setattr("mrkd_ray.audio.decoding.BLOCK_FRAMES", 1000)
    blocks = list(Decoding(tmp_path / "a.mka"))
    assert {len(block) for block in blocks[:-1]} == {1000}
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    np.testing.assert_allclose(whole, tone(440, 0.5), atol=1e-4)


def test_a_part_is_that_of_the_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.m4a", "aac", np.stack([tone(1000), tone(2000)]))
    with containers.Container(tmp_path / "a.m4a") as file:
        whole = file.read(RATE)
    with containers.Container(tmp_path / "a.m4a") as file:
        file.seek(3000)
        np.testing.assert_array_equal(file.read(5000), whole[3000:8000])
    (part,) = Decoding(tmp_path / "a.m4a", (0.5, 0.75))
    np.testing.assert_array_equal(part, whole[RATE // 2 : RATE * 3 // 4].mean(axis=1))
    assert seconds_of(tmp_path / "a.m4a") == pytest.approx(1, abs=0.05)


def test_what_is_cut_off_or_no_sound_or_opens_other_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.m4a", "aac", tone(440)[None])
    content = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.wma").write_text("this is no recording\n" * 100)
    soundfile.write(tmp_path / "x.wav", tone(440), RATE)
    listed = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path / 'x.wav'}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m4a").write_text(listed)
    for name in ("cut.m4a", "text.wma", "list.m4a"):
        with pytest.raises(AudioError, match="not readable as audio"):
            read(tmp_path / name)
    with pytest.raises(AudioError, match="no such file"):
        read(tmp_path / "absent.m4a")


def test_without_pyav_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(99))
    soundfile.write(tmp_path / "b.wav", tone(440), RATE)
    monkeypatch.setattr(containers, "available", lambda: True)
    assert [path.name for path in audio_files(tmp_path)] == ["a.m4a", "b.wav"]
    monkeypatch.setattr(containers, "available", lambda: False)
    assert [path.name for path in audio_files(tmp_path)] == ["b.wav"]
    with pytest.raises(AudioError, match=r"needs PyAV: pip install -e '\.\[formats\]'"):
        read(tmp_path / "a.m4a")


def test_amr_of_a_phone_is_read(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the formats extra is not installed")
    try:
        av.codec.Codec("libopencore_amrnb", "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip("this PyAV writes no amr")
    write(tmp_path / "a.amr", "libopencore_amrnb", tone(440, rate=8000)[None], 8000)
    samples, rate = read(tmp_path / "a.amr")
    assert rate == 8000
    assert len(samples) == pytest.approx(8000, abs=320)
    middle = np.abs(np.fft.rfft(samples[2000:6000]))
    assert np.argmax(middle) * 2 == pytest.approx(440, abs=2)
