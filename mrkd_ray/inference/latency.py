"""How long a model takes for a clip."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.inference.classifier import BranchModel, Classifier
from mrkd_ray.representations.spectra import one_thread

TRIES = 15  # of which the shortest counts: other work on the machine only adds to it


def milliseconds(folders: Sequence[Path], seconds: float) -> float:
    """Return the least time that a model takes for a clip, on one CPU thread.

    From the waveform to probabilities, the representations included: of a model that is loaded,
    without decoding a file.

    Args:
        folders: of its branches; several are an ensemble.
        seconds: the clip's length.

    Raises:
        UserError: as `read_model`.
    """
    classifier = Classifier([BranchModel(folder, torch.device("cpu")) for folder in folders])
    rate = classifier.branches[0].sample_rate
    noise = np.random.default_rng(0).normal(0, 0.1, max(1, round(seconds * rate)))
    waveform = noise.astype(np.float32)
    with one_thread():
        classifier.branches_of(Recording(waveform, rate))  # builds what is built once
        took = []
        for _ in range(TRIES):
            began = time.perf_counter()
            classifier.branches_of(Recording(waveform, rate))
            took.append(time.perf_counter() - began)
    return 1000 * min(took)
