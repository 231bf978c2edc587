"""Accuracy over cost of a cascade: the cheapest branch first, the ensemble where it is not sure.

mrkd train --data data/esc10 --folds 1 --name esc10 \
    --branch logmel64:vgg_small --branch mfcc:vgg_small --branch cqt:resnet_small
python -m benchmarks.cascade results/esc10/cells/*      # one line for each least confidence

Of cells of the same branches: what these said of their test clips, and the multiplications that
each takes for a clip of 5 s, as `GET /model` of a server tells them. What a cascade says follows
from that: nothing is classified again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import describe
from mrkd_ray.cells.files import read_predictions
from mrkd_ray.common.arrays import Float32, Int64
from mrkd_ray.inference.latency import multiplications
from mrkd_ray.inference.model_folder import branch_folders
from mrkd_ray.scores.cascade import confidence
from mrkd_ray.scores.ensemble import mean_probabilities

SURE = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.01)
SECONDS = 5.0


@dataclass(frozen=True)
class Point:
    """At a least confidence: accuracy, the part of clips passed on, multiplications for a clip."""

    least: float
    accuracy: float
    passed_on: float
    cost: float


def points(scores: Mapping[str, Float32], labels: Int64, costs: Mapping[str, float]) -> list[Point]:
    """Return what a cascade gives at each least confidence.

    Args:
        scores: probabilities [n, M] of each branch.
        labels: [n].
        costs: of each branch.
    """
    order = sorted(scores, key=lambda name: (costs[name], name))
    first, whole = scores[order[0]], mean_probabilities([scores[name] for name in order])
    rest = sum(costs[name] for name in order[1:])
    found = []
    for least in SURE:
        on = ~(confidence(first, multi_label=False) >= least)
        said = np.where(on, whole.argmax(axis=1), first.argmax(axis=1))
        found.append(
            Point(
                least,
                float((said == labels).mean()),
                float(on.mean()),
                costs[order[0]] + float(on.mean()) * rest,
            )
        )
    return found


def main(cells: Sequence[str]) -> None:
    """Print the table of some cells' test clips together."""
    parts: dict[str, list[Float32]] = {}
    labels, costs = [], {}
    for cell in map(Path, cells):
        _, own, scores = read_predictions(cell)
        labels.append(own)
        for folder in branch_folders(cell):
            parts.setdefault(folder.name, []).append(scores[folder.name])
            costs[folder.name] = float(multiplications([folder], SECONDS))
    scores = {name: np.concatenate(each) for name, each in parts.items()}
    truth = np.concatenate(labels)
    found = describe("cascade")
    print(f"{found['date']}, {len(truth)} test clips of {len(cells)} cells")
    for name, each in scores.items():
        right = (each.argmax(axis=1) == truth).mean()
        print(f"{name}: {100 * right:.1f} %, {costs[name] / 1e6:.1f} M multiplications")
    print("least confidence: accuracy, passed on, M multiplications, of the ensemble's")
    whole = sum(costs.values())
    for point in points(scores, truth, costs):
        print(
            f"{point.least:g}: {100 * point.accuracy:.1f} %, {100 * point.passed_on:.0f} %, "
            f"{point.cost / 1e6:.1f}, {100 * point.cost / whole:.0f} %"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
