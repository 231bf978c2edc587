"""Marks in tables: where in a recording an event is, checked against the recording."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mrkd_ray.audio.decoding import AudioError, Stretch, seconds_of
from mrkd_ray.common.text import few
from mrkd_ray.datasets.base import Annotated, Clip
from mrkd_ray.datasets.events import clip_id, together
from mrkd_ray.datasets.layouts.faults import Faults

_START, _END = "start|begin|onset|from|t?min|t0", "end|stop|offset|to|t?max|t1"
_SPAN = (
    r"(?:t|time|event|segment|clip)?[ _]?(?:{})[ _]?(?:time|frame|sample|pos|position)?s?[ _]?"
    r"(?:s|ms|secs?|seconds?|\(\w+\))?"
)
_SECONDS = re.compile(r"(frame|sample|pos)|(\bms|_ms|\((?!s\b|sec))")
SLACK = 0.1  # seconds that programs round an event's end beyond the recording's
CUT = (
    "Times are seconds from the beginning of the file. If the files are cut already, delete the "
    "columns of times."
)


def times(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns, in lower case, that say where in a recording a sound is.

    Returns:
        `start` and `end`, in seconds, and `other`: such as are in other units.
    """
    found: dict[str, list[str]] = {"start": [], "end": [], "other": []}
    for name in names:
        for kind, words in (("start", _START), ("end", _END)):
            if re.fullmatch(_SPAN.format(words), name):
                found["other" if _SECONDS.search(name) else kind].append(name)
    return found


def stretch_of(start: str, end: str, where: str, faults: Faults) -> Stretch | None:
    """Return the seconds of two cells; None and a fault where they are none.

    Args:
        where: names the cells' line.
    """
    seconds = []
    for text in (start, end):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0:
            mend = "Write seconds from the beginning of the recording, such as 12.5."
            faults.add("times that are no seconds", mend, f"{text!r} of {where}")
            return None
        seconds.append(round(number, 6))
    if seconds[1] < seconds[0]:
        mend = "Mend the times: the end comes after the start."
        faults.add("events that end before they begin", mend, f"{start} to {end} of {where}")
        return None
    return seconds[0], seconds[1]


class Recordings:
    """The recordings that tables mark events in, with their lengths."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._found: dict[Path, Annotated] = {}

    def add(self, name: str, path: Path) -> Annotated | None:
        """Return a recording; None where it cannot be read: the check of the data set says why.

        Args:
            name: what it is called in clip_ids, if it was not named before.
        """
        if path not in self._found:
            try:
                self._found[path] = Annotated(name, path, seconds_of(path))
            except (AudioError, OSError):
                return None
        return self._found[path]

    @property
    def all(self) -> tuple[Annotated, ...]:
        """Those that can be read."""
        return tuple(self._found.values())

    def event(self, clip: Clip, stretch: Stretch, where: str) -> Clip:
        """Return a clip of a recording as the event in it; its group is the recording by default.

        What is beyond the recording's end is a fault; `SLACK` is cut off.

        Args:
            clip: of the whole recording: its clip_id is the recording's name.
            where: names the line.
        """
        recording = self.add(clip.clip_id, clip.path)
        name = recording.name if recording else clip.clip_id
        start, end = stretch
        if recording:
            length = recording.seconds
            if start >= length or end > length + SLACK:
                place = f"{start:g} to {end:g} s of {where}, but {name} has {length:g} s"
                self._faults.add("events beyond the recording's end", CUT, place)
            end = min(end, length)
        return replace(
            clip,
            clip_id=clip_id(name, start, end),
            stretch=(start, end),
            group=clip.group or name,
        )


def check_groups(clips: Sequence[Clip], faults: Faults) -> None:
    """Report recordings of which events are of several groups."""
    groups: dict[Path, set[str | None]] = {}
    for clip in clips:
        groups.setdefault(clip.path, set()).add(clip.group)
    for path, found in groups.items():
        if len(found) > 1:
            mend = "All events of a recording are of one group."
            faults.add("recordings of several groups", mend, path.name)


def as_events(
    clips: Sequence[Clip], multi_label: bool, notes: list[str]
) -> tuple[list[Clip], bool]:
    """Return events, each once, and whether they may have several labels.

    They may where the table says so, and where events of other labels sound together: one of them
    is mostly in the other. What is decided goes to `notes`.
    """
    once: dict[str, Clip] = {}
    labels: dict[str, set[str]] = {}
    seen: Counter[tuple[str, tuple[str, ...]]] = Counter()
    pairs = together([clip for clip in clips if clip.stretch])
    for clip in clips:
        seen[clip.clip_id, clip.labels] += 1
        once.setdefault(clip.clip_id, clip)
        labels.setdefault(clip.clip_id, set()).update(clip.labels)
    if twice := [clip_id for (clip_id, _), n in seen.items() if n > 1]:
        notes.append(f"events that are listed twice ({len(twice)}): {few(twice, 3)}: taken once.")
    moments = [c.clip_id for c in once.values() if c.stretch and c.stretch[0] == c.stretch[1]]
    if moments:
        notes.append(
            f"events without a length ({len(moments)}): {few(moments, 3)}: a clip is around each."
        )
    if pairs and not multi_label:
        named = few((f"{a.clip_id} ({a.label}) and {b.clip_id} ({b.label})" for a, b in pairs), 2)
        notes.append(
            f"events of other labels that sound together ({len(pairs)} pairs): {named}. So clips "
            "may have several labels, and scores are mAP and lwlrap. For one label a clip keep one "
            "event of each pair."
        )
    if not (multi_label or pairs):
        return list(once.values()), False
    return [
        replace(clip, labels=tuple(sorted(labels[clip.clip_id]))) for clip in once.values()
    ], True
