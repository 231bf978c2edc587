"""Score a trained model on labelled audio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mrkd_ray import metrics
from mrkd_ray.classifier import Classifier, load
from mrkd_ray.config import Run
from mrkd_ray.datasets import Dataset, open_dataset
from mrkd_ray.datasets.splits import make_splits
from mrkd_ray.errors import UserError
from mrkd_ray.progress import Display


def evaluate(model: Path, config: Run) -> dict[str, Any]:
    """Score a branch, or a cell's branches and their ensemble.

    On the data set that the model was trained on, only its own fold's test clips count, unless
    folds are asked for; on any other data set all clips do.

    Returns:
        data, clips, which (which clips and why), and models: name, accuracy, map3 in [0, 1].

    Raises:
        UserError: no model, unknown labels, a clip that cannot be decoded (unless skip_bad).
    """
    from rich.console import Console

    classifier = load(model)
    dataset = open_dataset(config.data, config.cache)
    unknown = sorted(set(dataset.classes) - set(classifier.classes))
    if unknown:
        raise UserError(
            f"{config.data}: the model does not know the labels {', '.join(unknown[:10])}; "
            f"it was trained on {', '.join(classifier.classes)}."
        )
    clip_ids, which = _choose(classifier, dataset, config)
    scores, labels = [], []
    skipped = 0
    with Display(Console(stderr=True)) as display:
        show = display.step("Classifying")
        for done, clip_id in enumerate(clip_ids):
            clip = dataset.by_id[clip_id]
            try:
                scores.append(classifier.predict_branches(clip.path))
            except UserError:
                if not config.skip_bad:
                    raise
                skipped += 1
            else:
                labels.append(classifier.classes.index(clip.label))
            show(done + 1, len(clip_ids))
    if not scores:
        raise UserError(f"{config.data}: no clip could be classified.")
    branches = np.stack(scores, axis=1)  # [branches, clips, classes]
    models = dict(zip(classifier.names, branches, strict=True))
    if len(models) > 1:
        models["ensemble"] = branches.astype(np.float64).mean(axis=0)
    truth = np.array(labels)
    return {
        "data": config.data,
        "clips": len(labels),
        "skipped": skipped,
        "which": which,
        "models": [
            {
                "model": name,
                "accuracy": metrics.accuracy(p, truth),
                "map3": metrics.map_at_3(p, truth),
            }
            for name, p in models.items()
        ],
    }


def _choose(classifier: Classifier, dataset: Dataset, config: Run) -> tuple[tuple[str, ...], str]:
    everything = tuple(clip.clip_id for clip in dataset.clips)
    if config.folds != "all":
        splits = make_splits(dataset, list(config.folds), config.split_seed)
        numbers = ",".join(str(split.fold) for split in splits)
        chosen = {clip_id for split in splits for clip_id in split.test}
        return tuple(c for c in everything if c in chosen), f"the test clips of fold(s) {numbers}"
    if dataset.fingerprint != classifier.config["dataset_fingerprint"]:
        return everything, "all of them; another data set than the model was trained on"
    fold = int(classifier.config["fold"])
    (split,) = make_splits(dataset, [fold], int(classifier.config["split_seed"]))
    return split.test, f"the test clips of fold {fold}, which the model was not trained on"
