"""The tables in a cell's folder: `predictions.csv`, `history.csv` and `predicted.npy`."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrkd_ray.common import manifest
from mrkd_ray.common.arrays import Float32, Int64
from mrkd_ray.common.files import replacing, write_text
from mrkd_ray.common.reading import LARGEST, Damaged, read_array, read_rows
from mrkd_ray.common.text import from_cell, to_cell
from mrkd_ray.datasets.base import encode
from mrkd_ray.scores.comparison import Condition, Model
from mrkd_ray.training import checkpoints
from mrkd_ray.training.branch_task import Part

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
Predicted = list[list[list[int]]]  # [cycles][branches][clips]

PREDICTIONS = "predictions.csv"
PLACES = ("", "branches/*/", "checkpoint/*/")
"""Where below a cell's folder files are written: patterns of `common.files.remove_unfinished`."""


def read_predictions(folder: Path) -> tuple[list[str], Int64, dict[str, Float32]]:
    """Return clip_ids, labels as in a `Part` and, by model, probabilities [n, M] float32.

    Raises:
        Damaged: the file is gone, another than was written, or no such table.
    """
    path = folder / PREDICTIONS
    content = manifest.content(folder, PREDICTIONS, LARGEST)
    try:
        return _predictions(content)
    except (ValueError, KeyError, StopIteration, UnicodeDecodeError) as error:
        raise Damaged(path, f"not a table of predictions ({str(error)[:200]})") from None


def _predictions(content: bytes) -> tuple[list[str], Int64, dict[str, Float32]]:
    import pandas as pd

    table = pd.read_csv(
        io.BytesIO(content),
        dtype={"model": str, "clip_id": str, "label": str, "labels": str},
        keep_default_na=False,
        encoding="utf-8",
    )
    columns = [name for name in table.columns if name.startswith("p_")]
    classes = [name.removeprefix("p_") for name in columns]
    models = dict(iter(table.groupby("model", sort=False)))
    first = next(iter(models.values()))
    if "labels" in first:
        rows_ = [_split(from_cell(row), classes) for row in first["labels"]]
        labels = encode(rows_, classes, True)
    else:
        labels = encode([(from_cell(label),) for label in first["label"]], classes, False)
    clip_ids = [from_cell(clip) for clip in first["clip_id"]]
    if len(set(clip_ids)) < len(clip_ids):
        raise ValueError("a clip is there twice")
    scores: dict[str, Float32] = {}
    for name, rows in models.items():
        if list(rows["clip_id"]) != list(first["clip_id"]):
            raise ValueError(f"the clips of {name!s} are not those of the first model")
        scores[str(name)] = rows[columns].to_numpy(dtype=np.float32)
        if not ((scores[str(name)] >= 0) & (scores[str(name)] <= 1.001)).all():
            raise ValueError(f"a probability of {name!s} is not between 0 and 1")
    return clip_ids, labels, scores


def read_models(folder: Path, condition: Condition, fold: int, seed: int) -> dict[str, Model]:
    """Return what each model of a cell predicted, by name; `folder` has the cell's key as name.

    To ask for a model that the cell has not raises Damaged: it is another cell's folder.
    """
    clip_ids, labels, scores = read_predictions(folder)
    found = {
        name: Model(
            name=name,
            condition=condition,
            fold=fold,
            seed=seed,
            cell=folder.name,
            clip_ids=tuple(clip_ids),
            labels=labels,
            probabilities=probabilities.astype(np.float64),
        )
        for name, probabilities in scores.items()
    }
    return _Models(folder / PREDICTIONS, found)


class _Models(dict[str, Model]):
    def __init__(self, path: Path, found: Mapping[str, Model]) -> None:
        super().__init__(found)
        self._path = path

    def __missing__(self, name: str) -> Model:
        raise Damaged(self._path, f"no model {name!r} in it: is it another cell's?")


def write_predictions(
    folder: Path, part: Part, classes: Sequence[str], scores: Mapping[str, Float32]
) -> None:
    """Write the probabilities [n, M] of each model by name, a row a clip of `part`.

    Column `label` has its class; or `labels` all of them, with commas between, or where a class
    has a comma in its name as a list in JSON.
    """
    if part.labels.ndim == 2:
        column = "labels"
        labels = [_joined([classes[i] for i in row.nonzero()[0]], classes) for row in part.labels]
    else:
        column, labels = "label", [classes[i] for i in part.labels]
    rows: list[Row] = []
    for model, probabilities in scores.items():
        for clip_id, label, p in zip(part.clip_ids, labels, probabilities, strict=True):
            row: Row = {"model": model, "clip_id": to_cell(clip_id), column: to_cell(label)}
            row |= {f"p_{name}": str(x) for name, x in zip(classes, p, strict=True)}
            rows.append(row)
    _write_csv(folder / PREDICTIONS, rows)


def _joined(labels: Sequence[str], classes: Sequence[str]) -> str:
    return json.dumps(labels) if any("," in name for name in classes) else ",".join(labels)


def _split(text: str, classes: Sequence[str]) -> list[str]:
    if not any("," in name for name in classes):
        return text.split(",")
    labels: list[str] = json.loads(text)
    return labels


def write_history(folder: Path, rows: list[Row], predicted: Predicted) -> None:
    """Write what is known of every cycle so far: figures, and classes predicted for test clips.

    Args:
        rows: one for each cycle and branch.
        predicted: indices of the most probable classes [cycles, branches, n]; `predicted.npy` is
            int16.
    """
    with replacing(folder / "predicted.npy") as temporary, temporary.open("wb") as file:
        np.save(file, np.array(predicted, np.int16), allow_pickle=False)
    _write_csv(folder / "history.csv", rows)


def remove_history(folder: Path) -> None:
    """Remove what `write_history` wrote, if anything."""
    for name in checkpoints.HISTORY:
        (folder / name).unlink(missing_ok=True)


def cycles_done(folder: Path) -> int:
    """Return how many cycles a cell that is not finished would not run again."""
    found = checkpoints.latest(folder / "checkpoint")
    return checkpoints.cycle_of(found) if found else 0


def read_history(
    folder: Path, cycle: int, branches: Sequence[str] | None = None
) -> tuple[list[Row], Predicted]:
    """Return what `write_history` wrote of the cycles before `cycle`, at which the cohort stands.

    Where `branches` are given, of these alone: the figures of one that was lost are left out.

    The last of them is in the checkpoint's figures. Those before are in its own copy of the tables,
    which its manifest covers; where an earlier version wrote it, in the cell's folder.

    Raises:
        Damaged: a file is not what was written, or cycles are missing.
    """
    rows: list[Row] = []
    predicted: Predicted = []
    found = checkpoints.latest(folder / "checkpoint")
    source = found if found and manifest.read(found) is not None else folder
    if cycle and (source / "history.csv").exists():
        rows, predicted = read_figures(source)
        rows = [row for row in rows if row["cycle"] < cycle]
        predicted = predicted[: len({row["cycle"] for row in rows})]
    if found and not any(row["cycle"] == cycle - 1 for row in rows):
        last = checkpoints.read_rows(found)
        predicted.append([row.pop("predicted") for row in last])
        wall = _wall_seconds(folder, cycle - 1)
        for row in last:
            phases = (value for key, value in row.items() if key.startswith("seconds_"))
            rows.append({**row, "seconds": wall or sum(phases)})
    if (there := sorted({row["cycle"] for row in rows})) != list(range(cycle)):
        lacking = next(i for i in range(cycle + 1) if i not in there)
        raise Damaged(
            source / "history.csv",
            f"cycle {lacking} is not in it. Remove {folder}, and it is trained anew",
        )
    if branches is None:
        return rows, predicted
    return _of_branches(rows, predicted, branches)


def _of_branches(
    rows: list[Row], predicted: Predicted, branches: Sequence[str]
) -> tuple[list[Row], Predicted]:
    if all(row["branch"] in branches for row in rows):
        return rows, predicted
    by_cycle: dict[int, list[bool]] = {}
    for row in rows:
        by_cycle.setdefault(row["cycle"], []).append(row["branch"] in branches)
    return (
        [row for row in rows if row["branch"] in branches],
        [
            list(itertools.compress(classes, kept))
            for classes, kept in zip(predicted, by_cycle.values(), strict=True)
        ],
    )


def history_table(folder: Path) -> pd.DataFrame:
    """Return `history.csv` as a table of numbers.

    Raises:
        Damaged: it is gone, another than was written, or no such table.
    """
    import pandas as pd

    try:
        return pd.read_csv(io.BytesIO(manifest.content(folder, "history.csv", LARGEST)))
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(folder / "history.csv", str(error)) from None


def _wall_seconds(folder: Path, cycle: int) -> float | None:
    """Return how long a cycle took, which is in the cell's `history.csv` only; None if unknown."""
    try:
        rows, _ = read_figures(folder)
        return next(float(row["seconds"]) for row in rows if row["cycle"] == cycle)
    except (Damaged, KeyError, ValueError, StopIteration):
        return None


def read_figures(folder: Path) -> tuple[list[Row], Predicted]:
    """Return all that `write_history` wrote.

    Raises:
        Damaged: a file is gone, or not such a table.
    """
    path = folder / "history.csv"
    rows: list[Row] = [dict(row) for row in read_rows(path, ("cycle", "branch"))]
    try:
        for row in rows:
            row["cycle"] = int(row["cycle"])
    except ValueError as error:
        raise Damaged(path, str(error)) from None
    predicted = read_array(folder / "predicted.npy", "int16", 3)
    cycles = {row["cycle"] for row in rows}
    if len(predicted) < len(cycles):  # of a cycle, history.csv is written last
        raise Damaged(folder / "predicted.npy", f"not as many cycles as {path.name}")
    return rows, predicted.tolist()


def _write_csv(path: Path, rows: list[Row]) -> None:
    text = io.StringIO(newline="")
    fields = dict.fromkeys(name for row in rows for name in row)  # warm-up cycles have fewer
    writer = csv.DictWriter(text, fieldnames=list(fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
