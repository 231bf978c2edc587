"""Recordings with marked events: selection tables of Raven, label tracks of Audacity."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import opened_text
from mrkd_ray.common.text import few, folded, from_cell, is_printable
from mrkd_ray.datasets.audio_files import audio_files, is_audio, unread, visible_files
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.layouts import label_cells, marks
from mrkd_ray.datasets.layouts.faults import Faults
from mrkd_ray.datasets.layouts.places import Places
from mrkd_ray.datasets.layouts.registry import layout

Kind = Literal["raven", "audacity"]

ENDINGS = {".txt", ".tsv"}
BEGIN, END = "begin time (s)", "end time (s)"
LABELS = ("label", "annotation", "species", "class", "common name", "species code", "call type")
"""Names of a selection table's column of labels, in lower case; the first that occurs counts."""
USED = {BEGIN, END, "begin file", "begin path", "file offset (s)", "selection", "view"}
_TRACK = re.compile(r"\s*-?[0-9.,]+(?:e-?[0-9]+)?\t\s*-?[0-9.,]+(?:e-?[0-9]+)?(?:\t.*)?")
_SPECTRAL = "\\"  # begins the line of an event's frequencies
_NO_LABEL = re.compile(r"[?\s.-]*")
_LONGEST = 1 << 14  # characters of a first line


class _Mark(NamedTuple):
    """A row: cells of times and of the label, and what to call it in errors."""

    recording: Path
    name: str  # of the recording
    start: str
    end: str
    label: str
    where: str


def kind_of(file: Path) -> Kind | None:
    """Return what kind of table a text file is, by its first line; None: it is none."""
    if file.suffix.lower() not in ENDINGS:
        return None
    try:
        with opened_text(file) as text:
            first = text.readline(_LONGEST).rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        return None
    names = {name.strip().lower() for name in first.split("\t")}
    if {BEGIN, END} <= names:
        return "raven"
    return "audacity" if _TRACK.fullmatch(first) else None


def _matches(path: Path) -> bool:
    if path.is_file():
        return kind_of(path) is not None
    return any(map(kind_of, visible_files(path)))


@layout(
    "annotations",
    description="recordings with Raven's selection tables or Audacity's label tracks (.txt) beside "
    "them, of the same name or with a column Begin File; or one such table",
    specificity=5,
    matches=_matches,
)
def read_annotations(path: Path) -> Dataset:
    """Read the events that tables mark; clips are cut where they are, and nothing is copied.

    A selection table is of the recording that its column `Begin File` (or `Begin Path`) names, else
    of the one that its own name begins with; a label track is of the latter. A table without rows
    says that nothing is in its recording.

    Raises:
        UserError: lists all that is wrong.
    """
    root = path if path.is_dir() else path.parent
    files = list(visible_files(root)) if path.is_dir() else [path]
    tables = {file: kind for file in files if (kind := kind_of(file)) is not None}
    faults = Faults(f"{path}: not usable as recordings with marked events.")
    notes: list[str] = []
    found = _Tables(root, faults)
    rows = [mark for file, kind in tables.items() for mark in found.rows(file, kind)]
    faults.raise_any()
    if not rows:
        raise UserError(f"{path}: its tables mark no event. Mark some, with labels.")
    clips = []
    texts = [{"label": mark.label, "filename": mark.where} for mark in rows]
    for mark, labels in zip(rows, label_cells.labels_of(texts, faults, notes), strict=True):
        if _NO_LABEL.fullmatch(mark.label) or not is_printable(mark.label):
            mend = "Fill in what is heard, or delete the row."
            faults.add("events without a label", mend, f"{mark.label!r} of {mark.where}")
        stretch = marks.stretch_of(mark.start, mark.end, mark.where, faults)
        if stretch is not None:
            clip = Clip(clip_id=mark.name, path=mark.recording, labels=labels)
            clips.append(found.recordings.event(clip, stretch, mark.where))
    if not any(clip.path.is_file() for clip in clips):
        for mark in rows:
            faults.add("recordings that do not exist, all", found.mend, mark.name)
    faults.raise_any()
    events, multi_label = marks.as_events(clips, False, notes)
    named = {each.path for each in found.recordings.all}
    others = [file for file in files if is_audio(file) and file not in named]
    if others:
        shown = few((file.relative_to(root).as_posix() for file in others), 3)
        notes.append(f"recordings without a table ({len(others)}): {shown}: left out.")
    notes += found.notes
    notes += unread((file for file in files if file not in tables), root)
    return Dataset(
        name=root.name if path.is_dir() else path.stem,
        root=root,
        clips=tuple(events),
        notes=tuple(notes),
        multi_label=multi_label,
        annotated=found.recordings.all,
    )


class _Tables:
    """Reads tables; finds their recordings."""

    def __init__(self, root: Path, faults: Faults) -> None:
        self.root = root
        self.mend = f"They are looked up in {root}; mend the names or add the files."
        self.recordings = marks.Recordings(faults)
        self._faults = faults
        self._audio = sorted(audio_files(root), key=lambda file: -len(file.stem))
        self._unused: dict[str, None] = {}
        self._frequencies = False

    @property
    def notes(self) -> Iterator[str]:
        """Yield a sentence on what was not used."""
        if self._unused:
            yield f"columns that are not used ({len(self._unused)}): {few(self._unused)}."
        if self._frequencies:
            yield "frequencies of label tracks are not used: a clip has all of them."

    def rows(self, file: Path, kind: Kind) -> list[_Mark]:
        """Return the rows of a table; what is wrong is noted."""
        try:
            with opened_text(file) as text:
                lines = list(csv.reader(text, delimiter="\t", strict=True))
        except UnicodeDecodeError as error:
            self._faults.add("tables that are not UTF-8", "Save them as such.", f"{file} ({error})")
            return []
        except csv.Error as error:
            what = "tables with quotes that do not close"
            self._faults.add(what, "Mend them.", f"{file}: {error}")
            return []
        except OSError as error:
            mend = "Make them readable."
            self._faults.add("tables that cannot be read", mend, f"{file} ({error.strerror})")
            return []
        numbered = [(n, line) for n, line in enumerate(lines, 1) if any(x.strip() for x in line)]
        read = self._raven if kind == "raven" else self._audacity
        return list(read(file, numbered))

    def _raven(self, file: Path, lines: Sequence[tuple[int, list[str]]]) -> Iterator[_Mark]:
        (_, header), *rest = lines
        names = [name.strip().lower() for name in header]
        label = next((name for name in LABELS if name in names), None)
        if label is None:
            mend = f"Name one of them {LABELS[0].title()}; its columns are: {few(names)}."
            self._faults.add("selection tables without a column of labels", mend, file.name)
            return
        seen: dict[tuple[str, Path], str] = {}  # selection -> its view: each view has a row of it
        if not rest and not {"begin file", "begin path"} & set(names):
            self._own(file)  # nothing is in its recording
        filled: set[str] = set()
        for number, values in rest:
            row = dict(zip(names, (value.strip() for value in values), strict=False))
            filled |= {name for name, value in row.items() if value}
            where = f"{file.name} line {number}"
            if len(values) > len(names) or not {BEGIN, END, label} <= row.keys():
                mend = "Each row has a value for each column, with tabs between."
                self._faults.add("rows that are not complete", mend, where)
                continue
            named = from_cell(row.get("begin file") or _last(row.get("begin path", "")))
            recording = self._named(file, named) if named else self._own(file)
            if recording is None:
                continue
            view = row.get("view", "")
            selection = row.get("selection", ""), recording
            if row.get("selection") and seen.setdefault(selection, view) != view:
                continue
            start, end = row[BEGIN], row[END]
            if offset := named and row.get("file offset (s)"):  # in this file, of several in a row
                start, end = _moved(start, end, offset)
            yield _Mark(recording, self._name(recording), start, end, from_cell(row[label]), where)
        for name in names:
            if name not in USED | {label} and name in filled:
                self._unused[name] = None

    def _audacity(self, file: Path, lines: Sequence[tuple[int, list[str]]]) -> Iterator[_Mark]:
        recording = self._own(file)
        for number, values in lines if recording else ():
            assert recording is not None
            if values[0].strip() == _SPECTRAL:
                self._frequencies = True
                continue
            where = f"{file.name} line {number}"
            if len(values) not in (2, 3):
                mend = "Each row is start, end and label, with tabs between."
                self._faults.add("rows that are not complete", mend, where)
                continue
            start, end, label = (*(value.strip() for value in values), "")[:3]
            yield _Mark(recording, self._name(recording), start, end, from_cell(label), where)

    def _name(self, recording: Path) -> str:
        try:
            return recording.relative_to(self.root).as_posix()
        except ValueError:
            return recording.name

    def _named(self, file: Path, name: str) -> Path | None:
        """Return where a recording that a table names lies, or would lie."""
        if not is_printable(name):
            mend = "Delete line breaks and other control characters."
            self._faults.add(
                "recordings with control characters in their name", mend, f"{name!r} of {file.name}"
            )
            return None
        beside = Places(file).find(name)
        if beside.is_file():
            return beside
        alike = [path for path in self._audio if folded(path.name) == folded(name)]
        return alike[0] if len(alike) == 1 else beside

    def _own(self, file: Path) -> Path | None:
        """Return the recording whose name a table's begins with; the longest such name counts."""
        name = folded(file.name)
        found = [path for path in self._audio if _begins(name, folded(path.stem))]
        best = [path for path in found if len(path.stem) == len(found[0].stem)]
        near = [path for path in best if path.parent == file.parent] or best
        if len(near) != 1:
            which = f"{file.name} ({few(self._name(path) for path in near)})" if near else file.name
            what = "tables of several recordings" if near else "tables without a recording"
            mend = "Name a table as its recording: night.txt for night.wav"
            mend += ", or add a column Begin File." if kind_of(file) == "raven" else "."
            self._faults.add(what, mend, which)
            return None
        self.recordings.add(self._name(near[0]), near[0])
        return near[0]


def _begins(name: str, stem: str) -> bool:
    return name.startswith(stem) and not name[len(stem) : len(stem) + 1].isalnum()


def _last(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _moved(start: str, end: str, offset: str) -> tuple[str, str]:
    """Return an event's times in its file; as they are where they are no numbers."""
    try:
        return offset, f"{float(offset) + float(end) - float(start):.6f}"
    except ValueError:
        return start, end
