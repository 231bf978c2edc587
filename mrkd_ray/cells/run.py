"""A cell from start to `result.json`."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.cells import early_stop, lost
from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.intact import RESULT
from mrkd_ray.common import manifest
from mrkd_ray.common.files import json_text, link_or_copy, remove_unfinished, replacing, write_text
from mrkd_ray.common.reading import Damaged
from mrkd_ray.common.timeline import Span, write_trace
from mrkd_ray.method import algorithm
from mrkd_ray.scores import metrics
from mrkd_ray.scores.ensemble import mean_probabilities
from mrkd_ray.training import checkpoints
from mrkd_ray.training.branch_task import BranchTask

Row = dict[str, Any]

PROFILE, SOFT_LABELS = "profile.json", "soft_labels.npz"


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """Return the numbers of a cycle, a row a branch, by `branch/name`."""
    return {
        f"{row['branch']}/{name}": value
        for row in rows
        for name, value in row.items()
        if isinstance(value, int | float) and name != "cycle"
    }


class CohortWithFiles(algorithm.Cohort, Protocol):
    """What a cell needs of a cohort besides Algorithm 1."""

    def figures(self, cycles: Iterator[algorithm.Handle]) -> Iterator[list[Row]]:
        """The figures of each cycle that `end_cycle` ended, once its checkpoint stands."""

    def spans(self) -> dict[str, list[Span]]:
        """What every branch did since it was asked last; then the other processes, if any."""

    def test_probabilities(self) -> list[NDArray[np.float32]]:
        """Clip-level probabilities [n_test, M] of every branch."""

    def restore(self, folder: Path) -> None:
        """Take every branch's weights from its checkpoint in `folder`, whatever was submitted."""

    def export(self, folder: Path) -> None:
        """Write every branch into a folder of its own under `folder`."""


def run_cell(
    cell: Cell,
    tasks: Sequence[BranchTask],
    cohort: CohortWithFiles,
    folder: Path,
    *,
    profile: bool = False,
) -> Iterator[list[Row]]:
    """Run a cell from where its cohort stands to its `result.json`, a cycle at each step.

    Args:
        tasks: of its branches, but for those that it has lost.
        profile: also write `profile.json`, a timeline.

    Yields:
        After every cycle, one row of figures a branch.
    """
    remove_unfinished(folder, cell_files.PLACES)  # an attempt before this one may have been killed
    names, gone = tuple(task.name for task in tasks), lost.read(folder)
    history, predicted = cell_files.read_history(folder, cohort.cycle, names)
    if history:  # its last cycle may have been in the checkpoint only
        cell_files.write_history(folder, history, predicted)
    else:  # of a cell that begins anew no old figures are kept beside the new ones
        cell_files.remove_history(folder)
    stops, checkpoint = cell.training.early_stop is not None, folder / "checkpoint"
    if stops:
        early_stop.keep_best(history, checkpoint)
    if cell.temperature is None:
        cycles = algorithm.independent(cohort, cell.training)
    else:
        cycles = algorithm.distilled(cohort, cell.training, cell.temperature)
    began = time.perf_counter()
    figures = iter(()) if early_stop.is_over(history, cell.training) else cohort.figures(cycles)
    for rows in figures:
        now = time.perf_counter()
        predicted.append([row.pop("predicted") for row in rows])
        history += [{**row, "seconds": now - began} for row in rows]
        began = now
        cell_files.write_history(folder, history, predicted)
        if stops:
            early_stop.keep_best(history, checkpoint)
        yield rows
        if early_stop.is_over(history, cell.training):
            break
    if stops:
        cohort.restore(checkpoints.best(checkpoint))
    cohort.export(folder / "branches")
    labels, classes = tasks[0].test.labels, tasks[0].classes
    scores = dict(zip(names, cohort.test_probabilities(), strict=True))
    if len(scores) > 1:
        scores["ensemble"] = mean_probabilities(list(scores.values())).astype(np.float32)
    cell_files.write_predictions(folder, tasks[0].test, classes, scores)
    found = checkpoints.latest(checkpoint)
    if found and (found / SOFT_LABELS).exists():
        with replacing(folder / SOFT_LABELS) as temporary:
            link_or_copy(found / SOFT_LABELS, temporary)
    if profile:
        write_trace(folder / PROFILE, cohort.spans())
    cycles_run = int(history[-1]["cycle"]) + 1
    result: Row = {
        "cell": cell.key,
        "condition": cell.condition,
        "cohort": cell.cohort,
        "branches": {task.name: str(task.spec) for task in tasks},
        "temperature": cell.temperature,
        "fold": cell.fold,
        "seed": cell.seed,
        "label_noise": cell.training.label_noise,
        "dataset": tasks[0].provenance["dataset"],
        "classes": list(classes),  # in the order of probabilities, here and in soft_labels.npz
        "epochs": cycles_run * (cell.training.b + cell.training.d),
        "train_clips": len(tasks[0].train.clip_ids),
        "unlabelled_clips": len(tasks[0].unlabelled),
        "clips": len(labels),
        "seconds": sum({row["cycle"]: float(row["seconds"]) for row in history}.values()),
        "models": [{"model": name, **metrics.measure(p, labels)} for name, p in scores.items()],
    }
    if cell.teachers:
        result["teachers"] = [teacher.name for teacher in cell.teachers]
    if stops:
        result["best_cycles"] = early_stop.best_cycles(history)
    if gone:
        result["lost"] = gone
    # It is finished when result.json is there: so this is last, and the manifest has it already.
    text = json_text(result)
    manifest.write(folder, without=("checkpoint",), coming={RESULT: text.encode()})
    write_text(folder / RESULT, text)
    shutil.rmtree(checkpoint, ignore_errors=True)


def past(folder: Path, branches: Sequence[str]) -> Iterator[list[Row]]:
    """Yield what a cell's cycles reported that would not be run again, one row a branch.

    Nothing where a file is not what was written: whoever goes on with the cell says so.
    """
    try:
        if (folder / RESULT).exists():
            rows, _ = cell_files.read_figures(folder)
        else:
            rows, _ = cell_files.read_history(folder, cell_files.cycles_done(folder), branches)
    except Damaged:
        return
    for _, cycle in itertools.groupby(rows, lambda row: row["cycle"]):
        yield [{name: _number(value) for name, value in row.items()} for row in cycle]


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
