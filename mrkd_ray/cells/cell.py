"""One cell of a grid: its key, the tasks of its branches, and its run from start to result.

A cell's folder is complete when `result.json` is there; until then `checkpoint/` holds the last
finished cycle and `history.csv` the figures up to it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mrkd_ray.cells import files as cell_files
from mrkd_ray.common.files import write_json
from mrkd_ray.common.timeline import Span, write_trace
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import DISTILLATION, Training
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.label_experiments import keep_labels, with_noise
from mrkd_ray.datasets.splits import Split, rarest
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.method import algorithm
from mrkd_ray.scores import metrics
from mrkd_ray.training import checkpoints as checkpoint
from mrkd_ray.training.branch_task import BranchTask, Part

Row = dict[str, Any]
PROFILE = "profile.json"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked data set with its splits and features: what every cell of a grid shares."""

    dataset: Dataset
    splits: tuple[Split, ...]
    stores: Mapping[str, FeatureStore]
    content: str  # hash of labels, splits and the bytes of all labelled clips


class CohortWithFiles(algorithm.Cohort, Protocol):
    """What a cell needs of a cohort besides Algorithm 1."""

    def figures(self, cycles: Iterator[algorithm.Handle]) -> Iterator[list[Row]]:
        """The figures of each cycle that `end_cycle` ended, once its checkpoint stands."""

    def spans(self) -> dict[str, list[Span]]:
        """What every branch did since it was asked last; then the other processes, if any."""

    def test_probabilities(self) -> list[NDArray[np.float32]]:
        """Clip-level probabilities [n_test, M] of every branch."""

    def export(self, folder: Path) -> None:
        """Write every branch into a folder of its own under `folder`."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One experiment: a cohort that is distilled, or one branch that is trained alone."""

    condition: Literal["independent", "distilled"]
    branches: tuple[BranchSpec, ...]
    names: tuple[str, ...]  # of the branches: see `branch_names`
    temperature: float | None  # None where nothing is distilled
    fold: int
    seed: int
    training: Training
    device: str  # "cpu" or "cuda"
    threads: int  # of each branch: it changes the order of sums
    cpus: int = 1  # of each branch's actor: fewer than threads where branches overlap
    content: str  # hash of clips, labels, representations' versions, files of weights
    windows: str = "auto"  # `config.Run.windows`; changes no result
    variant: str = ""  # a name for people, in no key: renamed, a variant keeps its results

    @property
    def title(self) -> str:
        """One line for people."""
        how = "independent" if self.temperature is None else f"T {self.temperature:g}"
        variant = self.variant and f"{self.variant}, "
        return f"{self.cohort}, {variant}{how}, fold {self.fold}, seed {self.seed}"

    @property
    def cohort(self) -> str:
        """The pairing, written as on the command line: `a:b+c:d`."""
        return "+".join(str(branch) for branch in self.branches)

    @cached_property
    def key(self) -> str:
        """A readable name that ends in a hash of everything that changes the result."""
        asked = {
            "condition": self.condition,
            "branches": [str(branch) for branch in self.branches],
            "names": self.names,
            "temperature": self.temperature,
            "fold": self.fold,
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
            "training": self.training.model_dump(mode="json"),
            "content": self.content,
        }
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
        temperature = "" if self.temperature is None else f"_T{self.temperature:g}"
        where = f"fold{self.fold}_seed{self.seed}"
        return f"{self.condition}_{'+'.join(self.names)}{temperature}_{where}_{digest}"


def branch_names(branches: Sequence[BranchSpec]) -> tuple[str, ...]:
    """Return a distinct name for each branch; equal ones are numbered from the second on."""
    seen: Counter[str] = Counter()
    names = []
    for spec in branches:
        name = f"{spec.representation}-{spec.network}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return tuple(names)


def without_teacher(training: Training) -> Training:
    """Return the options of the baselines: those of distillation do not tell them apart.

    So cohorts and variants share baselines.
    """
    return training.model_copy(
        update={name: Training.model_fields[name].default for name in DISTILLATION}
    )


def independent_cell(name: str, like: Cell, *, device: str, content: str) -> Cell:
    """Return the baseline of one branch of a cohort: its twin, by name, without a teacher."""
    return replace(
        like,
        condition="independent",
        branches=(like.branches[like.names.index(name)],),
        names=(name,),
        temperature=None,
        threads=like.cpus,
        training=without_teacher(like.training),
        device=device,
        content=content,
        variant="",
    )


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


def run(
    cell: Cell,
    tasks: Sequence[BranchTask],
    cohort: CohortWithFiles,
    folder: Path,
    *,
    profile: bool = False,
) -> Iterator[list[Row]]:
    """Run a cell from where its cohort stands to its `result.json`, a cycle at each step.

    Args:
        profile: also write `profile.json`, a timeline.

    Yields:
        After every cycle, one row of figures a branch.
    """
    history, predicted = cell_files.read_history(folder, cohort.cycle)
    if history:  # its last cycle may have been in the checkpoint only
        cell_files.write_history(folder, history, predicted)
    if cell.temperature is None:
        cycles = algorithm.independent(cohort, cell.training)
    else:
        cycles = algorithm.distilled(cohort, cell.training, cell.temperature)
    began = time.perf_counter()
    for rows in cohort.figures(cycles):
        now = time.perf_counter()
        predicted.append([row.pop("predicted") for row in rows])
        history += [{**row, "seconds": now - began} for row in rows]
        began = now
        cell_files.write_history(folder, history, predicted)
        yield rows
    cohort.export(folder / "branches")
    labels, classes = tasks[0].test.labels, tasks[0].classes
    scores = dict(zip(cell.names, cohort.test_probabilities(), strict=True))
    if len(scores) > 1:
        mean = np.mean([p.astype(np.float64) for p in scores.values()], axis=0)
        scores["ensemble"] = mean.astype(np.float32)
    cell_files.write_predictions(folder, tasks[0].test, classes, scores)
    found = checkpoint.latest(folder / "checkpoint")
    if found and (found / "soft_labels.npz").exists():
        (found / "soft_labels.npz").replace(folder / "soft_labels.npz")
    if profile:
        write_trace(folder / PROFILE, cohort.spans())
    result: Row = {
        "cell": cell.key,
        "condition": cell.condition,
        "cohort": cell.cohort,
        "branches": dict(zip(cell.names, map(str, cell.branches), strict=True)),
        "temperature": cell.temperature,
        "fold": cell.fold,
        "seed": cell.seed,
        "label_noise": cell.training.label_noise,
        "dataset": tasks[0].provenance["dataset"],
        "epochs": cell.training.epochs,
        "train_clips": len(tasks[0].train.clip_ids),
        "unlabelled_clips": len(tasks[0].unlabelled),
        "clips": len(labels),
        "seconds": sum({row["cycle"]: float(row["seconds"]) for row in history}.values()),
        "models": [{"model": name, **metrics.measure(p, labels)} for name, p in scores.items()],
    }
    write_json(folder / "result.json", result)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def finished(folder: Path) -> Row | None:
    """Return the result of a finished cell, None where there is none."""
    path = folder / "result.json"
    if not path.exists():
        return None
    result: Row = json.loads(path.read_text())
    return result
