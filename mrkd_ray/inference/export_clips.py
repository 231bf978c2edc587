"""The recordings that an exported program is compared with its model on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mrkd_ray.audio.decoding import AudioError, load
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import Damaged
from mrkd_ray.config.grid_files import read_written
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.checking.scan import digest
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.noise import noises
from mrkd_ray.inference.program_export import Clips

MOST = 24
MOST_INT8 = 200  # whose accuracy is told


def clips_for(
    classifier: Classifier, model: Path, data: str | None, cache: Path, *, int8: bool
) -> Clips:
    """Return clips that the model was not trained on: of `data`, else of its run, else noise.

    Args:
        model: where the classifier was loaded from.
        data: as of `--data`.
        cache: where the embedded data set lies.
        int8: more of them.

    Raises:
        UserError: `data` was given and cannot be opened, or holds no such clip.
    """
    if data is not None:
        dataset: Dataset | None = open_dataset(data, cache)
    else:
        try:
            data = _data_of_run(model)
            dataset = open_dataset(data, cache) if data else None
        except (UserError, OSError, Damaged):  # the run's data is not here
            dataset = None
    if dataset is None:
        return Clips("sounds made here (no data: --data)", list(noises(5.0).values()))
    found = list(_unheard(dataset, classifier, MOST_INT8 if int8 else MOST))
    if not found:
        raise UserError(f"{data}: no clip that can be read and that the model was not trained on")
    recordings = [load(clip.path, clip.stretch) for clip in found]
    known = all(len(c.labels) == 1 and c.labels[0] in classifier.classes for c in found)
    labels = [classifier.classes.index(clip.labels[0]) for clip in found] if known else None
    return Clips(f"clips of {data}", recordings, None if classifier.multi_label else labels)


def _unheard(dataset: Dataset, classifier: Classifier, most: int) -> Iterator[Clip]:
    count = 0
    for place in np.random.default_rng(0).permutation(len(dataset.clips)):
        clip = dataset.clips[int(place)]
        try:
            new = digest(clip.path, clip.stretch) not in classifier.trained_on
        except (AudioError, OSError):
            continue
        if new and count < most:
            count += 1
            yield clip
        elif count == most:
            return


def _data_of_run(model: Path) -> str | None:
    """Return the data that the run of a model was trained on; None where it has no run."""
    for folder in (model, *model.absolute().parents):
        if (folder / "grid.yaml").is_file() and (folder / "cells").is_dir():
            return str(read_written(folder / "grid.yaml")["data"])
    return None
