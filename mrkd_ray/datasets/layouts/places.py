"""Where the recordings of a list lie."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from mrkd_ray.common.text import few, folded
from mrkd_ray.datasets.audio_files import audio_files, is_audio, listing

FOLDERS = ("", "audio", "FSD50K.dev_audio", "FSD50K.eval_audio")
"""Where they are looked up, below the list's folder; those of FSD50K also beside it.

And in a folder of the list's own name, as of FSDKaggle2019's `train_curated.csv`.
"""

_SEARCHED = 10_000  # recordings that `hint` looks at
_BACKSLASHES = "filenames with backslashes, taken for folders"
_SPELLING = "filenames that differ from the files in case or Unicode form"
_ENDING = "filenames without an ending, taken for those of recordings"


class Places:
    """Finds files by names as lists have them, and says how where a name is not the file's."""

    def __init__(self, file: Path) -> None:
        """Begin to look in the list's folder."""
        self.root = root = file.parent
        beside = (root.parent / name for name in FOLDERS[2:])
        self._folders = [*(root / name for name in FOLDERS), root / file.stem, *beside]
        self._names: dict[tuple[Path, bool], dict[str, list[str]]] = {}
        self._changed: dict[str, list[str]] = defaultdict(list)

    def find(self, filename: str) -> Path:
        """Return where a file lies, or where it would lie, absolute.

        First by its very name; then with backslashes as folders, in another case or Unicode form,
        or with the ending of a recording, where only one file is meant.
        """
        for folder in self._folders:
            if os.path.isfile(folder / filename):  # False too where the name is too long
                return folder / filename
        slashed = filename.replace("\\", "/")
        for folder in self._folders:
            if (path := self._loosely(folder, slashed)) is not None:
                self._note(filename, slashed, path)
                return path
        return self.root / filename

    def notes(self, found: Iterable[Path]) -> Iterator[str]:
        """Yield a sentence on each kind of name that was not the file's, and on files not listed.

        Args:
            found: the files of all rows.
        """
        for what, names in self._changed.items():
            yield f"{what} ({len(names)}): {few(names, 3)}."
        own = set(found)
        folders = sorted({path.parent for path in own})
        near = (path for folder in folders for path in listing(folder))
        unlisted = [path for path in near if is_audio(path) and path not in own]
        if unlisted:
            named = few((self._below(path) for path in unlisted), 3)
            yield f"recordings beside the listed ones that no row lists ({len(unlisted)}): {named}."

    def hint(self, missing: Iterable[str]) -> str:
        """Say what the names of files that are not there have in common, and where one lies."""
        names = list(missing)
        said = ""
        if backslashes := sum("\\" in name for name in names):
            said += f" {backslashes} are Windows paths: write them relative to {self.root}, with /."
        last = [name.replace("\\", "/").rpartition("/")[2] for name in names]
        if bare := sum(not is_audio(Path(name)) and not Path(name).suffix for name in last):
            said += f" {bare} names have no ending such as .wav."
        wanted = {folded(word) for name in last for word in (name, Path(name).stem)}
        for path in islice(audio_files(self.root), _SEARCHED):
            if wanted & {folded(path.name), folded(path.stem)}:
                return f"{said} {path.name} lies in {path.parent}."
        return said

    def _note(self, filename: str, slashed: str, path: Path) -> None:
        if slashed != filename:
            what = _BACKSLASHES
        elif folded(path.name) == folded(Path(slashed).name):
            what = _SPELLING
        else:
            what = _ENDING
        self._changed[what].append(f"{filename} = {self._below(path)}")

    def _below(self, path: Path) -> str:
        return Path(os.path.relpath(path, self.root)).as_posix()

    def _loosely(self, folder: Path, name: str) -> Path | None:
        parts = Path(name).parts
        for part in parts[:-1]:
            found = [part] if os.path.isdir(folder / part) else self._alike(folder, part)
            if len(found) != 1:
                return None
            folder /= found[0]
        if not parts or not folder.is_dir():
            return None
        last = parts[-1]
        alike = [last] if os.path.isfile(folder / last) else self._alike(folder, last)
        if not alike and not is_audio(Path(last)):
            alike = [n for n in self._alike(folder, last, stem=True) if is_audio(folder / n)]
        only = folder / alike[0] if len(alike) == 1 else None
        return only if only is not None and only.is_file() else None

    def _alike(self, folder: Path, name: str, *, stem: bool = False) -> list[str]:
        """Return the names in a folder that are equal but for case, Unicode form (and ending)."""
        if (folder, stem) not in self._names:
            names = self._names[folder, stem] = defaultdict(list)
            for path in listing(folder):
                names[folded(path.stem if stem else path.name)].append(path.name)
        return self._names[folder, stem].get(folded(name), [])
