"""One folder per class, optionally under train/ and test/."""

from __future__ import annotations

import re
from pathlib import Path

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import few
from mrkd_ray.datasets.audio_files import (
    audio_files,
    csv_hint,
    endings,
    is_audio,
    listing,
    unread,
    visible_files,
)
from mrkd_ray.datasets.base import Clip, Dataset, Side
from mrkd_ray.datasets.layouts.registry import SPLIT_WORDS, layout, sides

_PART = re.compile(r"(folds?|splits?|parts?|cv|batch|shard|chunk)[ _-]?[0-9]+", re.IGNORECASE)
"""Names of folders that divide a data set and are no classes."""


def _folders(folder: Path) -> list[Path]:
    return [path for path in listing(folder) if path.is_dir()]


def _folders_with_audio(folder: Path) -> list[Path]:
    return [f for f in _folders(folder) if next(audio_files(f), None) is not None]


def _matches(path: Path) -> bool:
    return path.is_dir() and bool(_folders_with_audio(path))


@layout(
    "folder",
    description="one folder per class with recordings (wav, flac, ogg, mp3), "
    "optionally inside train/ and test/",
    specificity=0,
    matches=_matches,
)
def read_folder(root: Path) -> Dataset:
    """Read a data set whose labels are the names of the folders.

    Raises:
        UserError: fewer than two classes, folders called fold1, fold2, ..., or other folders beside
            train/ and test/.
    """
    tops = _folders_with_audio(root)
    if all(_PART.fullmatch(top.name) for top in tops):
        raise UserError(
            f"data {str(root)!r}: its folders ({few(top.name for top in tops)}) are parts of a "
            f"data set, not classes.{csv_hint(root) or csv_hint(root.parent)} Without a list, move "
            "the recordings into a folder for each class."
        )
    split_of = _split_folders(root, tops)
    clips: list[Clip] = []
    notes: list[str] = []
    if split_of is None:
        clips = _class_clips(root, root, None)
    for top, side in (split_of or {}).items():
        if side is None:
            notes.append(f"{top.name}/ is left out: there is a test folder too.")
        else:
            clips += _class_clips(root, top, side)
    if stray := sum(map(is_audio, root.iterdir())):
        notes.append(f"{stray} recordings directly in {root} have no class: left out.")
    notes += _without_audio(root, [root] if split_of is None else list(split_of))
    notes += unread(visible_files(root), root)
    classes = sorted({clip.label for clip in clips})
    if len(classes) < 2:
        inner = [f.name for top in tops for f in _folders_with_audio(top)]
        hint = (
            f" If its folders ({few(inner)}) are the classes, give the path {tops[0]}."
            if len(tops) == 1 and len(inner) > 1 and not all(map(_PART.fullmatch, inner))
            else ""
        )
        raise UserError(
            f"data {str(root)!r}: at least two class folders with recordings are needed, found "
            f"only {classes[0]!r}.{hint}{csv_hint(root)}" + "".join(f" Note: {n}" for n in notes)
        )
    return Dataset(name=root.name, root=root, clips=tuple(clips), notes=tuple(notes))


def _without_audio(root: Path, parents: list[Path]) -> list[str]:
    """Name the folders that look like classes but hold no recording."""
    empty = [
        f"{folder.relative_to(root).as_posix()}/ ({endings(visible_files(folder)) or 'empty'})"
        for parent in parents
        for folder in _folders(parent)
        if next(audio_files(folder), None) is None
    ]
    return [f"folders without a recording, so no classes ({len(empty)}): {few(empty)}."] * bool(
        empty
    )


def _split_folders(root: Path, tops: list[Path]) -> dict[Path, Side | None] | None:
    """Return the side of each top folder where they are train/ and test/, else None.

    They are when both sides occur and hold class folders, no recordings of their own: classes
    may well be called "train" and "test".
    """
    named = [f for f in tops if f.name.lower() in SPLIT_WORDS]
    side_of = dict(zip(named, sides([f.name for f in named]), strict=True))
    if set(side_of.values()) - {None} != {"train", "test"}:
        return None
    if any(is_audio(entry) for top in named for entry in top.iterdir()):
        return None
    if others := [f.name for f in tops if f not in side_of]:
        raise UserError(
            f"data {str(root)!r}: beside {few(f.name for f in named)} stand other folders with "
            f"recordings: {few(others)}. Move them into a train or test folder, or away."
        )
    return side_of


def _class_clips(root: Path, parent: Path, side: Side | None) -> list[Clip]:
    return [
        Clip(
            clip_id=path.relative_to(root).as_posix(),
            path=path,
            labels=(folder.name.strip(),),
            split=side,
        )
        for folder in _folders_with_audio(parent)
        for path in audio_files(folder)
    ]
