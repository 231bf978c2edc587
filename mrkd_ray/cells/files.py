"""The tables in a cell's folder: `predictions.csv`, `history.csv` and `predicted.npy`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrkd_ray.common.arrays import Float32, Int64
from mrkd_ray.common.files import replacing, write_text
from mrkd_ray.datasets.base import encode
from mrkd_ray.scores.comparison import Condition, Model
from mrkd_ray.training import checkpoints
from mrkd_ray.training.branch_task import Part

Row = dict[str, Any]
Predicted = list[list[list[int]]]  # [cycles][branches][clips]


def read_predictions(folder: Path) -> tuple[list[str], Int64, dict[str, Float32]]:
    """Return clip_ids, labels as in a `Part` and, by model, probabilities [n, M] float32."""
    import pandas as pd

    table = pd.read_csv(
        folder / "predictions.csv",
        dtype={"clip_id": str, "label": str, "labels": str},
        keep_default_na=False,
    )
    columns = [name for name in table.columns if name.startswith("p_")]
    classes = [name.removeprefix("p_") for name in columns]
    models = dict(iter(table.groupby("model", sort=False)))
    first = next(iter(models.values()))
    if "labels" in first:
        labels = encode([_split(row, classes) for row in first["labels"]], classes, True)
    else:
        labels = encode([(label,) for label in first["label"]], classes, False)
    scores = {str(name): rows[columns].to_numpy(dtype=np.float32) for name, rows in models.items()}
    return list(first["clip_id"]), labels, scores


def read_models(folder: Path, condition: Condition, fold: int, seed: int) -> dict[str, Model]:
    """Return what each model of a cell predicted, by name; `folder` has the cell's key as name."""
    clip_ids, labels, scores = read_predictions(folder)
    return {
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
            row: Row = {"model": model, "clip_id": clip_id, column: label}
            row |= {f"p_{name}": str(x) for name, x in zip(classes, p, strict=True)}
            rows.append(row)
    _write_csv(folder / "predictions.csv", rows)


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


def cycles_done(folder: Path) -> int:
    """Return how many cycles a cell that is not finished would not run again."""
    found = checkpoints.latest(folder / "checkpoint")
    return checkpoints.cycle_of(found) if found else 0


def read_history(folder: Path, cycle: int) -> tuple[list[Row], Predicted]:
    """Return what `write_history` wrote of the cycles before `cycle`, at which the cohort stands.

    The last of them may be in the checkpoint only, when the run died right after it.
    """
    rows: list[Row] = []
    predicted: Predicted = []
    if (folder / "history.csv").exists():
        with (folder / "history.csv").open(newline="") as file:
            rows = [{**row, "cycle": int(row["cycle"])} for row in csv.DictReader(file)]
        rows = [row for row in rows if row["cycle"] < cycle]
        known = len({row["cycle"] for row in rows})  # of a cycle, this file is written last
        predicted = np.load(folder / "predicted.npy", allow_pickle=False)[:known].tolist()
    found = checkpoints.latest(folder / "checkpoint")
    if found and not any(row["cycle"] == cycle - 1 for row in rows):
        last = checkpoints.read_rows(found)
        predicted.append([row.pop("predicted") for row in last])
        for row in last:
            phases = (value for key, value in row.items() if key.startswith("seconds_"))
            rows.append({**row, "seconds": sum(phases)})
    return rows, predicted


def _write_csv(path: Path, rows: list[Row]) -> None:
    text = io.StringIO(newline="")
    fields = dict.fromkeys(name for row in rows for name in row)  # warm-up cycles have fewer
    writer = csv.DictWriter(text, fieldnames=list(fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
