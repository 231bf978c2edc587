"""Score a trained model on labelled audio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mrkd_ray.audio.decoding import AudioError
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.progress import Display, say
from mrkd_ray.datasets.base import Clip, encode
from mrkd_ray.datasets.checking.scan import digest
from mrkd_ray.datasets.events import SHORTEST
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.inference.classifier import load
from mrkd_ray.inference.threads import of_files
from mrkd_ray.scores import metrics
from mrkd_ray.scores.ensemble import mean_probabilities


def evaluate(
    model: Path, data: str, cache: Path, *, skip_bad: bool = False, negatives: str | None = None
) -> dict[str, Any]:
    """Score a branch, or a cell's branches and their ensemble.

    Clips that it was trained on, known by their bytes, are left out: on its own data set that
    leaves the test clips of its fold.

    Returns:
        data, clips (scored), trained_on and skipped (left out), and models: name, accuracy, map3,
        balanced_accuracy and macro_f1 in [0, 1]; of a multi-label model map and lwlrap.

    Raises:
        UserError: no model, unknown labels, a clip that cannot be decoded (unless skip_bad).
    """
    from rich.console import Console

    classifier = load(model)
    console = Console(stderr=True)
    window = classifier.config.get("event_seconds", SHORTEST)  # the clips that it was trained on
    dataset = open_dataset(data, cache, window=window, negatives=negatives)
    for note in dataset.notes:
        say(console, f"note: {note}")
    if dataset.multi_label != classifier.multi_label:
        kinds = ("one label", "several labels")
        raise UserError(
            f"{data}: its clips have {kinds[dataset.multi_label]} each, the model's have "
            f"{kinds[classifier.multi_label]}. A column `labels` in a csv says that it is several."
        )
    unknown = sorted(set(dataset.classes) - set(classifier.classes))
    if unknown:
        raise UserError(
            f"{data}: the model does not know the labels {', '.join(unknown[:10])}; "
            f"it was trained on {', '.join(classifier.classes)}."
        )

    def score(clip: Clip) -> Float32 | None:
        try:
            known = digest(clip.path, clip.stretch) in classifier.trained_on
        except AudioError as error:
            raise UserError(f"{clip.path}: {clip.clip_id} cannot be classified: {error}") from None
        return None if known else classifier.predict_branches(clip.path, clip.stretch)

    scores, labels = [], []
    skipped = trained_on = 0
    with Display(console) as display:
        show = display.step("Classifying")
        show(0, len(dataset.clips))
        for done, found in enumerate(of_files(score, dataset.clips, lambda clip: clip.path), 1):
            if isinstance(found, Exception):
                if not skip_bad:
                    raise UserError(f"{found} (--skip-bad leaves such clips out)")
                skipped += 1
            elif found is None:
                trained_on += 1
            else:
                scores.append(found)
                labels.append(dataset.clips[done - 1].labels)
            show(done, len(dataset.clips))
    if not scores:
        raise UserError(
            f"{data}: no clip to score: the model was trained on {trained_on} of them, and "
            f"{skipped} cannot be read."
        )
    branches = np.stack(scores, axis=1)  # [branches, clips, classes]
    models = dict(zip(classifier.names, branches, strict=True))
    if len(models) > 1:
        models["ensemble"] = mean_probabilities(branches)
    truth = encode(labels, classifier.classes, classifier.multi_label)
    return {
        "data": data,
        "clips": len(labels),
        "skipped": skipped,
        "trained_on": trained_on,
        "models": [{"model": name, **metrics.measure(p, truth)} for name, p in models.items()],
    }
