"""What runs leave on the disk besides results: where it lies, how big it is, and its removal.

Only what is made again is among it, and checkpoints of cells that are not finished. Nothing is
looked for or removed behind a link.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock
from rich.console import Console
from rich.filesize import decimal

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.intact import result_of
from mrkd_ray.datasets.opening import EMBEDDED
from mrkd_ray.distributed import sessions
from mrkd_ray.grid.folder import LOCK

Kind = Literal["cache", "checkpoints", "ray"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DAY = 86400.0


@dataclass(frozen=True)
class Leftover:
    """Something that may be removed.

    Attributes:
        kind: which call of `remove` it is for.
        path: of the file or folder.
        size: bytes of all files in it.
        used: when a file in it was last read or written, in seconds since the epoch; where the
            disk keeps no times of reading, when it was written.
        lock: what a process that uses it holds.
        note: what else people should know.
    """

    kind: Kind
    path: Path
    size: int
    used: float
    lock: Path | None = None
    note: str = ""

    @property
    def unused_days(self) -> float:
        """How long nobody has read or written it."""
        return (time.time() - self.used) / DAY


def find(cache: Path, output: Path, temporary: Path | None = None) -> list[Leftover]:
    """Return all that lies in these folders, which need not exist; makes and locks nothing.

    Args:
        cache: the folder of computed representations.
        output: the folder of all results.
        temporary: Ray's folder of sessions; default: as Ray finds it.
    """
    temporary = sessions.ray_folder() if temporary is None else temporary
    return [*_in_cache(cache), *_in_results(output), *_of_ray(temporary)]


def remove(found: Sequence[Leftover], output: Path) -> dict[Path, str]:
    """Remove what no process uses.

    Args:
        found: by `find`.
        output: the folder of all results: while a run writes there, the cache is left alone.

    Returns:
        What is left, and why.
    """
    left: dict[Path, str] = {}
    with ExitStack() as held:
        runs = sorted(_visible(output, "*/.lock"))
        free = {lock for lock in runs if _hold(held, lock)}
        running = next((lock.parent for lock in runs if lock not in free), None)
        for each in found:
            with ExitStack() as own:
                if each.kind == "cache" and running:
                    left[each.path] = f"a run is writing in {running}"
                elif each.kind == "ray" and sessions.in_use(each.path):
                    left[each.path] = "Ray is running there"
                elif each.lock and each.lock not in free and not _hold(own, each.lock):
                    left[each.path] = "a process is writing there"
                else:
                    try:
                        _delete(each.path)
                    except OSError as error:
                        left[each.path] = str(error)
    return left


def show(found: Sequence[Leftover], kinds: Sequence[str], console: Console) -> None:
    """Print what there is of these kinds, the largest first."""
    for kind in kinds:
        own = sorted((each for each in found if each.kind == kind), key=lambda each: -each.size)
        lines = [f"{kind}: {len(own)} found, {decimal(sum(each.size for each in own))}"]
        for each in own:
            note = f" ({each.note})" if each.note else ""
            days = f"unused {each.unused_days:.0f} d"
            lines.append(f"  {decimal(each.size):>8}  {days:<12} {each.path}{note}")
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _in_cache(cache: Path) -> Iterator[Leftover]:
    for meta in _visible(cache, "features/*/*/meta.json"):
        yield _leftover("cache", meta.parent, meta.parents[1] / "lock")
    for file in _visible(cache, "scans/*.json"):
        yield _leftover("cache", file)
    for name in EMBEDDED:
        for meta in _visible(cache, f"{name}-*/meta.csv"):
            yield _leftover("cache", meta.parent)
    for folder in _visible(cache, ".plan-*"):
        found = _leftover("cache", folder, note="of a `mrkd plan` that was interrupted")
        if found.unused_days >= 1:  # it may be running
            yield found


def _in_results(output: Path) -> Iterator[Leftover]:
    for folder in _visible(output, "*/cells/*/checkpoint"):
        cell = folder.parent
        if result_of(cell) is None:
            note = f"{cell_files.cycles_done(cell)} cycles"
            yield _leftover("checkpoints", folder, cell.parents[1] / LOCK, note)


def _of_ray(temporary: Path) -> Iterator[Leftover]:
    for session in sessions.ours(temporary):
        if not session.is_symlink():
            yield _leftover("ray", session)


def _visible(root: Path, pattern: str) -> Iterator[Path]:
    """Yield what matches below a folder, in order, unless a link leads there."""
    real = root.resolve()
    for path in sorted(root.glob(pattern)):
        if path.resolve() == real / path.relative_to(root):
            yield path


def _leftover(kind: Kind, path: Path, lock: Path | None = None, note: str = "") -> Leftover:
    files = [path] if path.is_file() else [Path(f) for f in _files(path)]
    stats = [file.lstat() for file in files]
    used = max((max(stat.st_atime, stat.st_mtime) for stat in stats), default=path.stat().st_mtime)
    return Leftover(kind, path, sum(stat.st_size for stat in stats), used, lock, note)


def _files(folder: Path) -> Iterator[str]:
    for here, _, names in os.walk(folder):
        yield from (os.path.join(here, name) for name in names)


def _hold(stack: ExitStack, lock: Path) -> bool:
    """Hold a lock until the stack ends; return whether nobody else does."""
    try:
        stack.enter_context(FileLock(lock, timeout=0))
    except OSError:  # held by another (a Timeout is one), or not ours to hold
        return False
    return True


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
