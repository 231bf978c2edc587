"""What each branch of a cell is started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.label_experiments import keep_labels, with_noise
from mrkd_ray.datasets.splits import Split, rarest, without_part
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.training.branch_task import BranchTask, Part

Labels = Mapping[str, Any]
"""A row of `Dataset.labels` for each clip, by clip_id: a class index, or [M] of 0 and 1."""


def branch_tasks(cell: Cell, prepared: Prepared, gpus: float | None = None) -> list[BranchTask]:
    """Return what each branch of the cell is started with.

    Args:
        gpus: of one branch's actor; by default all branches share one card.
    """
    dataset, split = prepared.dataset, prepared.split(cell.fold)
    true = dict(zip((clip.clip_id for clip in dataset.clips), dataset.labels, strict=True))
    labels = training_labels(true, split, cell, len(dataset.classes))
    if cell.training.cross_fit:
        split = without_part(dataset, split, cell.training.cross_fit)
    labelled, unlabelled = labelled_and_not(dataset, split, cell)
    return [
        BranchTask(
            name=name,
            spec=spec,
            training=cell.training,
            store=prepared.stores[spec.representation],
            embeddings=_embeddings(cell, spec, prepared),
            neighbourhood=_frozen(cell, prepared) if cell.training.neighbours else (),
            classes=dataset.classes,
            train=_part(dataset, labelled, labels),
            held_out=_part(dataset, split.held_out, labels),
            test=_part(dataset, split.test, true),
            fold=cell.fold,
            seed=cell.seed,
            teachers=tuple((each, prepared.stores[each.representation]) for each in cell.teachers),
            unlabelled=unlabelled if cell.condition == "distilled" else (),
            more_windows=len(unlabelled),
            device=cell.device,
            threads=cell.threads,
            cpus=cell.cpus,
            cohort_cpus=cell.branch_cpus * len(cell.branches),
            gpus=1 / len(cell.branches) if gpus is None else gpus,
            window_memory=cell.window_memory,
            provenance={
                "cell": cell.key,
                "condition": cell.condition,
                "temperature": cell.temperature,
                "dataset": dataset.name,
                "dataset_fingerprint": dataset.fingerprint,
                **({"teachers": [each.name for each in cell.teachers]} if cell.teachers else {}),
                **({"event_seconds": dataset.event_seconds} if dataset.event_seconds else {}),
                **({"negatives": dataset.negatives} if dataset.negatives else {}),
            },
        )
        for name, spec in zip(cell.names, cell.branches, strict=True)
    ]


def training_labels(true: Labels, split: Split, cell: Cell, classes: int) -> Labels:
    """Return the labels that the cell trains on: a part of them is wrong under `label_noise`."""
    trained_on = {clip_id: true[clip_id] for clip_id in (*split.train, *split.held_out)}
    noise, kind = cell.training.label_noise, cell.training.label_noise_kind
    seed = [cell.seed, cell.fold]
    return {**true, **with_noise(trained_on, classes, noise, seed, kind)}


def labelled_and_not(
    dataset: Dataset, split: Split, cell: Cell
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide the training clips by whether the cell sees their labels (`labelled`).

    Returns:
        clip_ids with labels; clip_ids without, the data set's unlabelled clips last.
    """
    strata = rarest([dataset.by_id[clip_id] for clip_id in split.train])
    by_clip = dict(zip(split.train, strata, strict=True))
    kept = keep_labels(by_clip, cell.training.labelled, seed=[cell.seed, cell.fold])
    hidden = (clip_id for clip_id in split.train if clip_id not in kept)
    return (
        tuple(clip_id for clip_id in split.train if clip_id in kept),
        (*hidden, *(clip.clip_id for clip in dataset.unlabelled)),
    )


def _embeddings(cell: Cell, spec: BranchSpec, prepared: Prepared) -> tuple[FeatureStore, ...]:
    """Return the stores of the frozen representations that a branch learns to predict."""
    if cell.training.embedding_weight == 0 or REPRESENTATIONS[spec.representation].embedding:
        return ()
    return _frozen(cell, prepared)


def _frozen(cell: Cell, prepared: Prepared) -> tuple[FeatureStore, ...]:
    """Return the stores of the frozen representations of a cohort and its teachers, each once."""
    used = [branch.representation for branch in cell.branches]
    used += [teacher.representation for teacher in cell.teachers]
    names = dict.fromkeys(name for name in used if REPRESENTATIONS[name].embedding)
    return tuple(prepared.stores[name] for name in names)


def _part(dataset: Dataset, clip_ids: Sequence[str], labels: Labels) -> Part:
    """Return one side of the split."""
    rows = np.array([labels[clip_id] for clip_id in clip_ids], dtype=np.int64)
    unverified = (i for i, clip_id in enumerate(clip_ids) if not dataset.by_id[clip_id].verified)
    return Part(
        clip_ids=tuple(clip_ids),
        labels=rows.reshape(-1, *dataset.labels.shape[1:]),  # also where there are none
        unverified=tuple(unverified),
    )
