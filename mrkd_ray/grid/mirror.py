"""Results in an object store: `--output s3://BUCKET/PREFIX`, or what else PyArrow reaches.

A run works in a local folder. What is finished is copied: a cell when it has ended, the tables at
the end. An object store has no rename. So `result.json`, which says that a cell is finished, is
copied last, and fetched last: whoever sees it finds all other files of the cell.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mrkd_ray.cells.intact import RESULT
from mrkd_ray.common import manifest
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import replacing


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
        for place in sorted(places, key=lambda place: place.name == RESULT):
            of_cell = len(place.parts) > 3 and place.parts[1] == "cells"
            whole = not of_cell or PurePosixPath(*place.parts[:3]) in finished
            target = self.local / place
            if whole and not target.exists():
                try:
                    stored = system.open_input_stream(f"{root}/{place}")
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
        hidden = any(part.startswith(".") or part == "checkpoint" for part in parts)
        if path.is_file() and not hidden:
            yield path
