"""The cells of the report's tables: figures, differences and what is significant, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any, Literal

from mrkd_ray.results import printed_table
from mrkd_ray.scores.intervals import Mark

BoxKind = Literal["stub", "reported"] | Mark
MetricName = str  # the name of one of `metrics`
Row = Mapping[Any, Any]  # of table.csv
SCORES: tuple[MetricName, MetricName] = ("accuracy", "map3")  # the paper's
NAMES = {
    "accuracy": "Accuracy",
    "map3": "mAP@3",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "map": "mAP",
    "lwlrap": "lwlrap",
}
NONE = "–"


@dataclass(frozen=True)
class Box:
    """One cell of a table: a text, a smaller one below it, and how far it reaches."""

    text: str
    small: str = ""
    rows: int = 1
    columns: int = 1
    kind: BoxKind = ""


@dataclass(frozen=True)
class Table:
    """A table as the page shows it.

    Attributes:
        id: for HTML, unique in the report.
        head: rows of headings.
        groups: of each, the rows; `stub` boxes head a row.
        notes: what must be known to read it.
        warnings: why measured figures cannot stand for the paper's.
        wide: whether it takes a page across on paper.
    """

    id: str
    title: str
    caption: str
    head: Sequence[Sequence[Box]]
    groups: Sequence[Sequence[Sequence[Box]]]
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    wide: bool = False

    @property
    def columns(self) -> int:
        """How many it has."""
        return max(sum(box.columns for box in row) for group in self.groups for row in group)


def as_reported(value: float, rows: int = 1) -> Box:
    """Return a figure of the paper, two digits as printed there."""
    return Box(f"{value:.2f}", rows=rows, kind="reported")


def mean(row: Row | None, name: str) -> Box:
    """Return `mean ± standard deviation` of a column; `–` where there is none."""
    if row is None or isnan(row[name]):
        return Box(NONE)
    deviation = row[f"{name}_sd"]
    return Box(f"{row[name]:.1f}" + ("" if isnan(deviation) else f" ± {deviation:.1f}"))


def difference(row: Row | None, score: MetricName) -> Box:
    """Return distilled minus independent, its interval below, and the mark `ns`."""
    if row is None or not (found := printed_table.interval(row, f"{score}_difference")).mark:
        return Box(NONE)
    text = found.mean_text + " ns" * (found.mark == "ns")
    return Box(minus(text), minus(found.ends_text), kind=found.mark)


def with_difference(row: Row | None, score: MetricName) -> Box:
    """A distilled figure with the difference below it."""
    value, change = mean(row, f"{score}_distilled"), difference(row, score)
    if change.text == NONE:
        return value
    return replace(value, small=f"{change.text}\n{change.small}", kind=change.kind)


def minus(text: str) -> str:
    """Return figures with the minus of a page."""
    return text.replace("-", "−")
