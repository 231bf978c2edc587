"""What each branch of a cell is started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrkd_ray.cells.cell import Cell
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.label_experiments import keep_labels, with_noise
from mrkd_ray.datasets.splits import Split, rarest
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.training.branch_task import BranchTask, Part


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked data set with its splits and features: what every cell of a grid shares."""

    dataset: Dataset
    splits: tuple[Split, ...]
    stores: Mapping[str, FeatureStore]
    content: str  # hash of labels, splits and the bytes of all labelled clips


def branch_tasks(cell: Cell, prepared: Prepared, gpus: float | None = None) -> list[BranchTask]:
    """Return what each branch of the cell is started with.

    Args:
        gpus: of one branch's actor; by default all branches share one card.
    """
    dataset = prepared.dataset
    (split,) = (split for split in prepared.splits if split.fold == cell.fold)
    true = dict(zip((clip.clip_id for clip in dataset.clips), dataset.labels, strict=True))
    noisy = true | with_noise(
        {clip_id: true[clip_id] for clip_id in (*split.train, *split.held_out)},
        len(dataset.classes),
        cell.training.label_noise,
        seed=[cell.seed, cell.fold],
    )
    strata = rarest([dataset.by_id[clip_id] for clip_id in split.train])
    kept = keep_labels(
        dict(zip(split.train, strata, strict=True)),
        cell.training.labelled,
        seed=[cell.seed, cell.fold],
    )
    unlabelled = (
        *(clip_id for clip_id in split.train if clip_id not in kept),
        *(clip.clip_id for clip in dataset.unlabelled),
    )

    def part(clip_ids: Sequence[str], labels: Mapping[str, Any] = noisy) -> Part:
        unverified = [i for i in range(len(clip_ids)) if not dataset.by_id[clip_ids[i]].verified]
        return Part(
            clip_ids=tuple(clip_ids),
            labels=np.array([labels[clip_id] for clip_id in clip_ids], dtype=np.int64).reshape(
                -1,
                *dataset.labels.shape[1:],  # also where there are none
            ),
            unverified=tuple(unverified),
        )

    return [
        BranchTask(
            name=name,
            spec=spec,
            training=cell.training,
            store=prepared.stores[spec.representation],
            classes=dataset.classes,
            train=part([clip_id for clip_id in split.train if clip_id in kept]),
            held_out=part(split.held_out),
            test=part(split.test, true),
            fold=cell.fold,
            seed=cell.seed,
            unlabelled=unlabelled if cell.condition == "distilled" else (),
            more_windows=len(unlabelled),
            device=cell.device,
            threads=cell.threads,
            cpus=cell.cpus,
            cohort_cpus=cell.cpus * len(cell.branches),
            gpus=1 / len(cell.branches) if gpus is None else gpus,
            windows=cell.windows,
            provenance={
                "cell": cell.key,
                "condition": cell.condition,
                "temperature": cell.temperature,
                "dataset": dataset.name,
                "dataset_fingerprint": dataset.fingerprint,
            },
        )
        for name, spec in zip(cell.names, cell.branches, strict=True)
    ]
