"""What keeps a run from being the paper's experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mrkd_ray.config.cpu_scale import STANDS_FOR
from mrkd_ray.config.method import PAPER, PRETRAINED_LR, SCRATCH_LR, Training
from mrkd_ray.report.grid_results import GridResults
from mrkd_ray.report.paper_tables import reported as paper

NOT_METHOD = ("cycles", "precision", "channels_last", "compile")
"""Fields of `Training` that say nothing of the method, or that epochs stand for."""


def warnings(results: GridResults, dataset: str) -> list[str]:
    """Say in which respects the run is not the paper's."""
    found = []
    measured_on = set(results.tidy["dataset"])
    if measured_on != {dataset}:
        found.append(
            f"the data set is {', '.join(sorted(measured_on))}, not {paper.DATASETS[dataset]}"
        )
    networks = {n for n in results.tidy["network"] if n}
    if small := sorted(n for n in networks if n in STANDS_FOR):
        listed = ", ".join(f"{n} for {paper.NETWORKS[STANDS_FOR[n]]}" for n in small)
        found.append(f"small networks stand for the paper's: {listed}")
    first = str(results.table["variant"].iloc[0])  # the one that the paper's table shows
    asked = results.asked(first)
    found += _settings(asked, scratch=bool(small))
    epochs = set(results.tidy.loc[results.tidy["variant"] == first, "epochs"])
    if epochs != {paper.EPOCHS}:
        found.append(f"{', '.join(map(str, sorted(epochs)))} epochs, not {paper.EPOCHS}")
    if not found:
        return []
    return [
        "Not the paper's experiment: " + "; ".join(found) + ". The measured figures cannot be "
        "compared with the reported ones in absolute terms; what can be compared is which way a "
        "difference goes, and how sure it is."
    ]


def _settings(config: Mapping[str, Any], scratch: bool) -> list[str]:
    """Name each setting that is not the paper's, or that it lacks and is not the default."""
    weights = config["weights"] or ("none" if scratch else "imagenet")
    lr = config["lr"] or (SCRATCH_LR if weights == "none" else PRETRAINED_LR)
    asked = {**config, "weights": weights, "lr": lr}
    theirs = {name: PAPER.get(name, info.default) for name, info in Training.model_fields.items()}
    theirs |= {"weights": "imagenet", "lr": PRETRAINED_LR}
    return [
        f"{name} {asked[name]}, not {value}" + " (the paper gives no alpha)" * (name == "mixup")
        for name, value in theirs.items()
        if name not in NOT_METHOD and asked.get(name, value) != value
    ]
