"""What `mrkd evaluate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mrkd_ray.common.text import printable
from mrkd_ray.inference.evaluate import Evaluation
from mrkd_ray.scores import metrics

if TYPE_CHECKING:
    from rich.console import Console

CONFUSED = 5  # pairs of classes that are named


def show(found: Evaluation, console: Console) -> None:
    """Print each model's scores; of the last one (the ensemble) those of each class."""
    from rich.table import Table

    report = found.report
    left_out = f"{report['trained_on']} that it was trained on and {report['skipped']} bad ones"
    lines = [f"{report['clips']} clips of {report['data']}; left out {left_out}"]
    for row in report["models"]:
        figures = [f"{m.title} {100 * row[m.name]:.2f} %" for m in metrics.shown(row)]
        if "ece" in row:
            before, after = 100 * row["ece_uncalibrated"], 100 * row["ece"]
            calibrated = f", {before:.1f} before calibration" if row["calibration"]["clips"] else ""
            figures.append(f"calibration error {after:.1f} points{calibrated}")
        if row["none"]:
            figures.append(f"none of the classes in {100 * row['none']:.1f} % of the clips")
        lines.append(f"{row['model']}: {', '.join(figures)}")
    last = report["models"][-1]
    table = Table(title=printable(f"Classes, {last['model']}"), title_justify="left")
    table.add_column("class")
    for name in ("clips", "precision, %", "recall, %", "F1, %", "average precision, %"):
        table.add_column(name, justify="right")
    for each in last["classes"]:
        values = (each[name] for name in ("precision", "recall", "f1", "average_precision"))
        table.add_row(printable(each["class"]), str(each["clips"]), *map(_percent, values))
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
    console.print(table, markup=False)
    for line in _confused(last):
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _confused(row: dict[str, Any]) -> list[str]:
    """Return lines on the pairs of classes that are confused most, the most frequent first."""
    names = [each["class"] for each in row["classes"]]
    pairs = [
        (count, names[i], names[j])
        for i, counts in enumerate(row.get("confusion", ()))
        for j, count in enumerate(counts)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: -pair[0])
    return [f"{count} x {true} taken for {said}" for count, true, said in pairs[:CONFUSED]]
