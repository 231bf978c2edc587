"""The tables of named data sets, read strictly; all that is wrong comes in one error."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from mrkd_ray.common.reading import opened_text
from mrkd_ray.common.text import few
from mrkd_ray.datasets.audio_files import audio_files
from mrkd_ray.datasets.base import Clip
from mrkd_ray.datasets.layouts.faults import Faults
from mrkd_ray.datasets.layouts.table import records

Row = dict[str, str]  # column -> value without blanks around it


class Release:
    """A named data set in its official layout: its tables, and what is wrong with them."""

    def __init__(self, title: str, root: Path, mend: str) -> None:
        """Begin to read.

        Args:
            title: what people call the data set.
            root: its folder.
            mend: where to get missing files from.
        """
        self.root = root
        self.title = title
        self.faults = Faults(f"{root}: not usable as {title}.")
        self._mend = mend
        self._all_read = True

    def rows(
        self, file: str, columns: Sequence[str], *, delimiter: str = ",", header: bool = True
    ) -> list[Row]:
        """Return the rows of a table, none where it cannot be read; what is wrong is noted.

        Args:
            file: path relative to the root.
            columns: the columns needed; without a header, all columns.
        """
        try:
            with opened_text(self.root / file) as stream:
                lines = [values for _, values in records(stream, delimiter)]
        except FileNotFoundError:
            return self._unread("tables that are missing", file)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            return self._unread(f"tables that cannot be read: {error}", file)
        names = [name.strip() for name in lines.pop(0)] if header and lines else list(columns)
        if absent := [column for column in columns if column not in names]:
            return self._unread(f"tables without the column {', '.join(absent)}", file)
        if not lines:
            return self._unread("tables without rows", file)
        rows = []
        for line in lines:
            row = {name: value.strip() for name, value in zip(names, line, strict=False)}
            if len(line) == len(names) and all(row[column] for column in columns):
                rows.append(row)
            else:
                where = f"{delimiter.join(line)!r} of {file}"
                self.faults.add("rows that are not complete", "Mend or delete them.", where)
        return rows

    def _unread(self, what: str, file: str) -> list[Row]:
        self._all_read = False
        self.faults.add(what, self._mend, file)
        return []

    def torn(self, rows: Sequence[Row], source: str) -> set[str]:
        """Return the sources whose rows stand in several folds, and so cannot be groups."""
        folds_of: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            folds_of[row[source]].add(row["fold"])
        return {name for name, folds in folds_of.items() if len(folds) > 1}

    def note_on(self, torn: Collection[str]) -> tuple[str, ...]:
        """Return a note on the sources that the official folds divide, if there are any."""
        if not torn:
            return ()
        return (
            f"The official folds of {self.title} divide {len(torn)} source recordings "
            f"({few(sorted(torn))}): kept as they are, so that figures compare with published "
            "ones.",
        )

    def whole(self, text: str, column: str, where: str) -> int:
        """Return a number written in a table, at least 0; 0 and a fault where it is none."""
        if text.isdecimal():
            return int(text)
        self.faults.add(f"{column} is no whole number", "Mend the table.", f"{text!r} of {where}")
        return 0

    def check(
        self, clips: Sequence[Clip], folders: Sequence[str], unused: Collection[Path] = ()
    ) -> tuple[Clip, ...]:
        """Compare tables and audio files; return the clips if nothing was wrong.

        Audio files that are missing, and labels of one side only, are left to the check of the
        data set (`--skip-bad`) unless there is more to report, or none of the files is there.

        Args:
            clips: as the tables list them.
            folders: where the audio files lie, relative to the root.
            unused: audio files that the tables list, but not as clips.

        Raises:
            UserError: lists all that is wrong.
        """
        faults = self.faults
        for clip_id, rows in Counter(clip.clip_id for clip in clips).items():
            if rows > 1:
                faults.add("clips with more than one row", "Keep one of them.", clip_id)
        found = {path for folder in folders for path in audio_files(self.root / folder)}
        if self._all_read:  # else every recording of the table that is missing would be listed
            for path in sorted(found - {clip.path for clip in clips} - set(unused)):
                mend = "Add their rows or move them away."
                where = path.relative_to(self.root).as_posix()
                faults.add("recordings that no table lists", mend, where)
        absent = [clip for clip in clips if clip.path not in found]
        if faults or len(absent) == len(clips):
            for clip in absent:
                where = clip.path.relative_to(self.root).as_posix()
                faults.add("audio files that are missing", self._mend, where)
            sides = [{clip.label for clip in clips if clip.split == s} for s in ("train", "test")]
            for label in sorted(sides[0] ^ sides[1]) if all(sides) else ():
                side = "train" if label in sides[0] else "test"
                faults.add("labels on one side only", "Mend the tables.", f"{label} (only {side})")
        faults.raise_any()
        return tuple(clips)
