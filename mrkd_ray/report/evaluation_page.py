"""The page of `mrkd evaluate --html`: scores, classes, confusions and calibration of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mrkd_ray.common.files import write_text
from mrkd_ray.inference.evaluate import Evaluation
from mrkd_ray.report.figures import calibration, confusion
from mrkd_ray.report.figures.style import Figure, Panel, figure, look
from mrkd_ray.report.templates import template
from mrkd_ray.scores import metrics
from mrkd_ray.scores.calibration import BINS
from mrkd_ray.scores.calibration import calibration as calibrated
from mrkd_ray.scores.classes import confused, row_parts

NONE = "–"


def write(found: Evaluation, model: Path, file: Path) -> None:
    """Draw the page and write it; it needs no network and no JavaScript."""
    write_text(file, render(found, model))


def render(found: Evaluation, model: Path) -> str:
    """Return the page."""
    report = found.report
    return template("evaluation.html.j2").render(
        model=str(model),
        report=report,
        metrics=metrics.shown(report["models"][0]),
        percent=_percent,
        figures=_figures(found),
    )


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _figures(found: Evaluation) -> list[Figure]:
    """Return confusions and reliability of each model; none where a clip has several labels."""
    if found.truth.ndim == 2:
        return []
    with look():
        matrices, reliable = [], []
        for name, scores in found.models.items():
            parts = row_parts(confused(scores, found.truth))
            shown = confusion.most_confused(parts)
            classes = [found.classes[i] for i in shown]
            drawing = confusion.draw(name, parts[np.ix_(shown, shown)], classes)
            matrices.append(Panel(drawing, f"confusion matrix of {name}"))
            curve = calibrated(scores, found.truth)
            before = calibrated(found.uncalibrated[name], found.truth)
            drawing = calibration.draw(name, {"": before}, {"": curve})
            errors = f"{100 * before.ece:.1f} before calibration, {100 * curve.ece:.1f} after"
            words = f"reliability of {name}: ECE {errors}"
            reliable.append(Panel(drawing, words))
        few = len(found.classes) > confusion.MOST
        part = f" The {confusion.MOST} classes that are confused most." if few else ""
        return [
            figure(
                "confusion",
                "Confusion matrices",
                "Rows are true classes, columns what was predicted, in percent of the row's "
                f"clips.{part}",
                matrices,
            ),
            figure(
                "reliability",
                "Reliability",
                f"How often predictions are right, in {BINS} bins of equal width by confidence. On "
                "the diagonal, confidence is what it says; below it, too high. Points are before "
                "the model's calibration. ECE is the mean distance from the diagonal, in points "
                "(Guo et al. 2017), before it and after.",
                reliable,
            ),
        ]
