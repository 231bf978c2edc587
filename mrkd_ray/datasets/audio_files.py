"""Which files are recordings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from mrkd_ray.audio import containers
from mrkd_ray.audio.decoding import UNREAD_SUFFIXES, read_suffixes
from mrkd_ray.common.text import few


def is_audio(path: Path) -> bool:
    """Return whether a visible file has the suffix of a recording."""
    visible = not path.name.startswith(".")
    return visible and path.suffix.lower() in read_suffixes() and not os.path.isdir(path)


def listing(folder: Path) -> list[Path]:
    """Return what lies directly in a folder, sorted, less hidden names; none where it is none.

    Raises:
        OSError: the folder may not be read: what is in it would be missed without a word.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def visible_files(folder: Path, _within: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the files at any depth, sorted; hidden files and folders are left out.

    Links to folders are followed, except back to a folder that holds the link, itself or by others.

    Raises:
        OSError: as `listing`.
    """
    here = os.path.realpath(folder)
    within = _within | {here}
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    shown = [entry for entry in found if not entry.name.startswith(".")]
    yield from (folder / entry.name for entry in shown if not entry.is_dir())
    for entry in shown:
        if entry.is_dir():
            to = os.path.realpath(entry)
            if to not in within and not f"{here}/".startswith(f"{to}/"):
                yield from visible_files(folder / entry.name, within)


def audio_files(folder: Path) -> Iterator[Path]:
    """Yield the recordings among a folder's visible files, sorted."""
    return filter(is_audio, visible_files(folder))


def unread(files: Iterable[Path], root: Path) -> list[str]:
    """Name the files that are no recordings: a sentence on those that may be, one on the others.

    Args:
        root: they are named relative to it.
    """
    others = [path for path in files if not is_audio(path)]
    media = [path for path in others if path.suffix.lower() in UNREAD_SUFFIXES]
    rest = [path for path in others if path.suffix.lower() not in UNREAD_SUFFIXES]
    said = []
    if media:
        named = few((path.relative_to(root).as_posix() for path in media), 3)
        said.append(
            f"recordings left out, since their ending is not read ({endings(media)}): {named}. "
            f"PyAV reads them: {containers.INSTALL}"
        )
    if rest:
        named = few((path.relative_to(root).as_posix() for path in rest), 3)
        said.append(f"files that are no recordings, not read ({len(rest)}): {named}.")
    return said


def endings(files: Iterable[Path]) -> str:
    """Say how many files there are of each ending: `3 .m4a, 1 .txt`."""
    count = Counter(path.suffix.lower() or "without ending" for path in files)
    return few(f"{n} {ending}" for ending, n in count.most_common())


def no_recordings(folder: Path) -> str:
    """Say that a folder holds no recordings, and what it holds."""
    files = list(visible_files(folder))
    others = f", but {endings(files)}." if files else "."
    more = any(path.suffix.lower() in UNREAD_SUFFIXES for path in files)
    hint = f" PyAV reads m4a, webm, wma and the like: {containers.INSTALL}" if more else ""
    return f"the folder holds no recordings (wav, flac, ogg, mp3, ...){others}{hint}"


def csv_hint(folder: Path) -> str:
    """Point to csv files in the folder and those in it, which may be what the user meant."""
    files = sorted((*folder.glob("*.csv"), *folder.glob("*/*.csv")))
    names = few(path.relative_to(folder).as_posix() for path in files)
    return f" To use a list of labels, give its path: {names}." if files else ""
