"""The embedded data set: twelve kinds of sound, made from a seed.

It needs no download and shows what cohorts are about: some classes differ by fine pitch movement
(`cqt` has narrow bands at low pitches), others by noise above `cqt`'s top of 4 kHz or by fast
modulation (the Mel-based representations keep both). Level, pitch, onset, length and background
noise are random, so that a small network gets neither everything right nor nothing.

Mixtures of these sounds are a second, multi-label data set.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

VERSION = "1"
"""Goes up when the clips change: a cached copy with another version is another data set."""
CLIPS_PER_CLASS = 40
MIXTURES = 240
MOST_SOUNDS = 3  # in a mixture
SEED = 0
FOLDS = 5
SAMPLE_RATE = 22_050
SECONDS = (1.2, 2.5)
EVENT_SECONDS = (0.9, 1.8)
SNR_DB = (-6.0, 15.0)
PEAK_DBFS = (-30.0, -3.0)

Wave = NDArray[np.float64]
Sound = Callable[[Generator, int], Wave]
MadeClip = tuple[str, str, int, Wave]  # filename, label as in the csv, number, samples


def make_synthetic(root: Path, *, clips_per_class: int = CLIPS_PER_CLASS, seed: int = SEED) -> None:
    """Write `meta.csv` (filename, label, fold) and `audio/*.wav` (mono, 16 bit) to a new `root`.

    A clip depends on the seed, its class and its number only: more clips per class leave the
    others as they are. The folder appears under its name once it is complete; where another
    process is faster, its copy stays.

    Raises:
        FileExistsError: `root` is there already.
    """
    clips = (
        (f"{label}-{n:03d}.wav", label, n, make_clip(label, np.random.default_rng([seed, i, n])))
        for i, label in enumerate(SOUNDS)
        for n in range(clips_per_class)
    )
    _write(root, "label", clips)


def make_mixtures(root: Path, *, clips: int = MIXTURES, seed: int = SEED) -> None:
    """As `make_synthetic`, with a column `labels` in place of `label`: one to three a clip."""

    def made() -> Iterable[MadeClip]:
        for number in range(clips):
            rng = np.random.default_rng([seed, len(SOUNDS), number])
            labels = rng.choice(list(SOUNDS), rng.integers(1, MOST_SOUNDS + 1), replace=False)
            quoted = f'"{",".join(sorted(labels))}"'
            yield f"mixture-{number:03d}.wav", quoted, number, make_mixture(list(labels), rng)

    _write(root, "labels", made())


def _write(root: Path, column: str, clips: Iterable[MadeClip]) -> None:
    import soundfile

    if root.exists():
        raise FileExistsError(f"{root} exists already")
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        (unfinished / "audio").mkdir()
        rows = [f"filename,{column},fold"]
        for filename, label, number, wave in clips:
            soundfile.write(unfinished / "audio" / filename, wave, SAMPLE_RATE, subtype="PCM_16")
            rows.append(f"{filename},{label},{number % FOLDS + 1}")
        (unfinished / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        unfinished.chmod(0o755)
        try:
            unfinished.rename(root)
        except OSError:
            if not (root / "meta.csv").is_file():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def make_clip(label: str, rng: Generator) -> Wave:
    """Return one clip [samples], |x| <= 1: the class's sound at a random place, over noise."""
    length = int(rng.uniform(*SECONDS) * SAMPLE_RATE)
    event_length = min(length, int(rng.uniform(*EVENT_SECONDS) * SAMPLE_RATE))
    event = SOUNDS[label](rng, event_length)
    fade = np.minimum(1.0, np.arange(1, event_length + 1) / (0.02 * SAMPLE_RATE))
    event = event * fade * fade[::-1]
    onset = int(rng.integers(0, length - event_length + 1))
    noise = filtered_noise(rng, length, tilt=rng.uniform(0.0, 1.0))
    noise *= _rms(event) / _rms(noise) * 10 ** (-rng.uniform(*SNR_DB) / 20)
    clip = noise
    clip[onset : onset + event_length] += event
    peak = float(10 ** (rng.uniform(*PEAK_DBFS) / 20))
    return clip * (peak / float(np.abs(clip).max()))


def make_mixture(labels: list[str], rng: Generator) -> Wave:
    """Return the sum of clips of these classes, each from its beginning and within 6 dB."""
    parts = [make_clip(label, rng) for label in labels]
    mixture = np.zeros(max(map(len, parts)))
    for part in parts:
        mixture[: len(part)] += part / _rms(part) * 10 ** (-rng.uniform(0, 6) / 20)
    peak = float(10 ** (rng.uniform(*PEAK_DBFS) / 20))
    return mixture * (peak / float(np.abs(mixture).max()))


def filtered_noise(
    rng: Generator, length: int, *, tilt: float = 0.0, band: tuple[float, float] | None = None
) -> Wave:
    """Return noise [samples] with amplitude 1/f^tilt above 50 Hz, or flat within `band` in Hz."""
    padded = 1 << (length - 1).bit_length()  # a fast length for the FFT
    spectrum = np.fft.rfft(rng.standard_normal(padded))
    hertz = np.fft.rfftfreq(padded, 1 / SAMPLE_RATE)
    if band is None:
        spectrum *= np.maximum(hertz, 50.0) ** -tilt
    else:
        spectrum *= (band[0] <= hertz) & (hertz <= band[1])
    return np.fft.irfft(spectrum)[:length]


def _rms(wave: Wave) -> float:
    return float(np.sqrt(np.mean(wave**2)))


def _seconds(length: int) -> Wave:
    return np.arange(length) / SAMPLE_RATE


def _pitch(rng: Generator) -> float:
    """A fundamental in Hz: A2 to A4, every pitch equally likely."""
    return float(110 * 2 ** rng.uniform(0, 2))


def _tone(rng: Generator, hertz: Wave, harmonics: tuple[float, ...] = (1.0, 0.5, 0.25)) -> Wave:
    """Sum of harmonics with these amplitudes over a fundamental that moves along `hertz`."""
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE + rng.uniform(0, 2 * np.pi)
    twice_cosine = 2 * np.cos(phase)
    before, now = np.zeros_like(phase), np.sin(phase)
    wave = harmonics[0] * now
    for amplitude in harmonics[1:]:
        before, now = now, twice_cosine * now - before  # sin(k x) from the two before it
        wave += amplitude * now
    return wave


def _steady(rng: Generator, length: int, harmonics: tuple[float, ...] = (1.0, 0.5, 0.25)) -> Wave:
    return _tone(rng, np.full(length, _pitch(rng)), harmonics)


def _glide(rng: Generator, length: int, direction: int) -> Wave:
    """The pitch moves by 1.5 to 6 semitones over the event."""
    semitones = direction * rng.uniform(1.5, 6.0) * np.linspace(-0.5, 0.5, length)
    return _tone(rng, _pitch(rng) * 2 ** (semitones / 12))


def glide_up(rng: Generator, length: int) -> Wave:
    """A tone that rises."""
    return _glide(rng, length, 1)


def glide_down(rng: Generator, length: int) -> Wave:
    """A tone that falls."""
    return _glide(rng, length, -1)


def vibrato(rng: Generator, length: int) -> Wave:
    """A tone whose pitch swings 3 to 6 times a second by up to a semitone."""
    swing = np.sin(2 * np.pi * rng.uniform(3, 6) * _seconds(length) + rng.uniform(0, 6.28))
    return _tone(rng, _pitch(rng) * 2 ** (rng.uniform(0.3, 1.0) * swing / 12))


def _tremolo(rng: Generator, length: int, rate: float) -> Wave:
    swing = np.sin(2 * np.pi * rate * _seconds(length) + rng.uniform(0, 6.28))
    return _steady(rng, length) * (1 + rng.uniform(0.6, 1.0) * swing)


def tremolo_slow(rng: Generator, length: int) -> Wave:
    """A tone whose level swings 3 to 6 times a second."""
    return _tremolo(rng, length, rng.uniform(3, 6))


def tremolo_fast(rng: Generator, length: int) -> Wave:
    """A tone whose level swings 8 to 13 times a second."""
    return _tremolo(rng, length, rng.uniform(8, 13))


def tone_hollow(rng: Generator, length: int) -> Wave:
    """A steady tone with odd harmonics, like a clarinet."""
    decay = rng.uniform(0.6, 1.2)
    return _steady(rng, length, tuple(k % 2 / k**decay for k in range(1, 10)))


def tone_reedy(rng: Generator, length: int) -> Wave:
    """A steady tone with all harmonics, like an oboe."""
    decay = rng.uniform(0.6, 1.2)
    return _steady(rng, length, tuple(1 / k**decay for k in range(1, 10)))


def _hiss(rng: Generator, length: int, low: float) -> Wave:
    """A band of noise, with a second, weaker one below 4 kHz that says nothing about the class."""
    wave = filtered_noise(rng, length, band=(low, low + rng.uniform(1500, 2500)))
    other = filtered_noise(rng, length, band=(1000, 4000))
    return wave + rng.uniform(0.2, 0.6) * _rms(wave) / _rms(other) * other


def hiss_low(rng: Generator, length: int) -> Wave:
    """Noise around 5 to 7 kHz."""
    return _hiss(rng, length, rng.uniform(4300, 5800))


def hiss_high(rng: Generator, length: int) -> Wave:
    """Noise around 7 to 10 kHz."""
    return _hiss(rng, length, rng.uniform(5800, 8000))


def _strike(rng: Generator, seconds: float) -> Wave:
    """A noise burst through a resonance, dying away by 60 dB within `seconds`."""
    time = _seconds(int(seconds * SAMPLE_RATE))
    ring = np.sin(2 * np.pi * rng.uniform(800, 4000) * time + rng.uniform(0, 6.28))
    return (ring + rng.standard_normal(len(time))) * np.exp(-6.9 * time / seconds)


def _strikes(rng: Generator, length: int, gaps: Wave, seconds: float) -> Wave:
    """The same strike again and again, after each of `gaps` in seconds."""
    strike = _strike(rng, seconds)
    wave = np.zeros(length + len(strike))
    for start in (np.cumsum(gaps) * SAMPLE_RATE).astype(int):
        if start < length:
            wave[start : start + len(strike)] += strike
    return wave[:length]


def clicks_regular(rng: Generator, length: int) -> Wave:
    """Clicks at 5 to 9 a second, evenly spaced."""
    gap = 1 / rng.uniform(5, 9)
    return _strikes(rng, length, np.full(20, gap) - (1 - rng.uniform()) * gap * np.eye(20)[0], 0.03)


def clicks_irregular(rng: Generator, length: int) -> Wave:
    """Clicks at 5 to 9 a second on average, unevenly spaced."""
    gap = 1 / rng.uniform(5, 9)
    return _strikes(rng, length, gap * rng.uniform(0.3, 1.7, 20), 0.03)


def impacts(rng: Generator, length: int) -> Wave:
    """Two to four strikes that ring."""
    gaps = length / SAMPLE_RATE * rng.uniform(0.2, 0.5, 4)
    gaps[0] = 0.02
    return _strikes(rng, length, gaps, rng.uniform(0.15, 0.5))


SOUNDS: dict[str, Sound] = {
    sound.__name__: sound
    for sound in (
        glide_up,
        glide_down,
        vibrato,
        tremolo_slow,
        tremolo_fast,
        tone_hollow,
        tone_reedy,
        hiss_low,
        hiss_high,
        clicks_regular,
        clicks_irregular,
        impacts,
    )
}
"""The classes, by label. New ones go to the end: a clip's random state counts from here."""
