"""A csv file that lists recordings and their labels."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import replace
from pathlib import Path

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import opened_text
from mrkd_ray.common.text import few, from_cell, is_printable
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.layouts import label_cells, marks
from mrkd_ray.datasets.layouts.faults import Faults
from mrkd_ray.datasets.layouts.places import Places
from mrkd_ray.datasets.layouts.registry import SPLIT_WORDS, layout, sides
from mrkd_ray.datasets.layouts.table import delimiter_of, records

COLUMNS = {
    "filename": ("filename", "file", "path", "fname"),
    "label": ("label", "class", "category"),
    "labels": ("labels",),
    "fold": ("fold",),
    "split": ("split",),
    "group": ("group",),
    "verified": ("verified", "manually_verified"),
}
"""A column's meaning and its accepted names; the first that occurs counts."""

_TRUE, _FALSE = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}

Row = dict[str, str]  # meaning of a column -> value without blanks around it; and "line"


def _faults(file: Path) -> Faults:
    return Faults(f"{file}: not usable as a list of clips.")


def _matches(path: Path) -> bool:
    if path.is_dir():
        return (path / "meta.csv").is_file()
    return path.is_file() and path.suffix.lower() == ".csv"


@layout(
    "csv",
    description="a folder with meta.csv, or any .csv file: columns filename and label, optionally "
    "fold or split, group, verified, and start and end of an event in seconds; or labels, several "
    "with commas between them; audio beside it or in audio/",
    specificity=10,
    matches=_matches,
)
def read_csv(path: Path) -> Dataset:
    """Read a data set from a csv file (separated by comma, semicolon or tab; UTF-8).

    Columns that are empty from top to bottom count as absent. Others that are not used are named in
    a note. With columns `start` and `end`, in seconds, a row is an event of a longer recording, and
    the recording is its group. A column `labels` in place of `label` says
    that the data set is multi-label: `Bark,Dog` in quotes, as FSDKaggle2019 and FSD50K have it,
    with `;` or `|` in place of the commas, or a list, `["Bark", "Dog"]`, whose labels may hold
    commas.

    Raises:
        UserError: lists all that is wrong in the file; also where none of its audio files exists.
    """
    file = path / "meta.csv" if path.is_dir() else path
    root = file.parent
    rows, notes = _rows(file)
    faults = _faults(file)
    places = Places(file)
    recordings = marks.Recordings(faults)
    clips = [
        _clip(row, labels, places, recordings, faults)
        for row, labels in zip(rows, label_cells.labels_of(rows, faults, notes), strict=True)
    ]
    _check_columns(rows, clips, faults)
    if not any(os.path.isfile(clip.path) for clip in clips):  # a few are left to `check`
        mend = f"They are looked up in {root} and its audio/; mend the names or add the files."
        mend += places.hint(row["filename"] for row in rows)
        for clip in clips:
            faults.add("audio files that do not exist, all", mend, clip.clip_id)
    faults.raise_any()
    notes += places.notes(clip.path for clip in clips)
    if any(row.get("split") for row in rows):
        side_of = sides([row["split"] for row in rows])
        if left_out := side_of.count(None):
            notes.append(f"{left_out} validation clips are left out: there are test clips too.")
        clips = [
            replace(clip, split=side)
            for clip, side in zip(clips, side_of, strict=True)
            if side is not None
        ]
    multi_label = "labels" in rows[0]
    if "start" in rows[0]:
        clips, multi_label = marks.as_events(clips, multi_label, notes)
    return Dataset(
        name=root.name if file.name == "meta.csv" else file.stem,
        root=root,
        clips=tuple(clips),
        notes=tuple(notes),
        multi_label=multi_label,
        annotated=recordings.all,
    )


def _rows(file: Path) -> tuple[list[Row], list[str]]:
    """Return the rows with the columns we know, and notes on the others.

    Raises:
        UserError: not UTF-8, no rows, a needed column is absent, one that would be misread is
            there, a row has too many values, or a quote is not closed.
    """
    faults = _faults(file)
    rows: list[Row] = []
    cells: list[list[str]] = []  # of each row, all of them
    filled: set[int] = set()  # columns with a value
    try:
        with opened_text(file) as stream:
            header, begins = stream.readline(), 2
            delimiter = delimiter_of(header)
            if said := re.fullmatch(r"sep=([,;\t|])\s*", header, re.IGNORECASE):  # for Excel
                header, begins, delimiter = stream.readline(), 3, said[1]
            _, first = next(records([header], delimiter), (1, []))
            names = [name.strip().lower() for name in first]
            columns = _columns(file, names)
            for line, values in records(stream, delimiter, width=len(names), first_line=begins):
                if len(values) > len(names):
                    mend = f"The header names {len(names)} columns; put quotes around commas."
                    faults.add("lines with too many values", mend, str(line))
                values += [""] * (len(names) - len(values))
                filled |= {i for i, value in enumerate(values) if value.strip()}
                row = {key: from_cell(values[i].strip()) for key, i in columns.items()}
                for key, value in row.items():
                    if not is_printable(value):
                        mend = "Delete line breaks and other control characters; mend the quotes."
                        faults.add(f"control characters in {key}", mend, f"line {line}: {value!r}")
                rows.append(row | {"line": str(line)})
                cells.append(values)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a csv file in UTF-8 ({error}). Save it as such.") from error
    except csv.Error as error:
        raise UserError(f"{file}: not usable as a list of clips: {error}.") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from error
    if not rows:
        raise UserError(f"{file}: has no rows below its header. Add a row for each recording.")
    faults.raise_any()
    if "label" in columns and "labels" in columns:
        empty = next((x for x in ("labels", "label") if not any(row[x] for row in rows)), None)
        if empty is None:
            raise UserError(
                f"{file}: both a column {names[columns['label']]} and a column labels. Delete one "
                "of the two: labels means several labels a clip, with commas between them."
            )
        for row in rows:
            del row[empty]
    given = [names[i] for i in sorted(filled)]
    spans = _spans(file, given)
    for meaning, name in zip(("start", "end"), spans, strict=False):
        columns[meaning] = names.index(name)
        for row, values in zip(rows, cells, strict=True):
            row[meaning] = values[columns[meaning]].strip()
    unused = [names[i] for i in sorted(filled - set(columns.values()))]
    named = few(name or "one without a name" for name in unused)
    return rows, [f"columns that are not used ({len(unused)}): {named}."] if unused else []


def _spans(file: Path, names: list[str]) -> list[str]:
    """Return the two columns that say where in a recording an event is, start and end, or none.

    Raises:
        UserError: not exactly one says where it begins, and one where it ends, in seconds.
    """
    found = marks.times(names)
    spans = [*found["start"], *found["end"]]
    if spans and not (len(found["start"]) == len(found["end"]) == 1):
        raise UserError(
            f"{file}: of the columns {few(spans)} it is not clear which say where in a recording "
            "an event begins and ends. Name one of them start and one end, in seconds; if the "
            "files hold nothing else already, delete these columns."
        )
    if not spans and found["other"]:
        raise UserError(
            f"{file}: the columns {few(found['other'])} say where in a recording an event is, but "
            "not in seconds. Give columns start and end, in seconds from the file's beginning; if "
            "the files hold nothing else already, delete these columns."
        )
    return spans


def _columns(file: Path, names: list[str]) -> dict[str, int]:
    """Return where the column of each meaning stands."""
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise UserError(
            f"{file}: two columns are called {few(twice)}. Delete or rename one of them."
        )
    columns = {
        meaning: names.index(found)
        for meaning, aliases in COLUMNS.items()
        if (found := next((alias for alias in aliases if alias in names), None)) is not None
    }
    needed = {"filename": COLUMNS["filename"], "label": COLUMNS["label"] + COLUMNS["labels"]}
    absent = [
        f"{meaning} (or {', '.join(aliases[1:])})"
        for meaning, aliases in needed.items()
        if not set(aliases) & set(names)
    ]
    if absent:
        raise UserError(
            f"{file}: no column {' and no column '.join(absent)}; its columns are: "
            f"{few(names) or 'none'}. Name the columns in the first line."
        )
    return columns


def _clip(
    row: Row,
    labels: tuple[str, ...],
    places: Places,
    recordings: marks.Recordings,
    faults: Faults,
) -> Clip:
    """Turn a row into a clip without its split; what is wrong goes to `faults`."""
    filename = row["filename"]
    where = filename or f"line {row['line']}"
    path = places.root
    if not filename:
        faults.add("rows without a filename", "Fill it in or delete the row.", where)
    else:
        path = places.find(filename)
    if not labels:
        faults.add("clips without a label", "Fill it in or delete the row.", where)
    fold: int | None = None
    if text := row.get("fold"):
        try:
            number = float(text)
            fold = int(number)
            if fold != number or fold < 0:
                raise ValueError(text)
        except (ValueError, OverflowError):
            mend = "Give each clip the number of its fold: 1, 2, ..."
            faults.add("folds that are no whole number from 0 up", mend, f"{text!r} of {where}")
    verified = row.get("verified", "").lower()
    if verified and verified not in _TRUE | _FALSE:
        faults.add("verified is neither 0 nor 1", "Write 0 or 1.", f"{verified!r} of {where}")
    clip = Clip(
        clip_id=filename,
        path=path,
        labels=labels,
        fold=fold,
        group=row.get("group") or None,
        verified=verified not in _FALSE,
    )
    if "start" not in row:
        return clip
    place = f"line {row['line']}"
    stretch = marks.stretch_of(row["start"], row["end"], place, faults)
    return clip if stretch is None else recordings.event(clip, stretch, place)


def _check_columns(rows: list[Row], clips: list[Clip], faults: Faults) -> None:
    """Report what only shows when all rows are seen together."""
    seen: set[str] = set()
    if "start" in rows[0]:
        marks.check_groups(clips, faults)
    for row, clip in zip(rows, clips if "start" not in rows[0] else (), strict=False):
        if (key := os.path.normpath(clip.path)) in seen and row["filename"]:
            faults.add("filenames that occur twice", "Keep one row for each.", row["filename"])
        seen.add(key)
    given = [column for column in ("fold", "split") if any(row.get(column) for row in rows)]
    for column in given:
        for row in rows:
            if not row[column]:
                mend = f"Give all clips a {column} or none."
                faults.add(f"clips without a {column}", mend, row["filename"])
    if len(given) == 2:
        mend = "Delete one of the two: fold means cross-validation, split one train and test part."
        faults.add("both a fold and a split", mend, "columns fold, split")
    for row in rows:
        if (word := row.get("split", "")) and word.lower() not in SPLIT_WORDS:
            mend = f"Known: {', '.join(SPLIT_WORDS)}."
            faults.add("unknown splits", mend, f"{word!r} of {row['filename']}")
