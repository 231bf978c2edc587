"""How often a trained model names a class where there is none of its classes, and what it misses.

mrkd train --data data/esc10 --branch logmel64:vgg_small --branch cqt:vgg_small --folds 1
python -m benchmarks.false_alarms results/train data/esc10 data/esc50 200

The arguments: a model, data of its classes, data with others, and how many clips of each at most.
Of the first data, clips are used that the model was not trained on; of the second, those of classes
that it does not have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from mrkd_ray.datasets.base import Clip
from mrkd_ray.datasets.checking.scan import digest
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.inference.calibration import Calibration
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.noise import noises
from mrkd_ray.inference.prediction import Prediction
from mrkd_ray.inference.spans import events

CACHE = Path("cache")
Events = Callable[[Sequence[Prediction]], set[str]]


def some(clips: Iterable[Clip], most: int) -> list[Clip]:
    """Return so many of the clips, evenly apart."""
    found = list(clips)
    places = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[i] for i in places]


def uncalibrated(windows: Sequence[Prediction]) -> set[str]:
    """Return the classes of events from a probability of 0.5 up, as training has it."""
    raw = [_with(window, Calibration(window.calibration.multi_label)) for window in windows]
    return {event.label for event in events(raw, raw[0].classes, 0.5)}


def calibrated(windows: Sequence[Prediction]) -> set[str]:
    """Return the classes of events from a calibrated probability of 0.5 up."""
    return {event.label for event in events(windows, windows[0].classes, 0.5)}


def default(windows: Sequence[Prediction]) -> set[str]:
    """Return the classes of events by the model's own thresholds."""
    return {event.label for event in events(windows, windows[0].classes, None)}


def _with(window: Prediction, calibration: Calibration) -> Prediction:
    return Prediction(
        window.file, window.start, window.end, window.classes, window.branches, calibration
    )


def main() -> None:
    """Print alarms an hour on unrelated clips, on noise and on silence, and what is found."""
    model, own, other, most = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    classifier = Classifier.load(model)
    mine = [
        clip
        for clip in open_dataset(own, CACHE).clips
        if digest(clip.path) not in classifier.trained_on
    ]
    unlike = [
        clip
        for clip in open_dataset(other, CACHE).clips
        if not set(clip.labels) & set(classifier.classes)
    ]
    length = classifier.window

    def heard(clips: Sequence[Clip]) -> list[list[Prediction]]:
        return [list(classifier.stream(clip.path, window=length)) for clip in clips]

    known, unknown = some(mine, most), some(unlike, most)
    here, there = heard(known), heard(unknown)
    hours = sum(windows[-1].end for windows in there) / 3600
    made = noises(length)
    rate = next(iter(made.values())).sample_rate
    noise = [
        list(classifier.stream(each.at(rate), sample_rate=rate, window=length))
        for each in made.values()
    ]
    quiet = list(classifier.stream(np.zeros(rate, np.float32), sample_rate=rate, window=length))
    print(f"{model}: {len(known)} clips of its classes, {len(unknown)} of others: {hours:.2f} h")
    print(f"calibration: {classifier.calibration.as_json(classifier.classes)}")
    print("events named by                 | alarms an hour | clips found | noise named | silence")
    ways: dict[str, Events] = {
        "probability 0.5, uncalibrated": uncalibrated,
        "probability 0.5, calibrated": calibrated,
        "the model's own thresholds": default,
    }
    for name, way in ways.items():
        alarms = sum(len(way(windows)) for windows in there) / hours
        found = np.mean(
            [set(clip.labels) <= way(windows) for clip, windows in zip(known, here, strict=True)]
        )
        named = sum(bool(way(windows)) for windows in noise)
        said = ", ".join(way(quiet)) or quiet[0].answer
        cells = (f"{name:31}", f"{alarms:14.0f}", f"{100 * found:9.1f} %")
        print(*cells, f"{named:5} of {len(noise):2}", said, sep=" | ")


if __name__ == "__main__":
    main()
