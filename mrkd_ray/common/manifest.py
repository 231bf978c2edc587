"""`SHA256SUMS` in a folder: the sha256 of each of its files, as `sha256sum --check` reads it.

A folder without one (of an earlier version) is taken as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from mrkd_ray.common.files import write_text
from mrkd_ray.common.hashing import sha256_of
from mrkd_ray.common.reading import Damaged, read_bytes, read_text
from mrkd_ray.common.text import is_printable

NAME = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write(
    folder: Path, *, without: Iterable[str] = (), coming: Mapping[str, bytes] | None = None
) -> None:
    """Write down what is in a folder, at any depth. Hidden files and folders are left out.

    Args:
        without: names in the folder that are left out too.
        coming: files by name that will have these bytes.
    """
    coming = coming or {}
    found = _files(folder, {NAME, *without, *coming})
    sums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in found}
    _write(folder, sums | _sums(coming))


def write_only(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write down files by name, with their bytes, and no others of the folder."""
    _write(folder, _sums(contents))


def _sums(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _write(folder: Path, sums: Mapping[str, str]) -> None:
    write_text(folder / NAME, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def read(folder: Path) -> dict[str, str] | None:
    """Return the sha256 of each file by its place in the folder; None without a manifest.

    Raises:
        Damaged: the manifest is no such list, or names a file outside the folder.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        return None
    found: dict[str, str] = {}
    for line in read_text(path).removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if not match or not _inside(match[2]):
            raise Damaged(path, f"not a line of a manifest: {line[:100]!r}")
        found[match[2]] = match[1]
    if not found:
        raise Damaged(path, "it names no file")
    return found


def check(folder: Path, names: Iterable[str] | None = None) -> None:
    """Compare the files of a folder with what was written there.

    Args:
        names: of the files that matter; by default all.

    Raises:
        Damaged: names the first file that is gone or another.
    """
    sums = read(folder)
    if sums is None:
        return
    for name in sums if names is None else names:
        if name not in sums:
            raise Damaged(folder / name, f"{folder / NAME} does not name it")
        try:
            found = sha256_of(folder / name)
        except FileNotFoundError:
            raise Damaged(folder / name, f"it is gone, and {folder / NAME} names it") from None
        except OSError as error:
            raise Damaged(folder / name, error.strerror or str(error)) from None
        if found != sums[name]:
            raise _other(folder, name)


def content(folder: Path, name: str, limit: int | None = None) -> bytes:
    """Return the bytes of a file of the folder: those that were compared with its manifest.

    Raises:
        Damaged: it is gone or another, or larger than `limit`.
    """
    sums = read(folder)
    found = read_bytes(folder / name, limit)
    if sums is not None and hashlib.sha256(found).hexdigest() != sums.get(name):
        raise _other(folder, name)
    return found


def _other(folder: Path, name: str) -> Damaged:
    return Damaged(folder / name, f"its sha256 is not the one in {folder / NAME}")


def _inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    odd = "\\" in name or not is_printable(name)
    return not odd and not name.startswith("/") and ".." not in parts


def _files(folder: Path, left_out: set[str]) -> Iterable[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in left_out:
            continue
        if path.is_dir():
            yield from _files(path, set())
        elif path.is_file():
            yield path
