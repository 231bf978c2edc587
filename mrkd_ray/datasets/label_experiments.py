"""Labels changed or hidden on purpose: wrong ones, and fewer."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np


def wrong_count(noise: float, clips: int) -> int:
    """Return how many of the clips get another label."""
    return round(noise * clips)


def kept_count(part: float, clips: int) -> int:
    """Return how many of a class's clips keep their label: one at least."""
    return max(1, round(part * clips))


def with_noise(
    labels: Mapping[str, int],
    classes: int,
    noise: float,
    seed: Sequence[int],
    kind: Literal["any", "next"] = "any",
) -> dict[str, int]:
    """Return the labels by clip_id with a part of them replaced by another class each.

    The same clips for the same seed, in any order, whatever the kind.

    Args:
        kind: any: every other class is as likely. next: the next class, after the last the first
            (pair flips: Han et al., Co-teaching, NeurIPS 2018).
    """
    rng = np.random.default_rng([*seed, zlib.crc32(b"label noise")])
    clip_ids = sorted(labels)
    chosen = rng.permutation(len(clip_ids))[: wrong_count(noise, len(clip_ids))]
    shifts = rng.integers(1, classes if kind == "any" else 2, len(chosen))
    changed = {
        clip_ids[i]: (labels[clip_ids[i]] + int(shift)) % classes
        for i, shift in zip(chosen, shifts, strict=True)
    }
    return {**labels, **changed}


def keep_labels(labels: Mapping[str, str], part: float, seed: Sequence[int]) -> set[str]:
    """Return the clip_ids that keep their label: a part of each class, one clip at least.

    The same clips for the same seed, in any order; a smaller part is in every larger one.
    """
    rng = np.random.default_rng([*seed, zlib.crc32(b"labelled")])
    clip_ids = sorted(labels)
    left = {label: kept_count(part, n) for label, n in Counter(labels.values()).items()}
    kept = set()
    for clip_id in (clip_ids[i] for i in rng.permutation(len(clip_ids))):
        if left[labels[clip_id]] > 0:
            left[labels[clip_id]] -= 1
            kept.add(clip_id)
    return kept
