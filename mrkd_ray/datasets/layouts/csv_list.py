"""A csv file that lists recordings and their labels."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import few
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.layouts.faults import Faults
from mrkd_ray.datasets.layouts.registry import SPLIT_WORDS, layout, sides

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
    "fold or split, group, verified; or labels, several with commas between them; audio beside it "
    "or in audio/",
    specificity=10,
    matches=_matches,
)
def read_csv(path: Path) -> Dataset:
    """Read a data set from a csv file (separated by comma, semicolon or tab; UTF-8).

    Unknown columns are ignored, and so are columns that are empty from top to bottom. A column
    `labels` in place of `label` says that the data set is multi-label: `Bark,Dog` in quotes, as
    FSDKaggle2019 and FSD50K have it.

    Raises:
        UserError: lists all that is wrong in the file; also where none of its audio files exists.
    """
    file = path / "meta.csv" if path.is_dir() else path
    root = file.parent
    rows = _rows(file)
    faults = _faults(file)
    clips = [_clip(row, root, faults) for row in rows]
    _check_columns(rows, faults)
    if not any(clip.path.is_file() for clip in clips):  # a few are found by `check`, skippable
        mend = f"They are looked up in {root} and its audio/; mend the names or add the files."
        for clip in clips:
            faults.add("audio files that do not exist, all", mend, clip.clip_id)
    faults.raise_any()
    notes: list[str] = []
    if any(row.get("split") for row in rows):
        side_of = sides([row["split"] for row in rows])
        if left_out := side_of.count(None):
            notes.append(f"{left_out} validation clips are left out: there are test clips too.")
        clips = [
            replace(clip, split=side)
            for clip, side in zip(clips, side_of, strict=True)
            if side is not None
        ]
    name = root.name if file.name == "meta.csv" else file.stem
    return Dataset(
        name=name,
        root=root,
        clips=tuple(clips),
        notes=tuple(notes),
        multi_label="labels" in rows[0],
    )


def _rows(file: Path) -> list[Row]:
    """Return the rows with the columns we know.

    Raises:
        UserError: not UTF-8, no rows, a needed column is absent, or a row has too many values.
    """
    faults = _faults(file)
    rows: list[Row] = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            delimiter = max(",;\t", key=header.count)
            names = [
                name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])
            ]
            columns = _columns(file, names)
            reader = csv.reader(stream, delimiter=delimiter)
            for values in reader:
                line = str(reader.line_num + 1)
                if not any(value.strip() for value in values):
                    continue
                if len(values) > len(names):
                    mend = f"The header names {len(names)} columns; put quotes around commas."
                    faults.add("lines with too many values", mend, line)
                values += [""] * (len(names) - len(values))
                rows.append({key: values[i].strip() for key, i in columns.items()} | {"line": line})
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a csv file in UTF-8 ({error}). Save it as such.") from error
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
    return rows


def _columns(file: Path, names: list[str]) -> dict[str, int]:
    """Return where the column of each meaning stands."""
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


def _clip(row: Row, root: Path, faults: Faults) -> Clip:
    """Turn a row into a clip without its split; what is wrong goes to `faults`."""
    filename = row["filename"]
    where = filename or f"line {row['line']}"
    path = root
    if not filename:
        faults.add("rows without a filename", "Fill it in or delete the row.", where)
    else:
        places = (root / filename, root / "audio" / filename)
        path = next((place for place in places if place.is_file()), places[0])
    if "labels" in row:
        labels = tuple(sorted({part.strip() for part in row["labels"].split(",")} - {""}))
    else:
        labels = (row["label"],) if row["label"] else ()
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
    return Clip(
        clip_id=filename,
        path=path,
        labels=labels,
        fold=fold,
        group=row.get("group") or None,
        verified=verified not in _FALSE,
    )


def _check_columns(rows: list[Row], faults: Faults) -> None:
    """Report what only shows when all rows are seen together."""
    seen: set[str] = set()
    for row in rows:
        if (key := os.path.normpath(row["filename"])) in seen and row["filename"]:
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
