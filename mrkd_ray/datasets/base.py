"""What a data set is: labelled clips in a fixed order, and the layouts it can be read from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mrkd_ray.audio.decoding import Stretch
from mrkd_ray.common.text import natural

Side = Literal["train", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One labelled recording."""

    clip_id: str
    """Unique in its data set and stable: a posix path relative to the root, or as in the csv."""
    path: Path
    """Absolute path of the audio file."""
    labels: tuple[str, ...]
    """One; in a multi-label data set one or more, sorted, none twice; unlabelled: none."""
    fold: int | None = None
    """The fold in which the clip is tested, where the data set gives folds."""
    split: Side | None = None
    """The side, where the data set gives one split into train and test."""
    group: str | None = None
    """The source recording: clips of one group never stand on both sides. None: on its own."""
    verified: bool = True
    """Whether a person checked the label."""
    stretch: Stretch | None = None
    """The part of the file that it is, start and end in seconds; None: the whole file."""

    @property
    def label(self) -> str:
        """Its label; several as in a csv, with commas between them."""
        return ",".join(self.labels)


class Annotated(NamedTuple):
    """A recording in which events are marked: what is not marked holds none of the classes."""

    name: str
    """What clip_ids of its events begin with."""
    path: Path
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled clips; either all or none carry a fold, and likewise a split. And unlabelled ones.

    Raises:
        ValueError: a clip_id occurs twice, only some clips carry a fold or split, or a clip has
            not one label though the data set is not multi-label.
    """

    name: str
    root: Path
    """Absolute path of the folder that the data set was read from."""
    clips: tuple[Clip, ...]
    unlabelled: tuple[Clip, ...] = ()
    """Recordings without labels, for distillation only: never in a split."""
    notes: tuple[str, ...] = ()
    """What the reader left out or decided, one sentence each, to be shown to the user."""
    multi_label: bool = False
    """Whether clips may have several labels: said by its reader, not guessed from the labels."""
    annotated: tuple[Annotated, ...] = ()
    """Where clips are events of longer recordings: these recordings, also those without events."""
    event_seconds: float | None = None
    """How long a clip around such an event is, at least."""
    negatives: str | None = None
    """The class of what is not marked in such recordings, where there is one."""

    def __post_init__(self) -> None:
        if len({clip.clip_id for clip in self.recordings}) != len(self.recordings):
            raise ValueError(f"{self.name}: a clip_id occurs twice")
        for field in ("fold", "split"):
            given = sum(getattr(clip, field) is not None for clip in self.clips)
            if given not in (0, len(self.clips)):
                raise ValueError(f"{self.name}: {given} of {len(self.clips)} clips have a {field}")
        if not self.multi_label and any(len(clip.labels) != 1 for clip in self.clips):
            raise ValueError(f"{self.name}: a clip has not one label")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur; a label's place is its class index. Sorted: 2 before 10."""
        labels = {label for clip in self.clips for label in clip.labels}
        return tuple(sorted(labels, key=lambda label: (natural(label), label)))

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels of every clip, in the order of `clips`: see `encode`."""
        return encode([clip.labels for clip in self.clips], self.classes, self.multi_label)

    @cached_property
    def by_id(self) -> dict[str, Clip]:
        """The clips by clip_id, in the order of `clips`."""
        return {clip.clip_id: clip for clip in self.clips}

    @property
    def gives_sides(self) -> bool:
        """Whether it says itself, by folds or a split, who is tested."""
        return any(clip.fold is not None or clip.split is not None for clip in self.clips[:1])

    @property
    def recordings(self) -> tuple[Clip, ...]:
        """All clips, labelled or not."""
        return self.clips + self.unlabelled

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all of the labelled clips in order but paths and audio."""
        rows: list[object] = [
            (c.clip_id, c.label, c.fold, c.split, c.group, c.verified) for c in self.clips
        ]
        rows += [c.stretch for c in self.clips if c.stretch is not None]
        rows += ["multi-label"] * self.multi_label
        # Results of when 10 came before 2 are of other class indices.
        rows += ["natural order"] * (list(self.classes) != sorted(self.classes))
        return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()

    @property
    def cache_name(self) -> str:
        """What folders and files made from it are called: its name, and a hash of where it lies."""
        root = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:8]
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', self.name)}-{root}"

    def without(self, clip_ids: Collection[str]) -> Dataset:
        """Return the data set less these clips; classes without clips disappear."""
        gone = set(clip_ids)

        def kept(clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
            return tuple(clip for clip in clips if clip.clip_id not in gone)

        return replace(self, clips=kept(self.clips), unlabelled=kept(self.unlabelled))


def encode(
    labels: Sequence[Collection[str]], classes: Sequence[str], multi_label: bool
) -> npt.NDArray[np.int64]:
    """Return class indices int64 `[N]`; if multi-label int64 `[N, M]`, 1 for each label, else 0.

    Raises:
        KeyError: a label that is no class.
    """
    index = {label: i for i, label in enumerate(classes)}
    if not multi_label:
        return np.array([index[label] for (label,) in labels], dtype=np.int64)
    hot = np.zeros((len(labels), len(classes)), dtype=np.int64)
    for row, own in zip(hot, labels, strict=True):
        row[[index[label] for label in own]] = 1
    return hot
