"""How long a model takes for a clip."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.inference.classifier import BranchModel, Classifier
from mrkd_ray.representations.spectra import one_thread

TRIES = 15  # of which the shortest counts: other work on the machine only adds to it


def multiplications(folders: Sequence[Path], seconds: float) -> int:
    """Return the multiplications that a model takes for a clip.

    Those of convolutions and matrix products: of the networks, a frozen one included, and of the
    front-ends' filters; not of Fourier transforms. What branches share counts once.

    Args:
        folders, seconds: as of `milliseconds`.

    Raises:
        UserError: as `read_model`.
    """
    branches = [BranchModel(folder, torch.device("cpu")) for folder in folders]
    rate = branches[0].sample_rate
    recording = Recording(np.zeros(max(1, round(seconds * rate)), np.float32), rate)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        heard = Classifier(branches).heard(recording)
    operations: int = counter.get_total_flops()
    for branch in branches:
        windows = branch.windows([heard])
        clip, starts = windows.even_starts(np.zeros(1, np.int64))
        (window,) = windows.batches(clip[:1], starts[:1], 1)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            branch.model.network(window)
        operations += len(starts) * counter.get_total_flops()
    return int(operations) // 2  # one of two is an addition


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
            began = time.process_time()
            classifier.branches_of(Recording(waveform, rate))
            took.append(time.process_time() - began)
    return 1000 * min(took)
