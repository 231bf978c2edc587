"""Sounds that are of no class, made here: what a model says of them shows what it takes for one."""

from __future__ import annotations

import numpy as np

from mrkd_ray.audio.decoding import Recording, Waveform

RATE = 22_050
LEVEL = 0.1  # root mean square
SILENT = 2e-4
"""How far the samples of silence lie apart at most: six steps of 16 bits."""


def is_silent(lowest: float, highest: float) -> bool:
    """Say whether nothing is heard in a recording whose samples lie between these."""
    return highest - lowest <= SILENT


def noises(seconds: float) -> dict[str, Recording]:
    """Return noise by name, always the same: white, pink and brown, hum of the mains, crackle.

    Args:
        seconds: of each.
    """
    n = max(2, round(seconds * RATE))
    rng = np.random.default_rng(20_260_101)
    t = np.arange(n) / RATE
    made = {}
    frequencies = np.fft.rfftfreq(n, 1 / RATE).clip(min=20)
    for take in (1, 2, 3):
        white = np.fft.rfft(rng.normal(size=n))
        for name, slope in (("white", 0.0), ("pink", 0.5), ("brown", 1.0)):
            made[f"{name} {take}"] = np.fft.irfft(white / frequencies**slope, n)
    for mains in (50, 60):
        tones = sum(np.sin(2 * np.pi * mains * k * t) / k for k in range(1, 9))
        made[f"hum {mains} Hz"] = tones + 0.01 * rng.normal(size=n)
    crackle = (rng.uniform(size=n) < 20 / RATE) * rng.normal(size=n)
    crackle[n // 2] = 1.0  # one at least
    made["crackle"] = crackle + 0.01 * rng.normal(size=n)
    return {name: Recording(_level(x), RATE) for name, x in made.items()}


def _level(samples: np.ndarray) -> Waveform:
    scaled = samples * (LEVEL / np.sqrt(np.mean(samples**2)))
    return np.asarray(scaled.clip(-1, 1), np.float32)
