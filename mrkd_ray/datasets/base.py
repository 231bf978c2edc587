"""What a data set is: labelled clips in a fixed order, and the layouts it can be read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mrkd_ray.common.registry import Registry

Side = Literal["train", "test"]

SPLIT_WORDS: dict[str, Literal["train", "test", "validation"]] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluate": "test",
    "evaluation": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
}
"""The usual spellings of a split, in lower case."""


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

    @property
    def label(self) -> str:
        """Its label; several as in a csv, with commas between them."""
        return ",".join(self.labels)


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
        """The labels that occur, sorted; a label's place here is its class index."""
        return tuple(sorted({label for clip in self.clips for label in clip.labels}))

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels of every clip, in the order of `clips`: see `encode`."""
        return encode([clip.labels for clip in self.clips], self.classes, self.multi_label)

    @cached_property
    def by_id(self) -> dict[str, Clip]:
        """The clips by clip_id, in the order of `clips`."""
        return {clip.clip_id: clip for clip in self.clips}

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
        rows += ["multi-label"] * self.multi_label
        return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()

    def without(self, clip_ids: Collection[str]) -> Dataset:
        """Return the data set less these clips; classes without clips disappear."""
        gone = set(clip_ids)

        def kept(clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
            return tuple(clip for clip in clips if clip.clip_id not in gone)

        return replace(self, clips=kept(self.clips), unlabelled=kept(self.unlabelled))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which a data set can lie on disk."""

    description: str
    """One line for `mrkd list` and for errors."""
    specificity: int
    """Asked first when higher: 0 a mere folder, 10 a known file in it, 20 a named data set."""
    matches: Callable[[Path], bool]
    """Whether what lies at this absolute path has the layout; cheap, raises nothing."""
    read: Callable[[Path], Dataset]
    """Reads it; raises one UserError that lists all that is wrong."""
    subsets: Mapping[str, Callable[[Path], Dataset]]
    """Reads a named part of it, which `PATH#NAME` asks for."""


LAYOUTS: Registry[Layout] = Registry("data set layout")


def layout(
    name: str,
    *,
    description: str,
    specificity: int,
    matches: Callable[[Path], bool],
    subsets: Mapping[str, Callable[[Path], Dataset]] | None = None,
) -> Callable[[Callable[[Path], Dataset]], Callable[[Path], Dataset]]:
    """Return the decorator that files a reader function as the layout `name`."""

    def decorate(read: Callable[[Path], Dataset]) -> Callable[[Path], Dataset]:
        LAYOUTS.add(
            name,
            Layout(
                description=description,
                specificity=specificity,
                matches=matches,
                read=read,
                subsets=subsets or {},
            ),
        )
        return read

    return decorate


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


def sides(words: Sequence[str]) -> list[Side | None]:
    """Turn the spellings in `SPLIT_WORDS` into sides.

    Validation counts as the test side only where there is no test; otherwise it is None: left out.

    Raises:
        KeyError: a word that is no such spelling.
    """
    parts = [SPLIT_WORDS[word.lower()] for word in words]
    validation: Side | None = None if "test" in parts else "test"
    return [validation if part == "validation" else part for part in parts]
