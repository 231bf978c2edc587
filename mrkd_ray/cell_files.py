"""The tables in a cell's folder: `predictions.csv` and `history.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrkd_ray import checkpoint
from mrkd_ray.files import write_text
from mrkd_ray.task import Part

Row = dict[str, Any]


def read_predictions(folder: Path) -> tuple[list[str], NDArray[np.int64], dict[str, Any]]:
    """Return clip_ids, label indices [n] and, for each model, probabilities [n, M] float32."""
    import pandas as pd

    table = pd.read_csv(
        folder / "predictions.csv", dtype={"clip_id": str, "label": str}, keep_default_na=False
    )
    columns = [name for name in table.columns if name.startswith("p_")]
    index = {name.removeprefix("p_"): i for i, name in enumerate(columns)}
    models = dict(iter(table.groupby("model", sort=False)))
    first = next(iter(models.values()))
    labels = np.array([index[label] for label in first["label"]], dtype=np.int64)
    scores = {str(name): rows[columns].to_numpy(dtype=np.float32) for name, rows in models.items()}
    return list(first["clip_id"]), labels, scores


def write_predictions(
    folder: Path, part: Part, classes: Sequence[str], scores: Mapping[str, NDArray[np.float32]]
) -> None:
    """Write the probabilities [n, M] of each model by name, a row a clip of `part`."""
    rows: list[Row] = []
    for model, probabilities in scores.items():
        for clip_id, label, p in zip(part.clip_ids, part.labels, probabilities, strict=True):
            row: Row = {"model": model, "clip_id": clip_id, "label": classes[label]}
            row |= {f"p_{name}": str(x) for name, x in zip(classes, p, strict=True)}
            rows.append(row)
    _write_csv(folder / "predictions.csv", rows)


def write_history(folder: Path, rows: list[Row]) -> None:
    """Write the figures of every cycle so far, a row a branch."""
    _write_csv(folder / "history.csv", rows)


def read_history(folder: Path, cycle: int) -> list[Row]:
    """Return the rows of the cycles before `cycle`, at which the cohort stands.

    The last of them may be in the checkpoint only, when the run died right after it.
    """
    rows: list[Row] = []
    if (folder / "history.csv").exists():
        with (folder / "history.csv").open(newline="") as file:
            rows = [{**row, "cycle": int(row["cycle"])} for row in csv.DictReader(file)]
    rows = [row for row in rows if row["cycle"] < cycle]
    found = checkpoint.latest(folder / "checkpoint")
    if found and not any(row["cycle"] == cycle - 1 for row in rows):
        for row in checkpoint.read_rows(found):
            phases = (value for key, value in row.items() if key.startswith("seconds_"))
            rows.append({**row, "seconds": sum(phases)})
    return rows


def _write_csv(path: Path, rows: list[Row]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
