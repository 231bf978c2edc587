"""Figures of each class, confusion and calibration of one model on some clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrkd_ray.common.arrays import Float64, Int64
from mrkd_ray.scores.calibration import calibration
from mrkd_ray.scores.classes import confused
from mrkd_ray.scores.thresholds import PRESENT


def figures(
    scores: Float64, truth: Int64, classes: Sequence[str], threshold: float | Float64 = PRESENT
) -> dict[str, Any]:
    """Return `classes`, and where a clip has one label `confusion` and `ece`.

    `classes` has for each class its name, `clips` (of its own), `precision`, `recall`, `f1` and
    `average_precision` in [0, 1]; None where there is nothing to divide by: no clip, or none that
    was given the class. `confusion[i][j]` clips of class i were given class j. `ece` is the
    expected calibration error (`calibration`).

    Args:
        scores: probabilities [N, M].
        truth: class indices [N]; multi-label 0 or 1 [N, M].
        classes: their M names.
        threshold: multi-label: from which probability on a class is given; of all, or of each [M].
    """
    multi_label = truth.ndim == 2
    hot = truth if multi_label else np.eye(len(classes), dtype=np.int64)[truth]
    given = scores >= threshold if multi_label else np.eye(len(classes))[scores.argmax(axis=1)] > 0
    right = (hot * given).sum(axis=0)
    rows = []
    for index, name in enumerate(classes):
        clips, said = int(hot[:, index].sum()), int(given[:, index].sum())
        rows.append(
            {
                "class": name,
                "clips": clips,
                "precision": _part(right[index], said),
                "recall": _part(right[index], clips),
                "f1": _part(2 * right[index], clips + said) if clips else None,
                "average_precision": _average_precision(scores[:, index], hot[:, index]),
            }
        )
    if multi_label:
        return {"classes": rows}
    return {
        "classes": rows,
        "confusion": confused(scores, truth).tolist(),
        "ece": calibration(scores, truth).ece,
    }


def _part(count: int, of: int) -> float | None:
    return float(count / of) if of else None


def _average_precision(scores: Float64, hot: Int64) -> float | None:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(hot, scores)) if hot.any() else None
