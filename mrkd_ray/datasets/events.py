"""Events of longer recordings as clips: cut where they are, with what is around them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from mrkd_ray.audio.decoding import Stretch
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import few
from mrkd_ray.datasets.base import Annotated, Clip, Dataset
from mrkd_ray.datasets.checking.scan import scan_file

SHORTEST = 1.5
"""Seconds of a clip around an event, at least: the default window."""
MOSTLY = 0.5  # of a clip or an event: with more of it, an event is in a clip
SEED = 0  # of where negatives are drawn: the same ones in every run and for every seed of training


def clip_id(name: str, start: float, end: float) -> str:
    """Return what an event is called: its recording, and where it is in it, in seconds."""
    return f"{name}@{_short(start)}-{_short(end)}"


def _short(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def in_windows(dataset: Dataset, seconds: float = SHORTEST) -> Dataset:
    """Return the data set with each event's clip at least so long: the event stands in its middle.

    What is around it is the recording's own sound. At a recording's beginning or end the clip is
    moved, not shortened; a recording that is shorter is one whole. Where clips have several labels
    they also get those of other events: of one that fills more than half of the clip, and, where
    a clip is one window, of one that is more than half in it.

    Args:
        dataset: with `annotated` recordings; any other is returned as it is.
        seconds: of a window.
    """
    if not dataset.annotated:
        return dataset
    length = {each.path: each.seconds for each in dataset.annotated}
    dataset = replace(dataset, event_seconds=seconds)
    wide = [
        _widened(clip, seconds, length[clip.path]) if clip.path in length else clip
        for clip in dataset.clips
    ]
    marked = _by_recording(dataset.clips)
    labels = [marked[clip.path].labels_in(clip.stretch, seconds) for clip in wide]
    if dataset.multi_label:
        wide = [
            replace(clip, labels=tuple(sorted({*clip.labels, *heard})))
            for clip, heard in zip(wide, labels, strict=True)
        ]
        return replace(dataset, clips=tuple(wide))
    notes = list(dataset.notes)
    other = [c.clip_id for c, heard in zip(wide, labels, strict=True) if heard - {*c.labels}]
    if other:
        notes.append(
            f"events with one of another label within the same {seconds:g} s ({len(other)}): "
            f"{few(other, 3)}: each is a clip with its own label."
        )
    return replace(dataset, clips=tuple(wide), notes=tuple(notes))


def _widened(clip: Clip, seconds: float, length: float) -> Clip:
    assert clip.stretch is not None
    start, end = clip.stretch
    if end - start >= seconds:
        return clip
    start = max(0.0, min((start + end - seconds) / 2, length - seconds))
    end = min(length, start + seconds)
    return replace(clip, stretch=(round(start, 6), round(end, 6)))


class _Marked:
    """The events of a recording, found by time."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = sorted(clips, key=lambda clip: clip.stretch or (0.0, 0.0))
        self._starts = [clip.stretch[0] for clip in self._clips if clip.stretch]
        self._longest = max((c.stretch[1] - c.stretch[0] for c in clips if c.stretch), default=0.0)

    def near(self, stretch: Stretch) -> Iterator[tuple[Stretch, Clip]]:
        """Yield the events that may overlap with a part of the recording."""
        first = bisect_left(self._starts, stretch[0] - self._longest)
        last = bisect_right(self._starts, stretch[1])
        for clip in self._clips[first:last]:
            assert clip.stretch is not None
            yield clip.stretch, clip

    def labels_in(self, stretch: Stretch | None, window: float) -> set[str]:
        """Return the labels that are heard in a clip: see `in_windows`."""
        if stretch is None:
            return set()
        length = stretch[1] - stretch[0]
        heard: set[str] = set()
        for other, clip in self.near(stretch):
            both = overlap(stretch, other)
            inside = length <= window and is_mostly_in(other, stretch)
            if both > MOSTLY * length or inside:
                heard.update(clip.labels)
        return heard


def _by_recording(clips: Sequence[Clip]) -> dict[Path, _Marked]:
    own: dict[Path, list[Clip]] = defaultdict(list)
    for clip in clips:
        own[clip.path].append(clip)
    return {path: _Marked(each) for path, each in own.items()}


def overlap(a: Stretch, b: Stretch) -> float:
    """Return the seconds that two parts of a recording share."""
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


def is_mostly_in(event: Stretch, other: Stretch) -> bool:
    """Return whether more than half of an event is in another part; a moment: whether it is in."""
    length = event[1] - event[0]
    if length == 0:
        return other[0] <= event[0] <= other[1]
    return overlap(event, other) > MOSTLY * length


def together(clips: Sequence[Clip]) -> list[tuple[Clip, Clip]]:
    """Return pairs of events with other labels of which one is mostly in the other."""
    found = []
    for marked in _by_recording(clips).values():
        for clip in marked._clips:
            assert clip.stretch is not None
            for other, event in marked.near(clip.stretch):
                later = (event.stretch, event.clip_id) > (clip.stretch, clip.clip_id)
                if later and event.labels != clip.labels:
                    shorter, longer = sorted((clip.stretch, other), key=lambda s: s[1] - s[0])
                    if is_mostly_in(shorter, longer):
                        found.append((clip, event))
    return found


def with_negatives(dataset: Dataset, name: str, seconds: float = SHORTEST) -> Dataset:
    """Return the data set with a class more: clips of what is not marked.

    Each is one window long, none overlaps with an event's clip or with another, and none is silent.
    There are as many as clips of the median class, drawn from all recordings alike; fewer where
    there is not so much. They stand on the side of their recording.

    Args:
        dataset: of `in_windows`.
        name: of the class.
        seconds: of a window.

    Raises:
        UserError: no events are marked, the name is a class already, or nothing is left unmarked.
    """
    if not dataset.annotated:
        raise UserError(
            f"negatives {name!r}: {dataset.root} has no marked events, so nothing says what is "
            "unmarked. Leave it out, or give recordings with tables of events."
        )
    if name in dataset.classes:
        raise UserError(f"negatives {name!r}: a class of that name is there. Give another name.")
    rng = np.random.default_rng(SEED)
    first = {clip.path: clip for clip in reversed(dataset.clips)}
    free = [
        (each, start)
        for each in sorted(dataset.annotated)
        if each.path in first or not dataset.gives_sides  # else on no side
        for start in _free(each, dataset.clips, seconds, rng)
    ]
    count = Counter(label for clip in dataset.clips for label in clip.labels)
    wanted = round(median(count.values()))
    if not free:
        raise UserError(
            f"negatives {name!r}: no {seconds:g} s of the {len(dataset.annotated)} recordings of "
            f"{dataset.root} are unmarked. Leave it out, or give a shorter --window."
        )
    clips: list[Clip] = []
    for i in rng.permutation(len(free)):
        each, start = free[i]
        stretch = start, round(start + seconds, 6)
        if len(clips) < wanted and scan_file(each.path, stretch).problem is None:
            like = first.get(each.path)
            clips.append(
                Clip(
                    clip_id=clip_id(each.name, *stretch),
                    path=each.path,
                    labels=(name,),
                    fold=like.fold if like else None,
                    split=like.split if like else None,
                    group=like.group if like else each.name,
                    stretch=stretch,
                )
            )
    few_of = f" (the median class has {wanted})" if len(clips) < wanted else ""
    note = f"{name}: {len(clips)} clips of {seconds:g} s of what is not marked{few_of}."
    clips.sort(key=lambda clip: (str(clip.path), clip.stretch))
    return replace(
        dataset,
        clips=(*dataset.clips, *clips),
        notes=(*dataset.notes, note),
        negatives=name if clips else None,
    )


def _free(
    recording: Annotated, clips: Sequence[Clip], seconds: float, rng: np.random.Generator
) -> Iterator[float]:
    """Yield where windows begin that lie side by side in what is not marked."""
    at = 0.0
    marked = sorted(c.stretch for c in clips if c.path == recording.path and c.stretch)
    for start, end in (*marked, (recording.seconds, recording.seconds)):
        fit = int((start - at) / seconds)
        first = at + rng.uniform(0, 1) * max(0.0, start - at - fit * seconds)
        for i in range(fit):
            yield round(first + i * seconds, 6)
        at = max(at, end)
