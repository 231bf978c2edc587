"""Results in an object store: `--output s3://BUCKET/PREFIX`, or what else PyArrow reaches.

A run works in a local folder. What is finished is copied: a cell when it has ended, the tables at
the end. An object store has no rename. So `result.json`, which says that a cell is finished, is
copied last, and fetched last: whoever sees it finds all other files of the cell.

While a cell runs, its last checkpoint is copied now and then (`Running`), under a name of its own,
with the manifest last. The one before is removed afterwards. So there are two of a cell at most,
one of them complete.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mrkd_ray.cells.intact import RESULT
from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import TEMPORARY, replacing
from mrkd_ray.training import checkpoints

EVERY = 60.0
"""Seconds between two copies of a cell's checkpoints, at least."""

SHARE = 0.05
"""Of a run's time that copies of checkpoints take, at most."""

CHECKPOINT = "checkpoint"  # of a cell, here and there

_COPY = re.compile(rf"(?P<cell>[^/]+/cells/[^/]+)/{CHECKPOINT}/(?P<cycle>cycle-\d+)/(?P<file>.+)")


@dataclass(frozen=True)
class Mirror:
    """A folder in an object store, and the local one of which it has a copy.

    Attributes:
        uri: for example s3://bucket/results.
        local: folder of all results.
    """

    uri: str
    local: Path

    def fetch(self, name: str, *, names_only: bool = False) -> None:
        """Copy the runs of a name that are there to the local folder; of a cell all or nothing.

        Of one that is not finished its last complete checkpoint, unless one as late is here.

        Args:
            name: of a grid.
            names_only: make their folders alone, so that their names are taken.

        Raises:
            UserError: the store cannot be read.
        """
        from pyarrow.fs import FileSelector

        system, root = self._system()
        try:
            all_ = FileSelector(root, recursive=True, allow_not_found=True)
            there = [found.path for found in system.get_file_info(all_) if found.is_file]
        except Exception as error:
            raise self._failed("read", error) from None
        places = [PurePosixPath(path).relative_to(root) for path in there]
        own = re.compile(rf"{re.escape(name)}(-\d{{1,3}})?")
        places = [place for place in places if own.fullmatch(place.parts[0])]
        for run in {place.parts[0] for place in places}:
            (self.local / run).mkdir(parents=True, exist_ok=True)
        if names_only:
            return
        finished = {place.parent for place in places if place.name == RESULT}
        begun: dict[str, dict[str, list[str]]] = {}
        for place in sorted(places, key=lambda place: place.name == RESULT):
            if found := _COPY.fullmatch(str(place)):
                of = begun.setdefault(found["cell"], {}).setdefault(found["cycle"], [])
                of.append(found["file"])
                continue
            of_cell = len(place.parts) > 3 and place.parts[1] == "cells"
            whole = not of_cell or PurePosixPath(*place.parts[:3]) in finished
            if whole and not (self.local / place).exists():
                self._get(system, f"{root}/{place}", self.local / place)
        for cell, copies in begun.items():
            if PurePosixPath(cell) not in finished:
                self._fetch_checkpoint(system, root, cell, copies)

    def _fetch_checkpoint(
        self, system: Any, root: str, cell: str, copies: Mapping[str, Sequence[str]]
    ) -> None:
        """Copy the last complete checkpoint of a cell here, unless the cell is as far here."""
        whole = [cycle for cycle, files in copies.items() if f"{cycle}/{manifest.NAME}" in files]
        here = self.local / cell
        known = checkpoints.latest(here / CHECKPOINT)
        if not whole or (here / RESULT).exists() or (known and known.name >= max(whole)):
            return
        coming = here / f".{secrets.token_hex(4)}{TEMPORARY}"
        for file in copies[max(whole)]:
            place = f"{root}/{cell}/{CHECKPOINT}/{max(whole)}/{file}"
            self._get(system, place, coming / file)
        shutil.rmtree(here / CHECKPOINT, ignore_errors=True)
        coming.rename(here / CHECKPOINT)

    def _get(self, system: Any, place: str, target: Path) -> None:
        """Copy a file from the store."""
        try:
            stored = system.open_input_stream(place)
            with stored, replacing(target) as coming, coming.open("wb") as copy:
                shutil.copyfileobj(stored, copy)
        except Exception as error:
            raise self._failed("read", error) from None

    def send(self, folder: Path) -> None:
        """Copy the finished files of a folder below the local one; `result.json` last.

        A cell that is there as it is here, by its sums, is not copied again. One that is another
        there loses its `result.json` first.

        Raises:
            UserError: the store cannot be written.
        """
        system, root = self._system()
        try:
            there = {path: self._place(root, path) for path in _finished(folder)}
            results = [path for path in there if path.name == RESULT]
            whole = {path.parent for path in results if _same(system, path, there[path])}
            for path in sorted(there, key=lambda path: path.name == RESULT):
                if not any(cell in whole for cell in path.parents):
                    _put(system, path, there[path])
                    if path.name == RESULT:
                        _remove(system, f"{self._place(root, path.parent)}/{CHECKPOINT}")
        except Exception as error:
            raise self._failed("written", error) from None

    def send_checkpoint(self, cell: Path) -> None:
        """Copy the last checkpoint of a cell that runs, if it has one; remove those before it.

        Nobody may be writing to the cell's checkpoints meanwhile.

        Raises:
            UserError: the store cannot be written.
        """
        folder = cell / CHECKPOINT
        if not (last := checkpoints.latest(folder)):
            return
        beside = [path for path in folder.iterdir() if not path.name.startswith((".", "cycle-"))]
        files = [each for path in (*beside, last) for each in (path, *path.rglob("*"))]
        commit = last / manifest.NAME
        system, root = self._system()
        try:
            copies = self._place(root, folder)
            for path in sorted(filter(Path.is_file, files), key=lambda path: path == commit):
                _put(system, path, f"{copies}/{last.name}/{path.relative_to(folder).as_posix()}")
            for other in _names(system, copies):
                if other < last.name:
                    _remove(system, f"{copies}/{other}")
        except Exception as error:
            raise self._failed("written", error) from None

    def _place(self, root: str, path: Path) -> str:
        return f"{root}/{path.relative_to(self.local).as_posix()}"

    def _system(self) -> tuple[Any, str]:
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        try:
            system, root = FileSystem.from_uri(self.uri)
        except (ArrowException, ValueError, OSError) as error:
            raise UserError(f"--output {self.uri}: {error}") from None
        if system.type_name == "local":
            raise UserError(f"--output {self.uri}: is on this machine; give the folder itself")
        return system, str(root).rstrip("/")

    def _failed(self, what: str, error: Exception) -> UserError:
        return UserError(
            f"--output {self.uri}: cannot be {what} ({type(error).__name__}: {error}). What is "
            f"finished is in {self.local}; check the address and your credentials, and use --resume"
        )


class Running:
    """Copies checkpoints of the cells that run.

    They take at most `SHARE` of the time, and a cell's turn comes after `EVERY` seconds at the
    earliest.

    Args:
        mirror: where to.
        tell: shows people a line.
    """

    def __init__(self, mirror: Mirror, tell: Callable[[str], None]) -> None:
        self._mirror, self._tell = mirror, tell
        self._next: dict[Path, float] = {}

    def cycle(self, cell: Path) -> None:
        """Copy a cell's checkpoint after a cycle, where it is its turn."""
        began = time.monotonic()
        if began >= self._next.setdefault(cell, began + EVERY):
            self._copy(cell)
            took = time.monotonic() - began
            self._next[cell] = time.monotonic() + max(EVERY, took * len(self._next) / SHARE)

    def end(self, cell: Path) -> None:
        """Copy what a cell that has ended left, finished or failed."""
        self._next.pop(cell, None)
        self.send(cell)

    def send(self, folder: Path) -> None:
        """Copy what a folder has that is finished."""
        try:
            self._mirror.send(folder)
        except UserError as error:  # it is sent again at the end
            self._tell(f"warning: {error}")

    def stop(self) -> None:
        """Copy the checkpoints of all cells that have begun and not ended."""
        for cell in self._next:
            self._copy(cell)

    def _copy(self, cell: Path) -> None:
        try:
            self._mirror.send_checkpoint(cell)
        except UserError as error:  # the next one is sent whole
            self._tell(f"warning: {error}")


def _names(system: Any, place: str) -> list[str]:
    """Return the names of what is directly below a place in the store."""
    from pyarrow.fs import FileSelector

    found = system.get_file_info(FileSelector(place, allow_not_found=True))
    return [PurePosixPath(each.path).name for each in found]


def _remove(system: Any, place: str) -> None:
    """Remove all that is below a place in the store."""
    if _names(system, place):
        system.delete_dir(place)


def _same(system: Any, result: Path, place: str) -> bool:
    """Say whether a finished cell is there; take away what says so where it is another."""
    sums = f"{place.rpartition('/')[0]}/{manifest.NAME}"
    there, listed = (found.is_file for found in system.get_file_info([place, sums]))
    if not there:
        return False
    here = result.with_name(manifest.NAME)
    if listed and here.exists():
        with system.open_input_stream(sums) as source:
            if source.read() == here.read_bytes():
                return True
    system.delete_file(place)
    return False


def _put(system: Any, path: Path, place: str) -> None:
    """Copy a file into the store."""
    with path.open("rb") as source, system.open_output_stream(place) as copy:
        shutil.copyfileobj(source, copy)


def _finished(folder: Path) -> Iterator[Path]:
    """Yield the files that will not change: no checkpoint, nothing hidden."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == CHECKPOINT for part in parts)
        if path.is_file() and not hidden:
            yield path
