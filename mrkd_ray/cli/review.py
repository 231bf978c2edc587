"""`mrkd review`: the clips to listen to next, and a data set made of the answers."""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrkd_ray.cells import files as cell_files
from mrkd_ray.common.arrays import Float32, Int64
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.failures import sentence
from mrkd_ray.common.files import write_text
from mrkd_ray.common.reading import opened_text
from mrkd_ray.common.text import LISTED, few, from_cell, printable, to_cell
from mrkd_ray.config.grid_files import read_written
from mrkd_ray.config.run import UNGROUPED
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.events import SHORTEST
from mrkd_ray.datasets.layouts.table import delimiter_of, records
from mrkd_ray.datasets.name_groups import with_groups
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.results.compare import read_kinds
from mrkd_ray.scores.comparison import ENSEMBLE
from mrkd_ray.scores.to_review import to_review

if TYPE_CHECKING:
    from rich.console import Console

ANSWER = "answer"
LEAVE_OUT = "-"
"""As an answer: the clip is of no use."""
SHOWN = 20
"""Rows on a terminal; the file has all."""


@dataclass(frozen=True)
class _Predicted:
    """What the branches of a run say of clips that they were not trained on, by clip_id."""

    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    labels: Int64
    probabilities: dict[str, list[Float32]]


@dataclass(frozen=True)
class Data:
    """A run's data set, and its window."""

    window: float
    negatives: str | None
    marked: Dataset
    """Events as they are marked; without negatives."""
    trained: Dataset
    """As it was trained on."""


def review(results: Path, to: Path, count: int, console: Console) -> None:
    """Write and print the clips to listen to next.

    Raises:
        UserError: the run has no finished cell, its data set is not there, or the file is.
    """
    check_new(to)
    data = data_of(results)
    rows, told = listed(results, data, count)
    write_text(to, as_csv(rows))
    _show(rows, console)
    console.print(
        f"{told}\nListen, and fill in the column {ANSWER} of {to}: the right label, also where it "
        f"is the same; {LEAVE_OUT} leaves the clip out. Then: mrkd review {results} --answers {to} "
        f"--to mended.csv\nOr listen and answer in a browser: mrkd review {results} --page "
        f"--answers {to}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def listed(results: Path, data: Data, count: int) -> tuple[list[dict[str, str]], str]:
    """Return the rows of the list, and a sentence on what they are of.

    Raises:
        UserError: the run has no finished cell, or its data have changed.
    """
    predicted = _predicted(results, data.trained)
    branches = max(len(each) for each in predicted.probabilities.values())
    rows: list[dict[str, str]] = []
    ids = predicted.clip_ids
    # Clips that more runs have tested have more rows: of all, as many as of the fewest.
    fewest = min(len(predicted.probabilities[clip_id]) for clip_id in ids)
    stacked = np.stack(
        [np.stack(predicted.probabilities[clip_id][:fewest]) for clip_id in ids], axis=1
    )
    mean = stacked.mean(axis=0)
    for doubt in to_review(stacked, predicted.labels, count):
        clip = data.trained.by_id[ids[doubt.clip]]
        own = mean[doubt.clip]
        first = int(own.argmax())
        labelled = [own[predicted.classes.index(label)] for label in clip.labels]
        rows.append(
            {
                "clip_id": to_cell(clip.clip_id),
                "file": to_cell(str(clip.path)),
                "start": f"{clip.stretch[0]:g}" if clip.stretch else "",
                "end": f"{clip.stretch[1]:g}" if clip.stretch else "",
                **_labels(clip.labels, data.trained),
                ANSWER: "",
                "reason": doubt.reason,
                "probability": f"{min(labelled):.4f}",
                "likeliest": to_cell(predicted.classes[first]),
                "probability_likeliest": f"{own[first]:.4f}",
                "disagreement": f"{doubt.disagreement:.2f}",
            }
        )
    left = len(data.trained.clips) - len(ids)
    untested = f" {left} were never tested: --folds all tests each." if left else ""
    told = f"{len(rows)} of {len(ids)} clips, by {branches} branches that were not trained on them."
    return rows, told + untested


def mend(results: Path, answers: Path, to: Path, console: Console) -> None:
    """Write the run's data set as a CSV file, with the answers as verified labels.

    Raises:
        UserError: an answer is no class, a clip is not in the data set, or the file is there.
    """
    check_new(to)
    data = data_of(results)
    given = given_answers(answers, rows_of(answers), data)
    if not given:
        raise UserError(f"{answers}: its column {ANSWER} is empty. Fill in labels.")
    told = write_data(data, given, to)
    console.print(
        f"{told} Train on it: mrkd train --data {to}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def write_data(data: Data, given: Mapping[str, tuple[str, ...]], to: Path) -> str:
    """Write the run's data set with the answers, and return a sentence on it.

    Raises:
        UserError: no clip is left.
    """
    rows = []
    changed = left_out = 0
    for clip in (*data.marked.clips, *_found(data, given)):
        labels = given.get(clip.clip_id)
        if labels == ():
            left_out += 1
            continue
        changed += labels is not None and labels != clip.labels
        rows.append(_row(clip, labels, data.marked, to))
    if not rows:
        raise UserError(f"{to}: the answers leave out every clip.")
    write_text(to, as_csv(rows))
    return (
        f"{to}: {len(rows)} clips; of {len(given)} answers {changed} are other labels, {left_out} "
        "leave a clip out."
    )


def check_new(to: Path) -> None:
    """Raise UserError where the file to write is there."""
    if to.exists():
        raise UserError(f"--to {to}: it is there, maybe with answers. Give another name.")


def data_of(results: Path) -> Data:
    """Open the data set of a run."""
    asked = read_written(results / "grid.yaml", ("data", "cache"))
    data, cache, negatives = str(asked["data"]), Path(asked["cache"]), asked.get("negatives")
    variants: Iterable[Mapping[str, Any]] = (asked.get("variants") or {}).values()
    windows = [each.get("window") for each in (asked, *variants)]
    window = max((float(x) for x in windows if isinstance(x, int | float)), default=SHORTEST)
    trained = open_dataset(data, cache, window=window, negatives=negatives)
    marked = open_dataset(data, cache, window=0)
    pattern = asked.get("group_by")
    if pattern is not None and pattern != UNGROUPED:
        trained, marked = with_groups(trained, pattern), with_groups(marked, pattern)
    return Data(window, negatives, marked, trained)


def _predicted(results: Path, dataset: Dataset) -> _Predicted:
    """Gather what branches predicted, once of each cell."""
    cells = dict.fromkeys(
        cell for kind in read_kinds(results) for run in kind.cells.values() for cell in run
    )
    found: dict[str, list[Float32]] = {}
    for cell in cells:
        clip_ids, _, scores = cell_files.read_predictions(results / "cells" / cell)
        branches = [name for name in scores if name != ENSEMBLE]
        for row, clip_id in enumerate(clip_ids):
            found.setdefault(clip_id, []).extend(scores[name][row] for name in branches)
    known = {clip_id: rows for clip_id, rows in found.items() if clip_id in dataset.by_id}
    if len(known) < len(found):
        lost = sorted(found.keys() - known.keys())
        raise UserError(
            f"{dataset.root}: {len(lost)} clips of the run are not in it any more: {few(lost, 3)}. "
            "Train again, then review."
        )
    place = {clip.clip_id: i for i, clip in enumerate(dataset.clips)}
    ids = sorted(known, key=place.__getitem__)
    classes = dataset.classes
    if len(found[ids[0]][0]) != len(classes):
        raise UserError(f"{dataset.root}: its classes are not those of the run. Train again.")
    labels = dataset.labels[[place[clip_id] for clip_id in ids]]
    return _Predicted(classes, tuple(ids), labels, known)


def given_answers(
    file: Path, rows: Sequence[tuple[int, Mapping[str, str]]], data: Data
) -> dict[str, tuple[str, ...]]:
    """Return the labels of each clip that was answered; none of one to leave out.

    Args:
        file: to be named where something is wrong.
        rows: as `rows_of`.
        data: of the run.

    Raises:
        UserError: an answer is no class, a clip has two, or is not in the data set.
    """
    known = set(data.trained.classes)
    found: dict[str, tuple[str, ...]] = {}
    for line, row in rows:
        answer, clip_id = from_cell(row[ANSWER].strip()), from_cell(row["clip_id"])
        if not answer:
            continue
        if clip_id not in data.trained.by_id:
            raise UserError(f"{file} row {line}: the run's data have no clip {clip_id!r}.")
        labels = [answer] if not data.trained.multi_label else _split(answer)
        if answer == LEAVE_OUT:
            labels = []
        for label in labels:
            if label not in known:
                near = difflib.get_close_matches(label, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise UserError(
                    f"{file} row {line}: the answer {label!r} is no class.{hint} The classes are "
                    f"{few(data.trained.classes, LISTED)}; {LEAVE_OUT} leaves the clip out."
                )
        own = tuple(sorted(set(labels)))
        if found.setdefault(clip_id, own) != own:
            raise UserError(f"{file} row {line}: clip {clip_id!r} has another answer above.")
    return found


def rows_of(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the lines with answers, as spreadsheets save them: also with a mark, and semicolons.

    Raises:
        UserError: it is not the list.
    """
    try:
        with opened_text(file) as stream:
            header = stream.readline()
            lines = list(records([header, *stream], delimiter_of(header)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read: {sentence(error) or error}") from None
    names = lines[0][1] if lines else []
    if lacking := [name for name in ("clip_id", ANSWER) if name not in names]:
        raise UserError(
            f"{file}: no column {lacking[0]!r}. Give the file that `mrkd review` wrote, with "
            "answers."
        )
    for line, values in lines[1:]:
        if len(values) != len(names):
            raise UserError(f"{file} line {line}: {len(values)} values, not {len(names)}.")
    return [(line, dict(zip(names, values, strict=True))) for line, values in lines[1:]]


def _found(data: Data, given: Mapping[str, tuple[str, ...]]) -> list[Clip]:
    """Return the clips of what was not marked in which the listener heard an event."""
    none = {(), (data.negatives,)}
    return [
        clip
        for clip in data.trained.clips
        if clip.clip_id not in data.marked.by_id and given.get(clip.clip_id, ()) not in none
    ]


def _row(
    clip: Clip, labels: tuple[str, ...] | None, dataset: Dataset, to: Path
) -> dict[str, object]:
    """Return a clip as a row of the CSV layout (`datasets.layouts.csv_list`)."""
    row: dict[str, object] = {"filename": to_cell(_beside(clip.path, to))}
    if dataset.annotated:
        assert clip.stretch is not None
        row |= {"start": clip.stretch[0], "end": clip.stretch[1]}
    row |= _labels(clip.labels if labels is None else labels, dataset)
    for field in ("fold", "split", "group"):
        value = getattr(clip, field)
        row[field] = "" if value is None else to_cell(str(value))
    return row | {"verified": int(labels is not None or clip.verified)}


def _beside(path: Path, to: Path) -> str:
    """Return where a recording lies, seen from the folder of the table where it lies in that."""
    folder = to.absolute().parent
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else os.fspath(path)


def _labels(labels: Sequence[str], dataset: Dataset) -> dict[str, str]:
    if not dataset.multi_label:
        return {"label": to_cell(labels[0])}
    return {"labels": json.dumps(list(labels), ensure_ascii=False)}


def _split(answer: str) -> list[str]:
    """Return several labels: with commas between, or as the column `labels` has them."""
    if answer.startswith("["):
        try:
            return [str(label) for label in json.loads(answer)]
        except (ValueError, RecursionError):
            return [answer]
    return [label.strip() for label in answer.split(",")]


def as_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a CSV file says them."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _show(rows: Sequence[Mapping[str, object]], console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("clip", "label", "%", "likeliest", "%", "why"):
        right = heading == "%"
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows[:SHOWN]:
        label = str(row.get("label", row.get("labels", "")))
        percents = [f"{100 * float(str(row[f'probability{x}'])):.0f}" for x in ("", "_likeliest")]
        words = (str(row["clip_id"]), label, percents[0], str(row["likeliest"]), percents[1])
        table.add_row(*map(printable, words), str(row["reason"]))
    console.print(table)
    if len(rows) > SHOWN:
        console.print(f"and {len(rows) - SHOWN} more in the file")
