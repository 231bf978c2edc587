"""What each process of a cohort did, and when: a recorder, a trace for viewers, a summary.

Every span is kept, profile or not: a few numbers a phase. Only `--profile` writes them down, as
`profile.json` in the cell's folder, in Chrome's trace event format, which Perfetto
(ui.perfetto.dev) and chrome://tracing open. Times are those of the nodes' clocks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mrkd_ray.common.files import write_text
from mrkd_ray.common.reading import Damaged, read_json

SHARE_OF = {
    **dict.fromkeys(("train", "soft_labels", "distil"), "compute"),
    **dict.fromkeys(("held_out_accuracy", "evaluate"), "evaluate"),
}
SHARES = ("start", "compute", "evaluate", "checkpoint", "barrier", "exchange", "other")


@dataclass(frozen=True)
class Span:
    """Something that took time: its name, its begin in seconds since 1970, its seconds."""

    name: str
    begin: float
    seconds: float

    @property
    def end(self) -> float:
        """Seconds since 1970."""
        return self.begin + self.seconds


class Recorder:
    """Spans of one process, in the order in which they ended."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Record how long the block takes, also when it fails."""
        begin, clock = time.time(), time.perf_counter()
        try:
            yield
        finally:
            self.spans.append(Span(name, begin, time.perf_counter() - clock))

    def take(self) -> list[Span]:
        """Return the spans so far and forget them."""
        spans, self.spans = self.spans, []
        return spans


Rows = Mapping[str, Sequence[Span]]
"""Spans of each row of the timeline: the branches by name, the aggregator, the coordinator."""


def write_trace(path: Path, rows: Rows) -> None:
    """Write Chrome trace events: one row (thread) each, times and durations in microseconds."""
    events: list[dict[str, Any]] = []
    for number, (row, spans) in enumerate(rows.items()):
        place = {"pid": 1, "tid": number}
        events.append({"ph": "M", "name": "thread_name", **place, "args": {"name": row}})
        events += [
            {
                "ph": "X",
                "name": span.name,
                "cat": "mrkd",
                "ts": round(span.begin * 1e6),
                "dur": round(span.seconds * 1e6),
                **place,
            }
            for span in spans
        ]
    write_text(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}) + "\n")


def read_trace(path: Path) -> dict[str, list[Span]]:
    """Return the rows that `write_trace` wrote, to the microsecond. Raises Damaged."""
    events = read_json(path, "traceEvents")["traceEvents"]
    try:
        names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
        rows: dict[str, list[Span]] = {name: [] for name in names.values()}
        for event in events:
            if event["ph"] == "X":
                span = Span(event["name"], event["ts"] / 1e6, event["dur"] / 1e6)
                rows[names[event["tid"]]].append(span)
    except (KeyError, TypeError) as error:
        raise Damaged(path, f"not a timeline ({error})") from None
    return rows


def summary(branches: Rows) -> dict[str, float]:
    """Return where the branches' time went, as shares that sum to 1 (0 each without spans).

    compute is training, soft labels and distillation; evaluate includes the accuracy on held-out
    clips, where the average is weighted. What a branch waits for its teacher is barrier until the
    last branch is ready, exchange from then on; other is between cycles.

    Args:
        branches: the rows of one cell's branches, without the aggregator and the coordinator.
    """
    spent = dict.fromkeys(SHARES, 0.0)
    ready = [
        [before.end for before, span in pairwise(row) if span.name == "distil"]
        for row in branches.values()
    ]
    last_ready = [max(ends) for ends in zip(*ready, strict=False)]
    for row in branches.values():
        waits = iter(last_ready)
        for before, span in zip((None, *row), row, strict=False):
            spent[SHARE_OF.get(span.name, span.name)] += span.seconds
            if before is None:
                continue
            gap = max(0.0, span.begin - before.end)
            if span.name == "distil":
                barrier = min(gap, max(0.0, next(waits) - before.end))
                spent["barrier"] += barrier
                spent["exchange"] += gap - barrier
            else:
                spent["other"] += gap
    total = sum(spent.values())
    return {name: seconds / total if total else 0.0 for name, seconds in spent.items()}
