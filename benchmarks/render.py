"""From benchmarks/results/*.json to docs/explanation/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, ROOT, Result, Row

DOCUMENT = ROOT / "docs" / "explanation" / "performance.md"
ORDER = (
    "representations",
    "frontend_error",
    "epoch",
    "bf16_accuracy",
    "autrainer",
    "mutual",
    "cohort_overhead",
    "exchange",
    "overlap",
    "grid",
    "plan",
    "startup",
    "first_second",
    "inference",
    "programs",
    "many_files",
    "many_clips",
    "checkpoint",
    "long_recordings",
    "gpu",
)
SHOWN = ("ray", "torch")  # packages whose version stands below each table
HEAD = """# Performance, measured side by side

Each section compares two sides that took turns on one machine. A value is the ratio of their
medians. A row without a second side has a time or a size. The brackets hold the smallest and the
largest value of a pair of runs. This page is made by

```sh
pip install -e ".[bench]"
python -m benchmarks            # all; or some by name: python -m benchmarks startup exchange
```

from `benchmarks/results/*.json`, which hold the value of every run and the version of every
package. Where a target is not reached, a line below the table says what limits it.
"""


def write(results: Path = RESULTS, document: Path = DOCUMENT) -> None:
    """Render all results in a folder into the document."""
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(render(read(results)))


def read(folder: Path) -> list[Result]:
    """Return the results in a folder, in the document's order; files of others are left out."""
    paths = {path.stem: path for path in folder.glob("*.json")}
    return [Result.model_validate_json(paths[name].read_text()) for name in ORDER if name in paths]


def render(results: Sequence[Result]) -> str:
    """Return the document."""
    if not results:
        return HEAD + "\nNothing is measured yet.\n"
    return "\n".join([HEAD, _overview(results), *map(_section, results)])


def _overview(results: Sequence[Result]) -> str:
    rows = [row for result in results for row in result.rows if row.target is not None]
    reached = sum(row.reached is True for row in rows)
    return f"{reached} of {len(rows)} targets are reached.\n"


def _section(result: Result) -> str:
    lines = [f"## {result.title}", "", result.how, ""]
    expected = any(row.expected is not None for row in result.rows)
    titles = ["what", "ours", "beside it", "value", *(["expected"] * expected), "target", ""]
    lines += [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    lines += [_line(row, expected) for row in result.rows]
    missed = [row for row in result.rows if row.reached is False and row.limits]
    lines += ["", *(f"Not reached, {row.what}: {row.limits}\n" for row in missed)]
    lines += [f"{note}\n" for note in result.notes]
    lines += [f"*{_where(result.environment)}*", ""]
    return "\n".join(lines)


def _line(row: Row, expected: bool) -> str:
    low, high = min(row.values), max(row.values)
    value = f"**{_number(row.value)}** [{_number(low)}, {_number(high)}]"
    ours = f"{_number(median(row.ours))} {row.unit}" if row.peer else ""
    peer = f"{_number(median(row.peer))} {row.unit} ({row.peer_is})" if row.peer else row.peer_is
    if not row.peer:
        value += f" {row.unit}"
    target = "" if row.target is None else f"{'≤' if row.at_most else '≥'} {row.target:g}"
    verdict = {None: "", True: "reached", False: "not reached"}[row.reached]
    before = "" if row.expected is None else _number(row.expected)
    cells = [row.what, ours, peer, value, *([before] * expected), target, verdict]
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


def _where(found: dict[str, Any]) -> str:
    """One line: command, day, hardware, Python, Ray's and PyTorch's versions, commit."""
    packages = found.get("packages", {})
    shown = ", ".join(f"{name} {packages[name]}" for name in SHOWN if packages.get(name))
    gpus = f", {', '.join(found['gpus'])}" if found.get("gpus") else ""
    return (
        f"`{found.get('command')}`, {str(found.get('date'))[:10]}, {found.get('cpus')} CPUs of "
        f"{found.get('processor')}{gpus}, Python {found.get('python')}, {shown}, "
        f"commit {str(found.get('commit'))[:12]}"
    )
