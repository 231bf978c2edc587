"""Files that survive a crash: written under a temporary name, synced, and renamed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.failures import naming

TEMPORARY = ".tmp"
"""Ending of names that begin with a dot: files and folders that a process is still writing."""


def sync(path: Path) -> None:
    """Have a file's or a folder's content on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, it is synced and takes `path`'s place.

    An OSError in the block names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Containers that share a disk have processes of the same number.
    temporary = path.with_name(f".{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with naming(path, temporary):
            yield temporary
            sync(temporary)
            temporary.replace(path)
        sync(path.parent)
    finally:
        with suppress(OSError):  # it is not there, or the disk cannot be written to
            temporary.unlink()


def remove_unfinished(folder: Path, places: Iterable[str]) -> None:
    """Remove what processes that were killed had begun to write; nobody else may write there now.

    Args:
        places: patterns of the folders below, each "" or ending in a slash.
    """
    for place in places:
        for path in folder.glob(f"{place}.*{TEMPORARY}"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file atomically. Raises ValueError: a number is not finite."""
    write_text(path, json_text(value, indent))


def json_text(value: Any, indent: int | None = 2) -> str:
    """Return what a JSON file says. Raises ValueError: a number is not finite."""
    return json.dumps(value, indent=indent, allow_nan=False) + "\n"


def from_here(path: Path) -> Path:
    """Return a path as people would type it: relative where it is below the working folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Make a hard link, or a copy where the file system has none: for `shutil.copytree` too.

    All writing here replaces files, so neither changes with the other.
    """
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def nearest_folder(folder: Path) -> Path:
    """Return where a folder is, or will be made: the nearest path above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def check_name(folder: Path, name: str) -> None:
    """Refuse a name that is too long for the file system that a folder is on, or will be."""
    there = nearest_folder(folder)
    most = os.pathconf(there, "PC_NAME_MAX") if hasattr(os, "pathconf") else len(name.encode())
    if 0 < most < len(name.encode()):
        raise UserError(
            f"{folder}: names of {len(name.encode())} bytes are needed, such as {name}, but the "
            f"file system of {there} takes {most}. Give an output folder on another, or fewer "
            "branches."
        )


def check_folders(*folders: Path) -> None:
    """Refuse folders that a run could not write to in the end. Makes none."""
    for folder in folders:
        there = nearest_folder(folder)
        if not there.is_dir():
            raise UserError(f"{folder}: cannot be written to, since {there} is a file")
        if not os.access(there, os.W_OK | os.X_OK):
            raise UserError(f"{folder}: cannot be written to: no permission in {there}")


def check_files(*files: Path | None) -> None:
    """Refuse files that cannot be written in the end, before long work. Makes none."""
    for file in filter(None, files):
        if file.is_dir():
            raise UserError(f"{file}: is a folder: give a file to write")
        check_folders(file.parent)
