"""The folders of grids: which one a run writes to, and which cells are finished in any of them."""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells import intact, lost
from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.intact import result_of
from mrkd_ray.common import environment
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import (
    TEMPORARY,
    link_or_copy,
    remove_unfinished,
    sync,
    write_json,
    write_text,
)
from mrkd_ray.common.reading import Damaged, read_json
from mrkd_ray.config.parsing import to_yaml
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.config.yaml_files import read_yaml
from mrkd_ray.datasets.checking.problems import Skipped
from mrkd_ray.training import checkpoints

ENVIRONMENT, REQUEST, DAMAGED = "environment.json", "grid.yaml", "damaged"
CELLS, LOCK = "cells.json", ".lock"
SAME_VERSIONS = ("mrkd-ray", "torch")
"""Packages of which a cell must have been made with this version to be taken over."""


def choose(output: Path, name: str, grid: Sequence[Cell], resume: bool) -> Path:
    """Return the folder to write to: a new one, or the newest that holds a cell of this grid.

    A new one does not exist yet.

    Args:
        output: the folder of all results.
        name: the grid's; a name that is taken gets a number.
        grid: its cells.
        resume: go on in a folder of this name.
    """
    taken = _of_this_name(output, name)
    for path in newest_first(output, name) if resume else ():
        if holds(path, grid):
            return path
    number = max(taken, default=0) + 1
    return output.absolute() / (name if number == 1 else f"{name}-{number}")


def newest_first(output: Path, name: str) -> list[Path]:
    """Return the folders of a grid's name: of NAME, NAME-2, NAME-3 the last first."""
    return [path for _, path in sorted(_of_this_name(output, name).items(), reverse=True)]


def holds(folder: Path, grid: Sequence[Cell]) -> bool:
    """Say whether a grid's folder has one of these cells, finished or begun."""
    return any((folder / "cells" / key).exists() for cell in grid for key in _keys(cell))


def cycles_of(folder: Path) -> int | None:
    """Return the cycles that a grid's folder was asked for; None where it does not say it."""
    try:
        cycles = read_yaml(folder / REQUEST).get("cycles")
    except UserError:  # gone or damaged: it is written again
        return None
    return cycles if isinstance(cycles, int) and cycles > 0 else None


def begun(output: Path, name: str) -> bool:
    """Say whether a folder of this name has a cell that was begun and not finished."""
    folders = _of_this_name(output, name).values()
    cells = (cell for folder in folders for cell in (folder / "cells").glob("*"))
    return any(cell.is_dir() and result_of(cell) is None for cell in cells)


def is_locked(folder: Path) -> bool:
    """Return whether a run may be writing to a results folder."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except OSError:  # held (a Timeout is one), or on a disk that cannot be written
        return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a results folder: two runs in one would destroy each other's checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            remove_unfinished(folder, ("", *(f"cells/*/{place}" for place in cell_files.PLACES)))
            yield
    except Timeout:
        raise UserError(f"{folder}: another run is writing there; wait for it or end it") from None


def write_request(
    folder: Path, config: GridConfig, skipped: Sequence[Skipped], cells: Iterable[Cell]
) -> None:
    """Write what is asked of this run, and what it and those before it in the folder run with."""
    made_with = environment.describe()
    if (folder / ENVIRONMENT).exists():
        made_with = environment.joined(_read(folder) or environment.UNKNOWN, made_with)
    write_text(folder / REQUEST, to_yaml(config))
    write_json(folder / ENVIRONMENT, made_with)
    write_json(folder / "skipped.json", [clip._asdict() for clip in skipped])
    list_cells(folder, cells)


def list_cells(folder: Path, cells: Iterable[Cell]) -> None:
    """Write which cells a run has, for `mrkd status`."""
    listed = {cell.key: {"title": cell.title, "cycles": cell.training.cycles} for cell in cells}
    write_json(folder / CELLS, listed)


def finished(
    grid: Sequence[Cell],
    folder: Path,
    name: str,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Path]:
    """Return the folder of each cell, by key, that needs no training.

    It is finished in `folder`, or was made in another grid's under the same output folder. The key
    holds all that changes its result but the code, so the versions of `SAME_VERSIONS` must be the
    same. Folders of this grid's name do not count: to run it again is to train again. All its files
    are what was written.

    Args:
        tell: called with a line for each that is damaged.
    """
    places = [folder, *_others(folder.parent, name)]
    found = {}
    for cell in grid:
        for path in (place / "cells" / key for place in places for key in _keys(cell)):
            made_there = path.parents[1] == folder or not (path / ENVIRONMENT).exists()
            if made_there and path.is_dir():
                result = result_of(path)
                try:
                    intact.check(path)
                    intact.check_is(cell, path, result or {})
                except Damaged as error:
                    tell(f"{error}; this cell is not taken from there")
                    continue
                if result is not None and lost.enough(cell, result.get("lost", ())):
                    found[cell.key] = path
                    break
    return found


def set_aside(grid: Sequence[Cell], folder: Path) -> Iterator[str]:
    """Have cells of a grid's folder begin anew, or go on from an older checkpoint, where damaged.

    A finished cell is moved to `damaged/`: somebody may have changed it on purpose. So is one that
    lost more branches than its quorum, of this run, allows.

    Yields:
        A line for each, which names the file.
    """
    for cell in grid:
        path = folder / "cells" / cell.key
        if not path.is_dir():
            continue
        result, why = result_of(path), None
        try:
            intact.check(path)
            intact.check_is(cell, path, result or {})
            gone = lost.read(path) if result is None else result.get("lost", {})
            if not lost.enough(cell, gone):
                why = f"{path}: went on without {', '.join(gone)}; this run asks for more branches"
        except Damaged as error:
            why = str(error)
        if why:
            aside = folder / DAMAGED / path.name
            number = next(i for i in itertools.count(1) if not _numbered(aside, i).exists())
            aside = _numbered(aside, number)
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)
            yield f"{why}. The cell is in {aside} now, and is trained anew"
            continue
        if result is None:
            for found in checkpoints.discard_damaged(path / "checkpoint"):
                cycle = cell_files.cycles_done(path)
                there = f"from its checkpoint after cycle {cycle}" if cycle else "anew"
                yield f"{found}. The cell goes on {there}"


def damaged(grid: Sequence[Cell], folder: Path) -> list[tuple[str, str]]:
    """Return the key of each finished cell that is not what was written, and what is wrong."""
    found = []
    for cell in grid:
        try:
            intact.check(folder / "cells" / cell.key)
        except Damaged as error:
            found.append((cell.key, str(error)))
    return found


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.name}-{number}")


def rename_former(grid: Sequence[Cell], folder: Path) -> int:
    """Give cells of a grid's folder that earlier versions made the names that they have today.

    Returns:
        How many there were.
    """
    found = 0
    for cell in grid:
        before, now = (folder / "cells" / key for key in (cell.former_key, cell.key))
        if before.is_dir() and not now.exists():
            before.rename(now)
            found += 1
    return found


def _keys(cell: Cell) -> list[str]:
    """Return the names that a cell's folder may have: today's, and that of earlier versions."""
    return list(dict.fromkeys((cell.key, cell.former_key)))


def take_over(found: Mapping[str, Path], folder: Path) -> Counter[Path]:
    """Put the cells that are finished in other folders into this one, each whole or not at all.

    Files are linked where the file system can, and copied where not. `environment.json` in a cell
    says what it was made with.

    Returns:
        How many came from which grid's folder.
    """
    sources: Counter[Path] = Counter()
    for key, path in found.items():
        if (folder / "cells" / key) == path:
            continue
        temporary = folder / f".{key}{TEMPORARY}"
        shutil.rmtree(temporary, ignore_errors=True)
        ignored = shutil.ignore_patterns("checkpoint", ".*")
        shutil.copytree(path, temporary, copy_function=link_or_copy, ignore=ignored)
        write_json(temporary / ENVIRONMENT, _read(path.parents[1]))
        _replace(temporary, folder / "cells" / key)
        sources[path.parents[1]] += 1
    return sources


def same_versions(folder: Path) -> bool:
    """Say whether all in a grid's folder was made with the `SAME_VERSIONS` that are here."""
    packages = (_read(folder) or {}).get("packages", {})
    made_with = {name: packages.get(name) for name in SAME_VERSIONS}
    return made_with == environment.versions(SAME_VERSIONS)


def commit_of(folder: Path) -> str:
    """Say which commit a grid's folder was made at, where it is another than this run's."""
    commit = (_read(folder) or {}).get("commit")
    return "" if commit == environment.describe()["commit"] else f" (made at commit {commit})"


def _of_this_name(output: Path, name: str) -> dict[int, Path]:
    """The folders NAME, NAME-2, NAME-3... by number."""
    pattern = re.compile(re.escape(name) + r"(?:-(\d{1,3}))?")
    matches = ((pattern.fullmatch(path.name), path) for path in _folders(output))
    return {int(match[1] or 1): path for match, path in matches if match}


def _others(output: Path, name: str) -> list[Path]:
    """The folders of other names that were written with the same versions."""
    own = set(_of_this_name(output, name).values())
    return [path for path in sorted(set(_folders(output)) - own) if same_versions(path)]


def _folders(output: Path) -> list[Path]:
    root = output.absolute()
    return [path for path in root.iterdir() if path.is_dir()] if root.exists() else []


def _read(folder: Path) -> dict[str, Any] | None:
    """Return what a grid's folder was made with; None where it does not say it, or not any more."""
    try:
        found = read_json(folder / ENVIRONMENT)
    except Damaged:
        return None
    return found if isinstance(found.get("packages"), dict) else None


def _replace(temporary: Path, target: Path) -> None:
    """Move a whole folder to where an unfinished one may lie."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    temporary.replace(target)
    sync(target.parent)
