import importlib.metadata
import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from mrkd_ray.audio import decoding
from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.registry import Registry
from mrkd_ray.representations import catalogue as representations
from mrkd_ray.representations import filters as constants
from mrkd_ray.representations import spectra
from mrkd_ray.representations.catalogue import (
    REPRESENTATIONS,
    Representation,
    compute,
    compute_clip,
)
from mrkd_ray.representations.spectra import Recordings
from mrkd_ray.representations.timing import Timing

PLAIN: dict[str, Any] = {"sr": 22050, "hop_length": 220}


def noise(samples: int) -> Float32:
    rng = np.random.default_rng(samples)
    return rng.normal(scale=0.1, size=samples).astype(np.float32)


def plain_logmel(waveform: Float32, bands: int) -> Float32:
    power = librosa.feature.melspectrogram(y=waveform, n_fft=1764, n_mels=bands, **PLAIN)
    return np.asarray(librosa.power_to_db(power))


def plain_mfcc(waveform: Float32) -> Float32:
    return np.asarray(librosa.feature.mfcc(y=waveform, n_fft=1764, n_mfcc=64, **PLAIN))


def plain_cqt(waveform: Float32) -> Float32:
    return np.asarray(librosa.amplitude_to_db(np.abs(librosa.cqt(waveform, n_bins=84, **PLAIN))))


def plain_pcen(waveform: Float32) -> Float32:
    magnitude = librosa.feature.melspectrogram(y=waveform, n_fft=1764, n_mels=64, power=1, **PLAIN)
    return np.asarray(librosa.pcen(magnitude * 2**31, **PLAIN))


PLAIN_CALLS = {
    "logmel64": lambda waveform: plain_logmel(waveform, 64),
    "logmel128": lambda waveform: plain_logmel(waveform, 128),
    "mfcc": plain_mfcc,
    "cqt": plain_cqt,
    "pcen64": plain_pcen,
}
ALL = [name for name, entry in REPRESENTATIONS.items() if not entry.weights]
PAPER = [name for name in ALL if REPRESENTATIONS[name].timing == Timing()]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry[Representation]:
    """An empty registry in place of the real one."""
    fresh: Registry[Representation] = Registry("representation")
    monkeypatch.setattr(representations, "REPRESENTATIONS", fresh)
    return fresh


# The largest and the 99.9th percentile difference from librosa, in dB, as `python -m benchmarks
# frontend_error` measures them on ESC-10. mfcc is in its own unit, dB times the cosine transform;
# pcen64 has no unit, ends at about 6, and has no floor that would hide float32's rounding.
TOLERANCES = {
    "logmel64": (0.003, 0.0005),
    "logmel128": (0.003, 0.0005),
    "mfcc": (0.003, 0.002),
    "cqt": (0.1, 0.01),
    "pcen64": (0.1, 0.02),
}


def one(name: str, waveform: Float32) -> Float32:
    """One representation of one clip, [bins, frames] as librosa has it."""
    return compute_clip([name], Recording(waveform))[name].T


def assert_as_librosa(name: str, waveform: Float32) -> None:
    result = one(name, waveform)
    assert result.dtype == np.float32
    difference = np.abs(result - PLAIN_CALLS[name](waveform))
    largest, most = TOLERANCES[name]
    assert difference.max() <= largest
    assert np.quantile(difference, 0.999) <= most


@pytest.mark.parametrize("name", PLAIN_CALLS)
@pytest.mark.parametrize("samples", [30000, 30001, 66011, 110250])
def test_equals_the_plain_librosa_call(name: str, samples: int) -> None:
    # The second half is quiet, so that the floor 80 dB under the maximum is part of the result.
    waveform = noise(samples)
    waveform[samples // 2 :] *= 1e-6
    assert_as_librosa(name, waveform)


@pytest.mark.parametrize("name", PLAIN_CALLS)
def test_a_loud_tone_leaks_into_the_quiet_bins_as_with_librosa(name: str) -> None:
    # It ends abruptly, and is all there is: each other bin holds what the filters let through.
    assert_as_librosa(name, np.sin(np.arange(50000) * 0.7).astype(np.float32))


@pytest.mark.parametrize("name", PLAIN_CALLS)
def test_equals_librosa_on_real_clips(name: str, shared: Path) -> None:
    files = sorted((shared / "data" / "esc10" / "audio").iterdir())
    for file in files[::40]:
        assert_as_librosa(name, decoding.load(file).at(decoding.SAMPLE_RATE))


@pytest.mark.parametrize("name", PAPER)
def test_a_padded_batch_is_each_clip_alone(name: str) -> None:
    lengths = [1, 700, 22051, 22219, 30000]
    batch = torch.zeros(len(lengths), max(lengths))
    for row, length in zip(batch, lengths, strict=True):
        row[:length] = torch.from_numpy(noise(length)) + 0.3  # ends with a step
    # The first frame behind this one's end is its loudest.
    batch[3] = torch.nn.functional.one_hot(torch.tensor(22218), 30000)
    together = compute(name, Recordings(batch, lengths))
    assert together.shape == (5, REPRESENTATIONS[name].bins, 1 + 30000 // 220)
    for row, result, length in zip(batch, together, lengths, strict=True):
        alone = one(name, row[:length].numpy())
        assert np.allclose(result[:, : 1 + length // 220], alone, atol=0.01)


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("samples", [1, 2, 219, 220, 221, 1763, 1764, 22050, 110257, 60 * 22050])
def test_frame_count_is_the_same_for_any_length_and_nothing_is_warned(
    name: str, samples: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = one(name, noise(samples))
    assert result.shape == (REPRESENTATIONS[name].bins, 1 + samples // 220)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("name", ALL)
def test_silence_is_finite(name: str) -> None:
    assert np.isfinite(one(name, np.zeros(5000, np.float32))).all()


def test_gammatone_filters_are_those_of_the_filters_impulse_responses() -> None:
    """scipy's finite ones, away from both ends of the spectrum, where real filters fold over."""
    offset = 9.26449 * 24.7
    middles = (50 + offset) * ((11025 + offset) / (50 + offset)) ** (np.arange(64) / 64) - offset
    filters = spectra._gammatone_filters(64, 50.0, torch.device("cpu")).numpy()
    steps = np.diff(21.4 * np.log10(1 + 0.00437 * middles))  # the ERB scale as it is often written
    assert np.ptp(steps) < 1e-3 * steps.mean()
    tested = [i for i, middle in enumerate(middles) if 200 < middle < 7000]
    for i in tested[::5]:
        taps, _ = scipy.signal.gammatone(middles[i], "fir", numtaps=8000, fs=22050)
        _, response = scipy.signal.freqz(taps, worN=np.arange(883) * 12.5, fs=22050)
        loud = np.abs(response) ** 2 > 1e-3
        difference = 10 * np.log10(np.abs(response[loud]) ** 2 / filters[loud, i])
        assert loud.sum() > 15
        assert np.abs(difference).max() < 0.2


def test_gammatone_is_the_power_in_its_bands_in_decibels() -> None:
    """Of two tones on filters' middles: as far apart as they are loud, the rest far below."""
    offset = 9.26449 * 24.7
    middles = (50 + offset) * ((11025 + offset) / (50 + offset)) ** (np.arange(64) / 64) - offset
    time = np.arange(22050) / 22050
    tones = np.sin(2 * np.pi * middles[20] * time) + 0.01 * np.sin(2 * np.pi * middles[50] * time)
    levels = one("gammatone64", tones.astype(np.float32))[:, 50]
    assert levels[20] == levels.max()
    assert levels[20] - levels[50] == pytest.approx(40, abs=1)
    assert levels[50] - levels[62] > 30
    assert (
        levels.max() - one("gammatone64", np.append(tones, [0] * 9000).astype(np.float32)).min()
        == 80
    )


@pytest.mark.parametrize("samples", [1, 109, 110, 111, 220, 30000])
def test_a_waveform_is_its_samples_in_order(samples: int) -> None:
    recording = noise(samples)
    frames = one("waveform", recording).T
    assert not frames[0, :110].any()
    read = frames.ravel()[110 : 110 + samples]
    assert len(read) > samples - 110  # what is left of half a frame at the end
    np.testing.assert_array_equal(read, recording[: len(read)])
    assert not frames.ravel()[110 + samples :].any()


def test_pcen_hardly_hears_how_loud_a_recording_is() -> None:
    quiet, loud = (one("pcen64", noise(30000) * factor) for factor in (0.1, 1))  # 20 dB
    assert (loud > quiet).all()
    assert (loud < 1.05 * quiet).all()


def test_fused_is_three_representations_above_each_other_with_one_floor() -> None:
    waveform = noise(30000)
    waveform[15000:] = 0
    three = [one(name, waveform) for name in ("logmel64", "pcen64", "gammatone64")]
    floor = max(three[0].max(), three[2].max()) - 80
    three[0], three[2] = (np.maximum(levels, floor) for levels in (three[0], three[2]))
    np.testing.assert_allclose(one("fused", waveform), np.concatenate(three), atol=1e-4)


def test_the_spectrum_is_computed_once_per_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    stft = torch.stft

    def counting(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return stft(*args, **kwargs)

    monkeypatch.setattr(torch, "stft", counting)
    compute_clip(["logmel64", "logmel128", "mfcc", "pcen64", "gammatone64"], Recording(noise(5000)))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(0, np.float32), "at least one"),
        (np.zeros((2, 9), np.float32), r"\(2, 9\)"),
        (np.array([0.0, np.nan], np.float32), "NaN"),
        (np.array([0.0, np.inf], np.float32), "infinite"),
    ],
)
def test_what_is_no_waveform_is_refused(waveform: Float32, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_clip(["logmel64"], Recording(waveform))


@pytest.mark.parametrize(
    "waveforms", [torch.zeros(5), torch.zeros(2, 0), torch.zeros(1, 5, dtype=torch.float64)]
)
def test_recordings_refuse_what_is_no_batch(waveforms: Tensor) -> None:
    with pytest.raises(ValueError, match="expected float32 waveforms"):
        Recordings(waveforms)


def test_wrong_frame_count_names_the_representation(registry: Registry[Representation]) -> None:
    @representations.representation("slow", bins=3, description="one frame too many")
    def slow(recordings: Recordings, bins: int) -> Tensor:
        return torch.zeros(1, bins, recordings.frames + 1)

    with pytest.raises(ValueError, match=r"'slow' has shape \(1, 3, 12\), not \(1, 3, 11\)"):
        one("slow", noise(2200))


def test_one_decorated_function_adds_a_representation(registry: Registry[Representation]) -> None:
    @representations.representation("level", bins=1, description="Mean level", reference=2.0)
    def level(recordings: Recordings, bins: int, reference: float) -> Tensor:
        return torch.full((1, bins, recordings.frames), reference)

    result = one("level", noise(440))
    assert result.dtype == np.float32
    assert result.tolist() == [[2.0, 2.0, 2.0]]
    assert registry["level"].params["reference"] == 2.0


def test_filters_that_are_not_shipped_are_built(registry: Registry[Representation]) -> None:
    representations.representation("logmel40", bins=40, description="", constants=["mel-40"])(
        representations.logmel
    )
    waveform = noise(9000)
    assert np.allclose(one("logmel40", waveform), plain_logmel(waveform, 40), atol=1e-3)
    assert "librosa" in constants.digest("mel-40")


def test_duplicates_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'mfcc' is registered already"):
        representations.representation("mfcc", bins=64, description="again")(representations.mfcc)
    with pytest.raises(UserError, match="Did you mean 'logmel64'"):
        one("logmel46", noise(10))


def test_version_changes_with_everything_that_changes_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def entry(
        name: str = "a", bins: int = 64, constants: Sequence[str] = (), **params: int
    ) -> Representation:
        return Representation(name, bins, "", lambda batch: batch.waveforms, params, constants)

    versions = [
        entry().version,
        entry("b").version,
        entry(bins=65).version,
        entry(bands=128).version,
        entry(bands=129).version,
        entry(constants=["mel-64"]).version,
        entry(constants=["mel-40"]).version,
    ]
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "99.0")
    versions.append(entry(constants=["mel-40"]).version)  # built by that librosa
    monkeypatch.setitem(constants._shipped(), "mel-64", constants.get("mel-128"))
    versions.append(entry(constants=["mel-64"]).version)
    monkeypatch.setattr(representations, "FRONTEND", 99)
    versions.append(entry().version)
    assert len(set(versions)) == len(versions)
    assert entry().version == versions[-1]


def test_versions_of_all_are_distinct_and_the_common_parameters_are_part_of_them() -> None:
    entries = [entry for _, entry in REPRESENTATIONS.items()]
    assert len({entry.version for entry in entries}) == len(entries) >= 4
    for entry in entries:
        if entry.timing != Timing():
            continue
        common = {"sample_rate": 22050, "frame": 1764, "hop": 220}
        assert common.items() <= json.loads(json.dumps(entry.params)).items()


@pytest.mark.parametrize("name", PAPER)
def test_the_constants_used_are_the_ones_in_the_version(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in (spectra._constant, spectra._mel_filters, spectra._halving_filters):
        function.cache_clear()
    spectra._cqt_stages.cache_clear()
    used = set()
    get = constants.get
    monkeypatch.setattr(constants, "get", lambda key: [used.add(key), get(key)][1])
    one(name, noise(300))
    assert used == set(REPRESENTATIONS[name].constants) <= set(constants.SHIPPED)


def test_import_stays_cheap() -> None:
    code = (
        "import sys, mrkd_ray.features.store; print([m for m in sys.modules if m in sys.argv[1:]])"
    )
    heavy = ["librosa", "soundfile", "sklearn", "torchvision", "pandas", "torch", "ray", "numba"]
    out = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_a_clip_is_computed_on_one_thread(registry: Registry[Representation]) -> None:
    @representations.representation("threads", bins=1, description="")
    def threads(recordings: Recordings, bins: int) -> Tensor:
        return torch.full((1, bins, recordings.frames), float(torch.get_num_threads()))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert one("threads", noise(1)).item() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ALL)
def test_neither_threads_nor_neighbours_change_a_bit(name: str) -> None:
    before = torch.get_num_threads()
    for length in (9_000, 20_000, 44_100):
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            try:
                found += [compute_clip([name], Recording(noise(length)))[name]]
                found += [compute_clip(["cqt", "logmel64", name], Recording(noise(length)))[name]]
            finally:
                torch.set_num_threads(before)
        for other in found[1:]:
            np.testing.assert_array_equal(found[0], other)


def test_constants_made_in_inference_mode_serve_gradients_too() -> None:
    """Where evaluation comes first: in a process of its own, since constants are kept."""
    code = (
        "import torch; from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute\n"
        "from mrkd_ray.representations.spectra import Recordings\n"
        "waveforms = torch.randn(1, 4000)\n"
        "for name, entry in REPRESENTATIONS.items():\n"
        "    if entry.weights: continue\n"
        "    with torch.inference_mode():\n"
        "        compute(name, Recordings(waveforms))\n"
        "    learnt = waveforms.clone().requires_grad_()\n"
        "    compute(name, Recordings(learnt)).sum().backward()\n"
        "    assert learnt.grad.isfinite().all()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
