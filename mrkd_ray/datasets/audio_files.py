"""Which files are recordings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mrkd_ray.audio.decoding import AUDIO_SUFFIXES
from mrkd_ray.common.text import few


def is_audio(path: Path) -> bool:
    """Return whether a visible file has the suffix of a recording."""
    visible = not path.name.startswith(".")
    return visible and path.suffix.lower() in AUDIO_SUFFIXES and not path.is_dir()


def listing(folder: Path) -> list[Path]:
    """Return what lies directly in a folder, sorted, less hidden names; none where it is none."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def audio_files(folder: Path) -> Iterator[Path]:
    """Yield the recordings at any depth, sorted; hidden files and folders are left out.

    Links to folders are followed, except back to a folder that holds the link.
    """
    for here, folders, files in os.walk(folder, followlinks=True):
        inside = os.path.realpath(here)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and not f"{inside}/".startswith(f"{os.path.realpath(os.path.join(here, name))}/")
        )
        yield from (path for path in (Path(here, name) for name in sorted(files)) if is_audio(path))


def csv_hint(folder: Path) -> str:
    """Point to csv files in the folder, which may be what the user meant."""
    names = sorted(entry.name for entry in folder.glob("*.csv"))
    return f" To use a list of labels, give its path: {few(names)}." if names else ""
