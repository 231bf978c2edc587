"""Predictions in the formats that other programs open."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, cast, get_args

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.registry import unknown
from mrkd_ray.common.text import to_cell
from mrkd_ray.inference.spans import Event, Span

Format = Literal["text", "csv", "raven", "audacity"]
RAVEN = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Begin File",
    "File Offset (s)",
    "Label",
    "Confidence",
)
"""Columns of a selection table of Raven Pro (its manual, "Selection tables")."""


def checked(name: str, *, window: float | None, files: int) -> Format:
    """Return a format's name.

    Raises:
        UserError: there is no such format; it needs windows; it holds one recording only.
    """
    if name not in get_args(Format):
        raise unknown("format", name, get_args(Format))
    if name in ("raven", "audacity") and window is None:
        raise UserError(f"--format {name}: its rows have a start and an end: give --window SECONDS")
    if name == "audacity" and files > 1:
        raise UserError(
            f"--format audacity: a label track is of one recording, and {files} were given. Call "
            "it once for each, or take --format raven."
        )
    return cast("Format", name)


def csv_header(classes: Sequence[str], *, window: bool) -> str:
    """Return the first line of a table of probabilities."""
    return _row(["file", *(["start", "end"] if window else []), *map(to_cell, classes)])


def csv_rows(file: Path, spans: Iterable[Span], *, window: bool) -> str:
    """Return a line for each span: file, seconds, and the probability of each class."""
    lines = []
    for span in spans:
        times = [f"{span.start:.3f}", f"{span.end:.3f}"] if window else []
        scores = [f"{value:.6f}" for value in span.probabilities]
        lines.append(_row([to_cell(str(file)), *times, *scores]))
    return "".join(lines)


def raven_header() -> str:
    """Return the first line of a selection table."""
    return _row(RAVEN, tabs=True)


def raven_rows(file: Path, events: Iterable[Event], first: int) -> str:
    """Return the rows of one recording's events; `first` is the number of the first selection."""
    lines = []
    for number, event in enumerate(events, first):
        start, end = f"{event.start:.3f}", f"{event.end:.3f}"
        place = [number, "Spectrogram 1", 1, start, end, to_cell(file.name), start]
        lines.append(_row([*place, to_cell(event.label), f"{event.confidence:.4f}"], tabs=True))
    return "".join(lines)


def audacity_rows(events: Iterable[Event]) -> str:
    """Return a label track: start, end and label, with tabs between."""
    rows = ([f"{e.start:.6f}", f"{e.end:.6f}", to_cell(e.label)] for e in events)
    return "".join(_row(row, tabs=True) for row in rows)


def _row(values: Sequence[object], *, tabs: bool = False) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter="\t" if tabs else ",", lineterminator="\n").writerow(values)
    return out.getvalue()
