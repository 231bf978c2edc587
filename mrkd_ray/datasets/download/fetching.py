"""`mrkd download`: a named data set from its official record into a folder."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import filelock
import pooch
import requests
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import write_json
from mrkd_ray.common.reading import Damaged, read_json
from mrkd_ray.datasets.download.archives import Archive, unpack
from mrkd_ray.datasets.download.sources import SOURCES, Source, archives
from mrkd_ray.datasets.download.transfer import Stopped, Transfer, new_session
from mrkd_ray.datasets.opening import open_dataset

PARALLEL = 4  # archives at once
_WORK = ".mrkd-download"  # in the target folder: archives so far, and what was unpacked


def download(name: str, to: Path, console: Console) -> None:
    """Fetch, verify and unpack what is not there yet; no request is made where all is.

    Each archive is removed once it is unpacked: the disk needs to hold the data set and
    `PARALLEL` archives.

    Args:
        name: in `SOURCES`.
        to: the folder, made where it is not there.
        console: shows progress, where it is a terminal, and what came out.

    Raises:
        UserError: too little disk; or lists every archive that failed. What is there is kept.
    """
    source = SOURCES[name]
    to = to.expanduser().absolute()
    console.print(f"Cite: {source.citation}\nLicence: {source.licence}", markup=False)
    pooch.get_logger().setLevel("ERROR")  # it would print the addresses
    try:
        (to / _WORK).mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(to / _WORK / "lock", blocking=False):
            fetched = _Download(name, source, to).run(console)
    except filelock.Timeout:
        raise UserError(f"{to}: another mrkd download is at work there. Wait for it.") from None
    except OSError as error:
        where = error.filename or to
        raise UserError(
            f"{where}: {error.strerror or error}. Mend that and call again: what is here is kept."
        ) from error
    if not fetched:
        console.print(f"{name} is in {to} already: nothing to do", markup=False)
        return
    dataset = open_dataset(to, to / _WORK)
    clips, classes = len(dataset.clips), len(dataset.classes)
    console.print(f"{name}: {clips} clips of {classes} classes in {to}", markup=False)


class _Download:
    """What one call knows of its target: archives, and the files that came out of each."""

    def __init__(self, name: str, source: Source, to: Path) -> None:
        self._source = source
        self._to = to
        self._work = to / _WORK
        self._file = self._work / f"{name}.json"
        self._stop = threading.Event()
        self._lock = threading.Lock()
        if others := [path.stem for path in self._work.glob("*.json") if path != self._file]:
            raise UserError(f"{to}: {others[0]} is there already. Give {name} a folder of its own.")
        try:
            known = read_json(self._file)
        except Damaged:  # or not there: everything is looked at
            known = {}
        self._state = {name: each for name, each in known.items() if isinstance(each, dict)}

    _state: dict[str, dict[str, Any]]
    """By archive: its checksum, and its files with their sizes once it is unpacked."""

    def run(self, console: Console) -> bool:
        """Fetch what is missing; return whether anything was."""
        if self._state and all(map(self._unpacked, self._state)):
            return False
        with new_session() as session:
            listed = archives(self._source, session)
            self._state = {
                archive.name: known
                if (known := self._state.get(archive.name, {})).get("checksum") == archive.checksum
                else {"checksum": archive.checksum}
                for archive in listed
            }
            write_json(self._file, self._state, indent=None)
            todo = [archive for archive in listed if not self._unpacked(archive.name)]
            self._check_disk(todo)
            self._fetch_all(todo, session, console)
        for leftover in self._work.iterdir():
            if leftover.name != "lock" and leftover.suffix != ".json":
                leftover.unlink()
        return True

    def _unpacked(self, name: str) -> bool:
        """Return whether all files of an archive are there, in their sizes."""
        files = self._state[name].get("files")
        return isinstance(files, dict) and all(
            _size(self._to / path) == size for path, size in files.items()
        )

    def _check_disk(self, todo: Sequence[Archive]) -> None:
        done = sum(
            sum(self._state[name]["files"].values()) for name in self._state if self._unpacked(name)
        )
        at_once = sorted((archive.size for archive in todo), reverse=True)[:PARALLEL]
        here = sum(
            _size(self._part(archive)) or _size(self._work / archive.name) or 0 for archive in todo
        )
        needed = max(0, self._source.unpacked - done) + max(0, sum(at_once) - here)
        free = shutil.disk_usage(self._to).free
        if free < needed:
            raise UserError(
                f"{self._to}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free. "
                "Free some, or choose another folder with --to."
            )

    def _part(self, archive: Archive) -> Path:
        return self._work / f"{archive.name}.part"

    def _fetch_all(
        self, todo: Sequence[Archive], session: requests.Session, console: Console
    ) -> None:
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        with progress, ThreadPoolExecutor(PARALLEL) as pool:
            tasks = [pool.submit(self._fetch, archive, session, progress) for archive in todo]
            try:
                wait(tasks)
            except BaseException:  # Ctrl-C: threads look at the event, and pending ones never begin
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        failed = [error for task in tasks if (error := task.exception()) is not None]
        if other := next((error for error in failed if not isinstance(error, UserError)), None):
            raise other
        if failed:
            raise UserError("\n".join(map(str, failed)))

    def _fetch(self, archive: Archive, session: requests.Session, progress: Progress) -> None:
        """Have one archive fetched, verified, unpacked and removed."""
        if self._stop.is_set():
            raise Stopped
        task = progress.add_task(archive.name, total=archive.size)

        def show(there: int) -> None:
            progress.update(task, completed=there)

        transfer = Transfer(session, archive, self._part(archive), show, self._stop)
        try:
            file = pooch.retrieve(
                archive.url, archive.checksum, archive.name, self._work, downloader=transfer
            )
        except UserError:
            raise
        except ValueError as error:  # pooch's word for a wrong checksum; the file is gone
            raise UserError(
                f"{archive.name}: {archive.url} sent other bytes than published ({error}). Call "
                "again to fetch it anew."
            ) from error
        progress.update(task, description=f"unpacking {archive.name}")
        limit, strip = self._source.unpacked, self._source.strip
        files = unpack(Path(file), self._to, limit=limit, strip=strip)
        with self._lock:
            self._state[archive.name]["files"] = files
            write_json(self._file, self._state, indent=None)
        Path(file).unlink()
        progress.remove_task(task)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
