"""Predictions as people read them, and in the formats that other programs open."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.registry import unknown
from mrkd_ray.common.text import printable, to_cell
from mrkd_ray.inference.prediction import NONE, Prediction
from mrkd_ray.inference.spans import Event, events

if TYPE_CHECKING:
    import pyarrow as pa

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


@dataclass(frozen=True)
class Asked:
    """What is to be written.

    Attributes:
        classes: names of the M classes.
        multi_label: of the model.
        windows: whether predictions are of windows; else each is of a recording.
        top: classes that are named for a recording.
        least: the probability from which a class is named; None where it was not asked for: by
            the model's own thresholds, and of events from `PRESENT` up.
        nothing: the class of what was not marked (`--negatives`), which is no event.
    """

    classes: tuple[str, ...]
    multi_label: bool
    windows: bool
    top: int
    least: float | None
    nothing: str | None = None

    def answer(self, prediction: Prediction) -> list[str]:
        """Return the classes that a recording or a window has."""
        found = prediction.labels(self.least)
        return found if self.multi_label else found[:1]

    def named(self, prediction: Prediction) -> dict[str, float]:
        """Return the classes that are told of a recording: those that come near as well."""
        if self.multi_label:
            top = prediction.top()
            return {name: top[name] for name in self.answer(prediction)}
        return {n: p for n, p in prediction.top(self.top).items() if p >= (self.least or 0)}

    def text(self, prediction: Prediction) -> str:
        """Return the classes that are named, for people; or that there is none."""
        named = [f"{name} {100 * p:.1f} %" for name, p in self.named(prediction).items()]
        if self.least is None and not self.answer(prediction):
            near = f" ({', '.join(named)})" if named and not prediction.silent else ""
            return prediction.answer + near
        return ", ".join(named) or self.none

    @property
    def none(self) -> str:
        """What is said where no class is named."""
        return NONE if self.least is None else f"no class from {100 * self.least:g} % up"

    def events(self, predictions: Sequence[Prediction]) -> list[Event]:
        """Return what is heard in the windows of one recording."""
        found = events(predictions, self.classes, self.least)
        return [event for event in found if event.label != self.nothing]


Text = Callable[[Iterator[list[Prediction]], Asked], Iterator[str]]
"""From the predictions of one recording after the other to the parts of a file."""


def check(name: str, *, windows: bool, files: int, least: float | None, output: bool) -> None:
    """Raise UserError where there is no such format, or it does not go with the rest."""
    if name not in FORMATS and name != "parquet":
        raise unknown("format", name, [*FORMATS, "parquet"])
    if name in ("raven", "audacity") and not windows:
        raise UserError(f"--format {name}: its rows have a start and an end: give --window SECONDS")
    if name == "audacity" and files > 1:
        raise UserError(
            f"--format audacity: a label track is of one recording, and {files} were given. Call "
            "it once for each, or take --format raven."
        )
    if name in ("csv", "parquet") and least is not None:
        raise UserError(f"--min-confidence and --format {name}: it has every class: leave it out")
    if name == "parquet" and not output:
        raise UserError("--format parquet: it is not for people to read: give --output FILE")


def text_lines(recordings: Iterator[list[Prediction]], asked: Asked) -> Iterator[str]:
    """Yield lines for people: of each recording, or of each event."""
    for predictions in recordings:
        file = predictions[0].file
        if not asked.windows:
            yield printable(f"{file}: {asked.text(predictions[0])}") + "\n"
            continue
        lines = [
            f"{file} {e.start:.1f}-{e.end:.1f} s: {e.label} {100 * e.confidence:.1f} %"
            for e in asked.events(predictions)
        ]
        yield "".join(printable(line) + "\n" for line in lines or [f"{file}: {asked.none}"])


def csv_lines(recordings: Iterator[list[Prediction]], asked: Asked) -> Iterator[str]:
    """Yield a table: file, seconds of windows, and the probability of each class."""
    times = ["start", "end"] if asked.windows else []
    yield _row(["file", *times, *map(to_cell, asked.classes)])
    for predictions in recordings:
        lines = []
        for each in predictions:
            when = [f"{each.start:.3f}", f"{each.end:.3f}"] if asked.windows else []
            scores = [f"{value:.6f}" for value in each.probabilities]
            lines.append(_row([to_cell(each.file), *when, *scores]))
        yield "".join(lines)


def json_lines(recordings: Iterator[list[Prediction]], asked: Asked) -> Iterator[str]:
    """Yield a list of objects: of each recording, or of each window."""
    before = "[\n"
    for predictions in recordings:
        for each in predictions:
            yield before + json.dumps(_object(each, asked), indent=2, allow_nan=False)
            before = ",\n"
    yield "\n]\n" if before == ",\n" else "[]\n"


def _object(prediction: Prediction, asked: Asked) -> dict[str, Any]:
    times = {"start": prediction.start, "end": prediction.end} if asked.windows else {}
    found = asked.answer(prediction)
    labels = {"labels": found} if asked.multi_label else {"label": found[0] if found else None}
    answer = found[0] if found else prediction.answer if asked.least is None else NONE
    scores = prediction.top()
    return {"file": prediction.file, **times, **labels, "answer": answer, "scores": scores}


def raven_lines(recordings: Iterator[list[Prediction]], asked: Asked) -> Iterator[str]:
    """Yield a selection table of the events of all recordings."""
    yield _row(RAVEN, tabs=True)
    number = 0
    for predictions in recordings:
        name = to_cell(Path(predictions[0].file).name)
        for event in asked.events(predictions):
            number += 1
            start, end = f"{event.start:.3f}", f"{event.end:.3f}"
            place = [number, "Spectrogram 1", 1, start, end, name, start]
            yield _row([*place, to_cell(event.label), f"{event.confidence:.4f}"], tabs=True)


def audacity_lines(recordings: Iterator[list[Prediction]], asked: Asked) -> Iterator[str]:
    """Yield a label track: start, end and label, with tabs between."""
    for predictions in recordings:
        for event in asked.events(predictions):
            row = [f"{event.start:.6f}", f"{event.end:.6f}", to_cell(event.label)]
            yield _row(row, tabs=True)


FORMATS: dict[str, Text] = {
    "text": text_lines,
    "csv": csv_lines,
    "json": json_lines,
    "raven": raven_lines,
    "audacity": audacity_lines,
}
"""The formats that are text, by name."""


def parquet_schema(classes: Sequence[str]) -> pa.Schema:
    """Return the columns of a table of predictions."""
    import pyarrow as pa

    columns = [("file", pa.string()), ("start", pa.float64()), ("end", pa.float64())]
    return pa.schema([*columns, *((name, pa.float32()) for name in classes)])


def write_parquet(recordings: Iterator[list[Prediction]], asked: Asked, file: Path) -> None:
    """Write the table of `csv_lines`, with times in any case, as Parquet."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    schema = parquet_schema(asked.classes)
    with parquet.ParquetWriter(file, schema) as writer:
        for predictions in recordings:
            scores = np.stack([each.probabilities for each in predictions])
            arrays = [
                pa.array([each.file for each in predictions]),
                pa.array([each.start for each in predictions]),
                pa.array([each.end for each in predictions]),
                *map(pa.array, scores.T),
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _row(values: Sequence[object], *, tabs: bool = False) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter="\t" if tabs else ",", lineterminator="\n").writerow(values)
    return out.getvalue()
