"""Figures of a running cell as gauges, for Ray's Prometheus endpoint and its dashboard."""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Gauge

TAGS = ("cell", "branch")


class Gauges:
    """Loss parts, accuracy and seconds of each phase, tagged by cell and branch.

    Prometheus shows them with Ray's prefix, for example
    `ray_mrkd_accuracy{cell="...",branch="logmel64-resnet_small"}`.
    """

    def __init__(self, cell: str) -> None:
        self._cell = cell
        self._gauges = {
            "cycle": Gauge("mrkd_cycle", "Cycles that are finished", TAGS),
            "loss_ce": Gauge("mrkd_loss_ce", "L_ce of single branch training (Eq. 1)", TAGS),
            "loss_distil_ce": Gauge("mrkd_loss_distil_ce", "L_ce of distillation (Eq. 5)", TAGS),
            "loss_distil_kl": Gauge("mrkd_loss_distil_kl", "L_kl of distillation (Eq. 4)", TAGS),
            "accuracy": Gauge("mrkd_accuracy", "Accuracy on the test clips, 0 to 1", TAGS),
            "map3": Gauge("mrkd_map3", "mAP@3 on the test clips, 0 to 1", TAGS),
            "balanced_accuracy": Gauge("mrkd_balanced_accuracy", "Mean recall, 0 to 1", TAGS),
            "macro_f1": Gauge("mrkd_macro_f1", "Mean F1 of the classes, 0 to 1", TAGS),
            "map": Gauge("mrkd_map", "mAP on the test clips, multi-label, 0 to 1", TAGS),
            "lwlrap": Gauge("mrkd_lwlrap", "lwlrap on the test clips, multi-label, 0 to 1", TAGS),
        }
        self._seconds = Gauge("mrkd_phase_seconds", "Seconds of one phase", (*TAGS, "phase"))

    def report(self, rows: list[dict[str, Any]]) -> None:
        """Set the gauges from one cycle's figures, a row a branch."""
        for row in rows:
            tags = {"cell": self._cell, "branch": row["branch"]}
            for name, gauge in self._gauges.items():
                if name in row:
                    gauge.set(row[name], tags)
            for name, value in row.items():
                if name.startswith("seconds_"):
                    self._seconds.set(value, {**tags, "phase": name.removeprefix("seconds_")})
