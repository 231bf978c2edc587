"""The cells of the report's tables: figures, differences and what is significant, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any, Literal

Kind = Literal["", "stub", "reported", "higher", "lower", "ns"]
MetricName = str  # the name of one of `metrics`
Row = Mapping[Any, Any]  # of table.csv
SCORES: tuple[MetricName, MetricName] = ("accuracy", "map3")  # the paper's
NAMES = {"accuracy": "Accuracy", "map3": "mAP@3", "map": "mAP", "lwlrap": "lwlrap"}
NONE = "–"


@dataclass(frozen=True)
class Box:
    """One cell of a table: a text, a smaller one below it, and how far it reaches."""

    text: str
    small: str = ""
    rows: int = 1
    columns: int = 1
    kind: Kind = ""


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


def significance(row: Row, score: MetricName) -> Kind:
    """Return whether the distilled model is `higher` or `lower` than the independent one.

    `ns`, not significant, where the 95% interval holds 0; "" where there is no comparison.
    """
    if isnan(row[f"{score}_difference"]):
        return ""
    low, high = (round(row[f"{score}_difference{end}"], 9) for end in ("_low", "_high"))
    return "higher" if low > 0 else "lower" if high < 0 else "ns"  # 1e-17 is 0


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
    if row is None or not (kind := significance(row, score)):
        return Box(NONE)
    mean, low, high = (row[f"{score}_difference{part}"] for part in ("", "_low", "_high"))
    if kind == "ns":
        return Box(f"{signed(mean, 1)} ns", f"[{_number(low, 1)}, {_number(high, 1)}]", kind=kind)
    digits = 1 if round(low, 1) and round(high, 1) else 2  # an end that is not 0 does not read 0.0
    return Box(signed(mean, 1), f"[{_number(low, digits)}, {_number(high, digits)}]", kind=kind)


def with_difference(row: Row | None, score: MetricName) -> Box:
    """A distilled figure with the difference below it."""
    value, change = mean(row, f"{score}_distilled"), difference(row, score)
    if change.text == NONE:
        return value
    return replace(value, small=f"{change.text}\n{change.small}", kind=change.kind)


def _number(value: float, digits: int) -> str:
    rounded = round(value, digits) + 0.0  # no "-0.0"
    return f"{rounded:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int) -> str:
    """Return a difference with its sign, such as `+1.2` and `−0.4`."""
    text = _number(value, digits)
    return text if text.startswith("−") else f"+{text}"
