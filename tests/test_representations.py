import importlib.metadata
import json
import subprocess
import sys
import warnings
from typing import Any

import librosa
import numpy as np
import pytest
import threadpoolctl

from mrkd_ray import representations
from mrkd_ray.errors import UserError
from mrkd_ray.registry import Registry
from mrkd_ray.representations import REPRESENTATIONS, Array, Recording, Representation, compute

PLAIN: dict[str, Any] = {"sr": 22050, "hop_length": 220}


def noise(samples: int) -> Array:
    rng = np.random.default_rng(samples)
    return rng.normal(scale=0.1, size=samples).astype(np.float32)


def plain_logmel(waveform: Array, bands: int) -> Array:
    power = librosa.feature.melspectrogram(y=waveform, n_fft=1764, n_mels=bands, **PLAIN)
    return np.asarray(librosa.power_to_db(power))


def plain_mfcc(waveform: Array) -> Array:
    return np.asarray(librosa.feature.mfcc(y=waveform, n_fft=1764, n_mfcc=64, **PLAIN))


def plain_cqt(waveform: Array) -> Array:
    return np.asarray(librosa.amplitude_to_db(np.abs(librosa.cqt(waveform, n_bins=84, **PLAIN))))


PLAIN_CALLS = {
    "logmel64": lambda waveform: plain_logmel(waveform, 64),
    "logmel128": lambda waveform: plain_logmel(waveform, 128),
    "mfcc": plain_mfcc,
    "cqt": plain_cqt,
}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry[Representation]:
    """An empty registry in place of the real one."""
    fresh: Registry[Representation] = Registry("representation")
    monkeypatch.setattr(representations, "REPRESENTATIONS", fresh)
    return fresh


@pytest.mark.parametrize("name", PLAIN_CALLS)
def test_equals_the_plain_librosa_call(name: str) -> None:
    # The second half is quiet, so that the floor 80 dB under the maximum is part of the result.
    waveform = noise(30000)
    waveform[15000:] *= 1e-6
    result = compute(name, Recording(waveform))
    assert result.dtype == np.float32
    assert np.allclose(result, PLAIN_CALLS[name](waveform), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", PLAIN_CALLS)
@pytest.mark.parametrize("samples", [1, 2, 219, 220, 221, 1763, 1764, 22050, 110257, 60 * 22050])
def test_frame_count_is_the_same_for_any_length_and_nothing_is_warned(
    name: str, samples: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        result = compute(name, Recording(noise(samples)))
        assert warnings.filters == filters
    assert result.shape == (REPRESENTATIONS[name].bins, 1 + samples // 220)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("name", PLAIN_CALLS)
def test_silence_is_finite(name: str) -> None:
    assert np.isfinite(compute(name, Recording(np.zeros(5000, np.float32)))).all()


def test_the_spectrum_is_computed_once_per_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    stft = librosa.stft

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return stft(*args, **kwargs)

    monkeypatch.setattr(librosa, "stft", counting)
    recording = Recording(noise(5000))
    for name in ("logmel64", "logmel128", "mfcc"):
        compute(name, recording)
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
def test_recording_refuses_what_is_not_a_waveform(waveform: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recording(waveform)


def test_wrong_frame_count_names_the_representation(registry: Registry[Representation]) -> None:
    @representations.representation("slow", bins=3, description="one frame too many")
    def slow(recording: Recording, bins: int) -> Array:
        return np.zeros((bins, recording.frames + 1), np.float32)

    with pytest.raises(ValueError, match=r"'slow' has shape \(3, 12\), not \(3, 11\)"):
        compute("slow", Recording(noise(2200)))


def test_one_decorated_function_adds_a_representation(registry: Registry[Representation]) -> None:
    @representations.representation("level", bins=1, description="Mean level", reference=2.0)
    def level(recording: Recording, bins: int, reference: float) -> Array:
        return np.full((bins, recording.frames), reference)

    result = compute("level", Recording(noise(440)))
    assert result.dtype == np.float32
    assert result.tolist() == [[2.0, 2.0, 2.0]]
    assert registry["level"].params["reference"] == 2.0


def test_duplicates_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'mfcc' is registered already"):
        representations.representation("mfcc", bins=64, description="again")(representations.mfcc)
    with pytest.raises(UserError, match="Did you mean 'logmel64'"):
        compute("logmel46", Recording(noise(10)))


def test_version_changes_with_everything_that_changes_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def entry(name: str = "a", bins: int = 64, **params: int) -> Representation:
        return Representation(name, bins, "", lambda recording: recording.waveform, params)

    versions = [
        entry().version,
        entry("b").version,
        entry(bins=65).version,
        entry(bands=128).version,
        entry(bands=129).version,
    ]
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "99.0")
    versions.append(entry().version)
    assert len(set(versions)) == len(versions)
    assert entry().version == versions[-1]


def test_versions_of_all_are_distinct_and_the_common_parameters_are_part_of_them() -> None:
    entries = [entry for _, entry in REPRESENTATIONS.items()]
    assert len({entry.version for entry in entries}) == len(entries) >= 4
    for entry in entries:
        common = {"sample_rate": 22050, "frame": 1764, "hop": 220}
        assert common.items() <= json.loads(json.dumps(entry.params)).items()


def test_import_stays_cheap() -> None:
    code = "import sys, mrkd_ray.features; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ["librosa", "soundfile", "sklearn", "torchvision", "pandas", "torch", "ray", "numba"]
    out = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["logmel64", "logmel128", "mfcc", "cqt"])
def test_the_number_of_blas_threads_changes_no_bit(name: str) -> None:
    rng = np.random.default_rng(0)
    for length in (9_000, 20_000, 44_100):
        waveform = rng.normal(size=length).astype(np.float32)
        found = []
        for threads in (1, 2):
            with threadpoolctl.threadpool_limits(threads):
                found.append(compute(name, Recording(waveform)))
        np.testing.assert_array_equal(*found)
