"""GTZAN: 1,000 clips of ten genres of music."""

from __future__ import annotations

import re
from pathlib import Path

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import opened_text
from mrkd_ray.common.text import few
from mrkd_ray.datasets.audio_files import audio_files, listing, unread, visible_files
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.layouts.faults import Faults
from mrkd_ray.datasets.layouts.registry import layout, sides

_GENRES = "blues classical country disco hiphop jazz metal pop reggae rock"
GENRES = frozenset(_GENRES.split())
FOLDERS = ("", "genres", "genres_original", "Data/genres_original")
"""Where the genres' folders lie: in the archive, and in Kaggle's edition."""
LISTS = {
    "train_filtered.txt": "train",
    "valid_filtered.txt": "validation",
    "test_filtered.txt": "test",
}
"""The fault-filtered split of Kereliuk, Sturm and Larsen (2015), under its usual names."""
_NAME = re.compile(r"([a-z]+)\.\d{5}")


def _root(path: Path) -> Path | None:
    """Return the folder of the genres, None where there is none."""
    for name in FOLDERS:
        root = path / name
        found = {folder.name for folder in listing(root) if folder.is_dir()}
        if len(found & GENRES) < 2 or found - GENRES:
            continue
        first = next((p for genre in sorted(found) for p in audio_files(root / genre)), None)
        if first is not None and _genre(first) == first.parent.name:
            return root
    return None


def _genre(file: Path) -> str:
    match = _NAME.fullmatch(file.stem)
    return match[1] if match else ""


@layout(
    "gtzan",
    description="GTZAN: a folder per genre (blues/blues.00000.wav), as in the archive or in "
    f"Kaggle's edition; with {', '.join(LISTS)} beside it the fault-filtered split",
    specificity=20,
    matches=lambda path: path.is_dir() and _root(path) is not None,
)
def read_gtzan(path: Path) -> Dataset:
    """Read the genres, with the fault-filtered split where its lists are there.

    Raises:
        UserError: lists all that is wrong.
    """
    root = _root(path)
    assert root is not None
    faults = Faults(f"{path}: not usable as GTZAN.")
    files = {f"{file.parent.name}/{file.stem}": file for file in audio_files(root)}
    for name, file in files.items():
        if _genre(file) != file.parent.name:
            faults.add("recordings in another genre's folder", "Move or rename them.", name)
    lists = {name: place for name in LISTS for place in (path, root) if (place / name).is_file()}
    if lists and len(lists) < len(LISTS):
        lacking = few(LISTS.keys() - lists.keys())
        faults.add(
            "lists of the split that are missing", "Add them, or remove the others.", lacking
        )
    word_of: dict[str, str] = {}
    for name, place in lists.items():
        for line in _lines(place / name):
            key = line.rpartition(".")[0]
            if word_of.setdefault(key, LISTS[name]) != LISTS[name]:
                faults.add("recordings in two lists", "Keep one line.", line)
    faults.raise_any()
    notes: list[str] = []
    if lists:
        notes += _about(files, word_of)
        files = {name: file for name, file in files.items() if name in word_of}
    else:
        notes.append(
            "GTZAN without the lists of its fault-filtered split: it has recordings more than once "
            "and artists in several clips (Sturm 2013), so scores of folds drawn here are too "
            f"good. Put {few(LISTS)} into {path}."
        )
    side_of = sides([word_of[name] for name in files]) if lists else [None] * len(files)
    clips = [
        Clip(
            clip_id=file.relative_to(root).as_posix(),
            path=file,
            labels=(file.parent.name,),
            split=side,
        )
        for file, side in zip(files.values(), side_of, strict=True)
        if side is not None or not lists
    ]
    if left_out := len(files) - len(clips):
        notes.append(f"{left_out} validation clips are left out: there are test clips too.")
    notes += unread((file for file in visible_files(path) if file.name not in LISTS), path)
    return Dataset(name="gtzan", root=path, clips=tuple(clips), notes=tuple(notes))


def _about(files: dict[str, Path], word_of: dict[str, str]) -> list[str]:
    """Say which recordings only the folders have, and which only the lists."""
    notes = []
    if unlisted := sorted(files.keys() - word_of.keys()):
        named = few(unlisted, 3)
        notes.append(f"recordings that the split leaves out ({len(unlisted)}): {named}.")
    if gone := sorted(word_of.keys() - files.keys()):
        notes.append(f"recordings of the lists that are not there ({len(gone)}): {few(gone, 3)}.")
    return notes


def _lines(file: Path) -> list[str]:
    try:
        with opened_text(file) as text:
            return text.read().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}).") from error
