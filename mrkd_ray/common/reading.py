"""Files that this program wrote, read again: whole and as they were, or `Damaged`.

Disks lose blocks, copies end early, people open a file in an editor. Whatever is wrong with a file
is one error here, so that whoever reads it can go on without it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.common.errors import UserError

LARGEST = 1 << 30
"""Bytes of the largest file of text or figures that is read whole."""


class Damaged(UserError):
    """A file is not what was written: cut, changed, of another kind, or gone."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: damaged: {why}")
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:  # Ray sends errors between processes
        return (_damaged, (self.path, str(self)))


def _damaged(path: Path, message: str) -> Damaged:
    error = Damaged(path, "")
    error.args = (message,)
    return error


class NotRegular(OSError):
    """A pipe, a device, a socket or a folder stands where a file belongs."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: not a regular file")
        self.strerror = "not a regular file"


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file to read: the one way to read what others may have put there.

    A pipe would wait for ever, and a device such as /dev/zero would never end.

    Raises:
        NotRegular: neither a regular file nor a link to one.
        OSError: it cannot be opened.
    """
    check_regular(path)
    # Also where it was swapped for a pipe since: this does not wait for somebody to write.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegular(path)
        yield file


@contextmanager
def opened_text(path: Path) -> Iterator[TextIO]:
    """Open a text file in UTF-8, with or without a mark, its line ends as they are.

    Raises:
        NotRegular: as `opened`, and OSError.
        UnicodeDecodeError: when what is no UTF-8 is read.
    """
    with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        yield text


def check_regular(path: Path) -> os.stat_result:
    """Return what the file system says of a file. Raises as `opened`."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise NotRegular(path)
    return found


Stamp = tuple[int, ...]


def stamp(path: Path) -> Stamp:
    """Return what is another when a file was written to or another put in its place.

    Of two that are equal, all that was read in between are the same bytes.

    Raises:
        OSError: as `opened`.
    """
    found = check_regular(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Return a file's bytes.

    Raises:
        Damaged: it is gone, larger than `limit`, cannot be read, or is no regular file.
    """
    try:
        with opened(path) as file:
            if limit is not None and os.fstat(file.fileno()).st_size > limit:
                raise Damaged(path, f"more than {limit} bytes")
            return file.read()
    except FileNotFoundError:
        raise Damaged(path, "it is gone") from None
    except OSError as error:
        raise Damaged(path, error.strerror or str(error)) from None


def read_text(path: Path, limit: int = LARGEST) -> str:
    """Return a file's text. Raises Damaged: as `read_bytes`, or it is not UTF-8."""
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Damaged(path, f"not UTF-8 from byte {error.start} on") from None


def parse_json(path: Path, text: str | bytes) -> Any:
    """Return what a file's text says in JSON; numbers are finite. Raises Damaged: it is none."""

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")

    try:
        return json.loads(text, parse_constant=constant, parse_float=_finite)
    except RecursionError:
        raise Damaged(path, "brackets within brackets without end") from None
    except ValueError as error:
        raise Damaged(path, f"not JSON: {error}") from None


def _finite(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf"):
        raise ValueError(f"{text} is no finite number")
    return value


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """Return an object from a JSON file.

    Args:
        needed: names that it must have.

    Raises:
        Damaged: as `read_text`, or it is no such object.
    """
    found = parse_json(path, read_text(path))
    if not isinstance(found, dict):
        raise Damaged(path, "not a JSON object")
    if lacking := [name for name in needed if name not in found]:
        raise Damaged(path, f"no {lacking[0]!r} in it")
    return found


def read_rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header.

    Raises:
        Damaged: as `read_text`, it lacks a column of `needed`, or a row is cut or too long.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise Damaged(path, f"line {reader.line_num}: {error}") from None
    if lacking := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise Damaged(path, f"no column {lacking[0]!r}")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise Damaged(path, f"row {number} has not as many values as the header has names")
    return rows


def read_array(path: Path, dtype: str, dimensions: int) -> NDArray[Any]:
    """Return the array of a .npy file.

    Raises:
        Damaged: it is gone, cut, or of another kind.
    """
    data = read_bytes(path, LARGEST)
    try:
        found: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # NumPy parses its header as Python: what that raises is open
        raise Damaged(path, f"not an array ({type(error).__name__})") from None
    if found.dtype != np.dtype(dtype) or found.ndim != dimensions:
        raise Damaged(path, f"not {dtype} in {dimensions} dimensions")
    return found
