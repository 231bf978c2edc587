"""Extraction of representations beside a straightforward librosa script, in equal pools."""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.common import RUNS, Result, Row, Skip, alternate, one_thread

NAME = "representations"
ALL = ("logmel64", "logmel128", "mfcc", "cqt")
TARGETS = {ALL: 4.0, ("cqt",): 5.0}
PROCESSES = 2
CLIPS = 160  # of each data set and run, evenly spaced
CHUNK = 8


def run(quick: bool = False) -> Result:
    """Measure all representations, then CQT alone, on ESC-10's Ogg files and on ESC-50's."""
    one_thread()
    context = multiprocessing.get_context("spawn")
    rows: list[Row] = []
    details: dict[str, Any] = {}
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_start) as pool:
        for name in ("esc10",) if quick else ("esc10", "esc50"):
            try:
                paths = _paths(data.folder(name, quick), 4 if quick else CLIPS)
            except Skip:
                if name == "esc10":
                    raise
                continue
            for names, target in TARGETS.items():
                rows.append(_row(pool, name, paths, names, target, 1 if quick else RUNS))
            details[f"{name}: largest and 99.9th percentile difference, dB, 8 clips"] = pool.submit(
                _differences, paths[:8]
            ).result()
    return Result(
        name=NAME,
        title="Representations, CPU",
        how=f"{CLIPS} clips of each data set a run, from file to static frames, deltas and "
        f"delta-deltas in float32. A pool of {PROCESSES} warm processes works on them, with "
        "one thread each. Ours: `extraction.compute_chunk`, then `deltas.with_deltas`, "
        "which training does on the device. Beside it: soundfile, one librosa.resample, one "
        "librosa call for each representation, and two librosa.feature.delta. Neither side "
        "sends or stores its arrays.",
        rows=rows,
        details=details,
    )


def _row(
    pool: ProcessPoolExecutor,
    dataset: str,
    paths: Sequence[Path],
    names: tuple[str, ...],
    target: float,
    runs: int,
) -> Row:
    chunks = [(paths[i : i + CHUNK], names) for i in range(0, len(paths), CHUNK)]

    def rate(function: Any, work: Sequence[Any]) -> float:
        began = time.perf_counter()
        frames = sum(pool.map(function, work))
        assert frames > 0
        return len(paths) / (time.perf_counter() - began)

    for function in (ours, peer, decoding):  # imports, filters and compiled code are there before
        list(pool.map(function, [chunks[0]] * (2 * PROCESSES)))
    sides = {"ours": ours, "peer": peer, "decoding": decoding}
    values = alternate(
        runs,
        {side: lambda side=side: rate(sides[side], chunks) for side in sides},  # type: ignore[misc]
    )
    share = statistics.median(values["ours"]) / statistics.median(values["decoding"])
    return Row(
        what=f"{dataset}: {', '.join(names)}",
        unit="clips/s",
        ours=values["ours"],
        peer=values["peer"],
        peer_is="librosa script",
        target=target,
        limits="Decoding and resampling, which both sides share, bound the ratio: they take "
        f"{100 * share:.0f} % of our time a clip.",
    )


def _paths(root: Path, count: int) -> list[Path]:
    files = sorted(p for p in root.rglob("*") if p.suffix in (".ogg", ".wav"))
    return files[:: max(1, len(files) // count)][:count]


def _start() -> None:
    import torch

    torch.set_num_threads(1)


def ours(work: tuple[Sequence[Path], tuple[str, ...]]) -> int:
    """Compute a chunk of clips; return the number of frames made."""
    return sum(array.shape[-1] for arrays in _ours(*work) for array in arrays.values())


def peer(work: tuple[Sequence[Path], tuple[str, ...]]) -> int:
    """The same with librosa, clip by clip."""
    paths, names = work
    return sum(array.shape[-1] for path in paths for array in _librosa(path, names).values())


def _ours(paths: Sequence[Path], names: tuple[str, ...]) -> list[dict[str, Any]]:
    import torch

    from mrkd_ray.features.deltas import MARGIN, with_deltas
    from mrkd_ray.features.extraction import Job, compute_chunk

    def channels(frames: Any) -> Any:
        padded = np.pad(frames.T, ((0, 0), (MARGIN, MARGIN)), mode="edge")
        return with_deltas(torch.from_numpy(padded)[None])[0].numpy()

    jobs = [Job(path.name, path, _digest(path), names, path.parent) for path in paths]
    done = compute_chunk(jobs)
    assert not any(result.error for result in done)
    return [{k: channels(frames) for k, frames in result.arrays.items()} for result in done]


@functools.cache  # known before, as in a run
def _digest(path: Path) -> str:
    from mrkd_ray.datasets.checking.scan import digest

    return digest(path)


def decoding(work: tuple[Sequence[Path], tuple[str, ...]]) -> int:
    """What both sides share: a chunk's files to samples at 22,050 Hz."""
    from mrkd_ray.audio import decoding as audio

    return sum(len(audio.load(path).at(audio.SAMPLE_RATE)) for path in work[0])


def _librosa(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """What people write: [3, bins, frames] of each representation, with the paper's parameters."""
    import librosa
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    y = librosa.resample(samples.mean(axis=1), orig_sr=rate, target_sr=22050)
    frame: dict[str, Any] = {"y": y, "sr": 22050, "n_fft": 1764, "hop_length": 220}
    found = {}
    for name in names:
        if name == "mfcc":
            static = librosa.feature.mfcc(n_mfcc=64, **frame)
        elif name == "cqt":
            transform = librosa.cqt(y, sr=22050, hop_length=220, n_bins=84)
            static = librosa.amplitude_to_db(np.abs(transform))
        else:
            bands = int(name.removeprefix("logmel"))
            static = librosa.power_to_db(librosa.feature.melspectrogram(n_mels=bands, **frame))
        deltas = [librosa.feature.delta(static, order=order, mode="nearest") for order in (1, 2)]
        found[name] = np.stack([static, *deltas]).astype(np.float32)
    return found


def _differences(paths: Sequence[Path]) -> dict[str, dict[str, float]]:
    """How far both sides are apart, static frames: the same thing is measured."""
    gaps: dict[str, list[Any]] = {name: [] for name in ALL}
    for path, arrays in zip(paths, _ours(paths, ALL), strict=True):
        for name, array in _librosa(path, ALL).items():
            gaps[name].append(np.abs(array[0] - arrays[name][0]).ravel())
    joined = {name: np.concatenate(parts) for name, parts in gaps.items()}
    return {
        name: {"largest": float(gap.max()), "p99.9": float(np.percentile(gap, 99.9))}
        for name, gap in joined.items()
    }
