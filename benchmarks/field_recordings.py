"""Events in long recordings: what `mrkd prepare` takes of them, and what a model finds in new ones.

python -m benchmarks.field_recordings hour    # an hour with 500 marked events, as WAV, FLAC and OGG
python -m benchmarks.field_recordings find    # ESC-10's sounds in noise: train, predict, compare

`find` needs ESC-10 (`MRKD_BENCH_DATA`). Sounds of folds 1 to 4 are in the recordings that are
trained on, those of fold 5 in new ones. A found event is right where more than half of it, or of
the marked one, is in the other, and their labels agree.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import DATA
from benchmarks.long_recordings import RATE, measured, noise
from benchmarks.startup import MRKD
from mrkd_ray.common.arrays import Float32
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.events import is_mostly_in
from mrkd_ray.datasets.opening import open_dataset

EVENTS = 500
CLASSES = ("dog_bark", "rooster", "person_sneeze", "baby_cry")
RECORDINGS, NEW = 8, 4  # trained on; to find events in
SECONDS, PER_RECORDING = 180, 15
LOUDNESS = 10.0  # times the noise, in amplitude, at an event's loudest
QUIET = 0.1  # of its loudest: what is quieter at a sound's ends is not placed
LONGEST = 2.0  # seconds of a placed sound
THRESHOLDS = (0.5, 0.7, 0.9)


def track(file: Path, rows: Sequence[tuple[float, float, str]]) -> None:
    """Write a label track."""
    text = "".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label in rows)
    file.write_text(text, encoding="utf-8")


def hour() -> None:
    """Print the peak of memory and the time of `mrkd prepare` for each format."""
    rng = np.random.default_rng(0)
    for ending in ("wav", "flac", "ogg"):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for i in range(2):  # a class is in two recordings at least
                file = root / "data" / f"{i}.{ending}"
                noise(file.with_suffix(".wav"), 3600 if i else 60, i)
                if ending != "wav":
                    _convert(file.with_suffix(".wav"), file)
                starts = np.sort(rng.uniform(0, 3598 if i else 58, EVENTS if i else 20))
                rows = [(s, s + 0.5, "ab"[n % 2]) for n, s in enumerate(starts)]
                track(file.with_suffix(".txt"), rows)
            asked = ["--representations", "logmel64", "--runner", "local", "--data"]
            took = measured("prepare", *asked, str(root / "data"), "--cache", str(root / "cache"))
            print(f"1 h of {ending} with {EVENTS} events: {took}", flush=True)


def _convert(source: Path, to: Path) -> None:
    import soundfile

    with (
        soundfile.SoundFile(source) as file,
        soundfile.SoundFile(to, "w", file.samplerate, file.channels) as out,
    ):
        for block in file.blocks(1 << 18, dtype="float32"):
            out.write(block)
    source.unlink()


def sounds(folds: Sequence[int]) -> list[tuple[str, Float32]]:
    """Return the audible parts of ESC-10's clips of some folds, with their labels."""
    from mrkd_ray.audio.decoding import load

    found = []
    for clip in open_dataset(DATA / "esc10", Path("cache")).clips:
        if clip.label in CLASSES and clip.fold in folds:
            samples = load(clip.path).at(RATE)
            loud = np.flatnonzero(np.abs(samples) > QUIET * np.abs(samples).max())
            own = samples[loud[0] : loud[-1] + 1][: round(LONGEST * RATE)]
            found.append((clip.label, own / np.abs(own).max()))
    return found


def field(folder: Path, count: int, folds: Sequence[int], seed: int) -> None:
    """Write recordings of noise with sounds in it, and their label tracks."""
    import soundfile

    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    kept = sounds(folds)
    for i in range(count):
        samples = 0.03 * rng.standard_normal(SECONDS * RATE)
        rows = []
        for n in range(PER_RECORDING):
            label, own = kept[int(rng.integers(len(kept)))]
            room = SECONDS / PER_RECORDING
            start = n * room + rng.uniform(0, room - LONGEST)
            at = round(start * RATE)
            samples[at : at + len(own)] += 0.03 * LOUDNESS * own
            rows.append((start, start + len(own) / RATE, label))
        soundfile.write(folder / f"{i}.flac", np.clip(samples, -1, 1), RATE)
        track(folder / f"{i}.txt", rows)


def found_of(true: Dataset, said: Dataset) -> tuple[float, float]:
    """Return precision and recall of events."""

    def agree(a: Clip, b: Clip) -> bool:
        assert a.stretch is not None
        assert b.stretch is not None
        both = is_mostly_in(a.stretch, b.stretch) or is_mostly_in(b.stretch, a.stretch)
        return both and a.path.name == b.path.name and bool({*a.labels} & {*b.labels})

    right = sum(any(agree(clip, other) for other in true.clips) for clip in said.clips)
    heard = sum(any(agree(clip, other) for other in said.clips) for clip in true.clips)
    return right / len(said.clips), heard / len(true.clips)


def find() -> None:
    """Train on marked recordings, find events in new ones, print precision and recall."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        field(root / "field", RECORDINGS, (1, 2, 3, 4), seed=0)
        field(root / "new", NEW, (5,), seed=1)
        true = open_dataset(root / "new", root, window=0)
        kept = ["--cache", str(root / "cache"), "--output", str(root / "results")]
        how = ["--negatives", "background", "--folds", "1", "--cycles", "20", "--runner", "local"]
        _run("train", "--data", str(root / "field"), *how, *kept)
        for threshold in THRESHOLDS:
            table = root / "new" / f"found{threshold}.tsv"
            asked = ["--window", "1.5", "--hop", "0.5", "--threshold", str(threshold)]
            model = str(root / "results" / "train" / "best")
            recordings = str(root / "new")
            _run("predict", model, recordings, *asked, "--format", "raven", "--output", str(table))
            precision, recall = found_of(true, open_dataset(table, root, window=0))
            print(
                f"from {threshold:g} up: precision {100 * precision:.0f} %, recall "
                f"{100 * recall:.0f} % of {len(true.clips)} events in {NEW * SECONDS / 60:g} min",
                flush=True,
            )


def _run(*command: str) -> None:
    if subprocess.run([*MRKD, *command]).returncode:
        raise SystemExit(f"mrkd {command[0]} failed")


if __name__ == "__main__":
    {"hour": hour, "find": find}[sys.argv[1] if sys.argv[1:] else "hour"]()
