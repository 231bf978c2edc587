"""Figures of a run as gauges, for Prometheus; `deploy/grafana/mrkd.json` shows them."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Iterable, Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

TAGS = ("grid", "cell", "branch")


class Gauges:
    """Of a cell: loss parts, scores and seconds of each phase, tagged by grid, cell and branch.

    Prometheus shows them with Ray's prefix, for example
    `ray_mrkd_accuracy{grid="demo",cell="...",branch="logmel64-resnet_small"}`.

    Args:
        grid: name of the grid's folder.
        cell: its key.
    """

    def __init__(self, grid: str, cell: str) -> None:
        self._tags = {"grid": grid, "cell": cell}
        self._gauges = {
            "cycle": Gauge("mrkd_cycle", "Cycles that are finished", TAGS),
            "loss_ce": Gauge("mrkd_loss_ce", "L_ce of single branch training (Eq. 1)", TAGS),
            "loss_distil_ce": Gauge("mrkd_loss_distil_ce", "L_ce of distillation (Eq. 5)", TAGS),
            "loss_distil_kl": Gauge("mrkd_loss_distil_kl", "L_kl of distillation (Eq. 4)", TAGS),
            "teacher_entropy": Gauge("mrkd_teacher_entropy", "Of the teacher, in nats", TAGS),
            "accuracy": Gauge("mrkd_accuracy", "Accuracy on the test clips, 0 to 1", TAGS),
            "map3": Gauge("mrkd_map3", "mAP@3 on the test clips, 0 to 1", TAGS),
            "balanced_accuracy": Gauge("mrkd_balanced_accuracy", "Mean recall, 0 to 1", TAGS),
            "macro_f1": Gauge("mrkd_macro_f1", "Mean F1 of the classes, 0 to 1", TAGS),
            "map": Gauge("mrkd_map", "mAP on the test clips, multi-label, 0 to 1", TAGS),
            "lwlrap": Gauge("mrkd_lwlrap", "lwlrap on the test clips, multi-label, 0 to 1", TAGS),
        }
        self._seconds = Gauge("mrkd_phase_seconds", "Seconds of one phase", (*TAGS, "phase"))
        self._speed = Gauge("mrkd_windows_per_second", "Windows trained a second", TAGS)
        of_cell = ("grid", "cell")
        self._barrier = Gauge("mrkd_barrier_seconds", "Waiting for a cycle's branches", of_cell)
        self._agreement = Gauge("mrkd_agreement", "Equal predictions of two branches", of_cell)
        self._exchanged = Counter("mrkd_exchange_bytes", "Soft labels and teachers", of_cell)

    def report(self, rows: list[dict[str, Any]], windows: int) -> None:
        """Set the gauges from one cycle's figures, a row a branch; `windows` were trained on."""
        for row in rows:
            tags = {**self._tags, "branch": row["branch"]}
            for name, gauge in self._gauges.items():
                if name in row:
                    gauge.set(row[name], tags)
            for name, value in row.items():
                if name.startswith("seconds_"):
                    self._seconds.set(value, {**tags, "phase": name.removeprefix("seconds_")})
            seconds = row.get("seconds_train", 0.0) + row.get("seconds_distil", 0.0)
            if seconds:
                self._speed.set(windows / seconds, tags)

    def report_exchange(self, barrier: float, agreement: float | None, exchanged: int) -> None:
        """Set what is of the cohort: seconds, a part of the test clips, and bytes of this cycle."""
        self._barrier.set(barrier, self._tags)
        if agreement is not None:
            self._agreement.set(agreement, self._tags)
        if exchanged:
            self._exchanged.inc(exchanged, self._tags)


class GridGauges:
    """Of a grid, in the driver: how many cells are in which state, and how long it will take.

    Args:
        grid: name of its folder.
    """

    STATES: Mapping[str, str] = {
        "PENDING": "waiting",
        "PAUSED": "waiting",
        "RUNNING": "running",
        "TERMINATED": "done",
        "ERROR": "failed",
    }

    def __init__(self, grid: str) -> None:
        self._tags = {"grid": grid}
        self._cells = Gauge("mrkd_cells", "Cells in a state", ("grid", "state"))
        self._left = Gauge("mrkd_seconds_left", "Until all cells have ended", ("grid",))
        self._first: tuple[float, float] | None = None
        self._counted: Counts[str] = Counts()

    def report(self, cells: Iterable[tuple[str, float, int]], failed: int) -> None:
        """Set the gauges.

        Args:
            cells: Tune's status of each, the part of its cycles that is done, and its cycles.
            failed: how many of those that have ended did not finish.
        """
        cells = list(cells)
        counted = Counts(self.STATES[status] for status, _, _ in cells)
        counted["done"] -= failed
        counted["failed"] += failed
        if counted != self._counted:
            self._counted = counted
            for state in sorted(set(self.STATES.values())):
                self._cells.set(counted[state], {**self._tags, "state": state})
        now, done = time.monotonic(), sum(part * cycles for _, part, cycles in cells)
        left = sum(
            (1 - part) * cycles
            for status, part, cycles in cells
            if self.STATES[status] in ("waiting", "running")
        )
        if self._first is None:
            self._first = now, done
        since, before = self._first
        if done > before:
            self._left.set(left * (now - since) / (done - before), self._tags)
