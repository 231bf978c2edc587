"""The probes: each candidate trained alone, on all parts of the training side but one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.intact import result_of
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.hashing import hash_of
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.schema import RecommendConfig
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.splits import Split, Splitter, make_splits
from mrkd_ray.features.extraction import missing
from mrkd_ray.grid.opening import OpenGrid
from mrkd_ray.plan import costs, probe
from mrkd_ray.plan.measurements import Probe, Sizes
from mrkd_ray.plan.window_memory import window_memory_of
from mrkd_ray.recommend.choice import FEWEST_CLIPS, Probed, hopeless, too_weak
from mrkd_ray.recommend.costs import Cost, measure

SHORT = 5
"""A short probe has a fifth of the epochs."""


def parts_of(dataset: Dataset, config: RecommendConfig) -> tuple[list[Split], int]:
    """Divide the training side of `config.fold` into parts; each is the test side of one split.

    The parts are the other folds, which keep apart what the data set's own folds do. Where there
    are fewer than two, as with one given split, the training side gets stratified folds. Only
    clips with a verified label decide. The test clips of `config.fold` are in none of the splits.

    Returns:
        The splits, and the seed that the parts were drawn with where the data set's own folds or
        split do not say it: 0 elsewhere.

    Raises:
        UserError: as `make_splits`; a part has no clip to decide by; a multi-label data set.
    """
    if dataset.multi_label:
        raise UserError(
            f"{dataset.root}: multi-label, as the column labels says. recommend chooses by the "
            "accuracy on clips of one label each. Give a grid its cohorts yourself."
        )
    verified_only, seed = config.verified_only, config.split_seed
    (whole,) = make_splits(dataset, [config.fold], seed, verified_only=verified_only)
    splits = make_splits(dataset, "all", seed)
    sides = {split.fold: split.test for split in splits if split.fold != config.fold}
    drawn = 0
    if len(sides) < 2:
        drawn = seed if Splitter(seed=seed).seed_that_matters(dataset) != seed else 0
        training = dataset.without(whole.test)
        clips = tuple(replace(clip, fold=None, split=None) for clip in training.clips)
        splits = make_splits(replace(training, clips=clips), "all", seed)
        sides = {split.fold: split.test for split in splits}
    found = []
    for fold, side in list(sides.items())[: config.parts]:
        held = frozenset(side)
        test = tuple(clip_id for clip_id in side if dataset.by_id[clip_id].verified)
        if not test:
            raise UserError(
                f"{dataset.root}: no clip of part {fold} of the training side has a verified label "
                "to choose by. Verify some, or leave the column out."
            )
        train = tuple(clip_id for clip_id in whole.train if clip_id not in held)
        found.append(Split(fold=fold, train=train, held_out=(), test=test))
    return found, drawn


def with_parts(opened: OpenGrid, parts: Sequence[Split], seed: int) -> OpenGrid:
    """Return the opened grid with the parts for its splits, and the probes for its cells.

    For each candidate there is one probe a part; they follow each other, since the same branches
    share processes. Their keys are those of no grid's cells, whose test sides are others.

    Args:
        seed: of the parts, as `parts_of` returns it.
    """
    prepared = replace(opened.prepared, splits=tuple(parts))
    return replace(opened, cells=of_parts(opened.cells, parts, seed), prepared=prepared)


def of_parts(cells: Sequence[Cell], parts: Sequence[Split], seed: int) -> list[Cell]:
    """Return the probes of a grid's cells; see `with_parts`."""
    drawn = (seed,) if seed else ()
    probes = []
    for cell in cells:
        if cell.condition == "independent":
            content = hash_of("probe", cell.content, cell.fold, *drawn)
            probes += [replace(cell, fold=part.fold, content=content) for part in parts]
    return probes


def short(probes: Sequence[Cell], part: Split, size: int) -> list[Cell]:
    """Return short probes of the candidates: on the first part, with a fifth of the epochs.

    There are none where that is no whole epoch, where the part has too few clips to tell candidates
    apart, or where all candidates stay anyway.

    Args:
        probes: of all candidates.
        part: the first one.
        size: of the cohort.
    """
    first = of_first_part(probes)
    cycles = first[0].training.cycles // SHORT
    if cycles == 0 or len(part.test) < FEWEST_CLIPS or len(first) <= size:
        return []
    update = {"cycles": cycles}
    return [
        replace(
            cell,
            training=cell.training.model_copy(update=update),
            asked=cell.asked and cell.asked.model_copy(update=update),
        )
        for cell in first
    ]


def of_first_part(probes: Sequence[Cell]) -> list[Cell]:
    """Return the probes of the first part."""
    return [cell for cell in probes if cell.fold == probes[0].fold]


def worth_it(
    folder: Path,
    probes: Sequence[Cell],
    tried: Sequence[Cell],
    dataset: Dataset,
    config: RecommendConfig,
) -> list[Cell]:
    """Return the probes without those of candidates that are not worth more.

    None of those that short probes have shown to be hopeless, and only the first part of those that
    are too weak there, once the short probes `tried`, and those of the first part, are finished.
    """
    if tried and is_finished(folder, tried):
        behind = hopeless(_read(folder, tried, dataset), config.size, config.margin)
        probes = [cell for cell in probes if cell.branches[0] not in behind]
    first = of_first_part(probes)
    if len(first) == len(probes) or not is_finished(folder, first):
        return [*probes]
    weak = too_weak(_read(folder, first, dataset), config.size, config.margin)
    return [cell for cell in probes if cell in first or cell.branches[0] not in weak]


def is_finished(folder: Path, probes: Sequence[Cell]) -> bool:
    """Return whether all of these probes have a result."""
    return all(result_of(folder / "cells" / cell.key) is not None for cell in probes)


def read(
    folder: Path, probes: Sequence[Cell], dataset: Dataset, tried: Sequence[Cell] = ()
) -> Probed:
    """Read what finished probes predict, of candidates that were not left out (`worth_it`).

    Args:
        folder: where they lie.
        probes: of candidates that are not hopeless.
        dataset: all clips.
        tried: the short ones of all candidates.
    """
    parts = Counter(cell.branches[0] for cell in probes)
    whole = [cell for cell in probes if parts[cell.branches[0]] == max(parts.values())]
    others = [cell for cell in probes if cell not in whole]
    hopeless = [cell for cell in tried if cell.branches[0] not in parts]
    return replace(
        _read(folder, whole, dataset),
        left_out=_read(folder, others, dataset) if others else None,
        hopeless=_read(folder, hopeless, dataset) if hopeless else None,
    )


def _read(folder: Path, probes: Sequence[Cell], dataset: Dataset) -> Probed:
    """Put the predictions of finished probes together, the parts one after the other."""
    candidates: dict[BranchSpec, list[Cell]] = {}
    first = probes[0]
    verified_only = (first.asked or first.training).verified_only
    for cell in probes:
        candidates.setdefault(cell.branches[0], []).append(cell)
    scores = []
    for own in candidates.values():
        found = [cell_files.read_predictions(folder / "cells" / cell.key) for cell in own]
        clip_ids = tuple(clip_id for of_part, _, _ in found for clip_id in of_part)
        labels = np.concatenate([of_part for _, of_part, _ in found])
        scores.append(np.concatenate([next(iter(of_part.values())) for _, _, of_part in found]))
    return Probed(
        candidates=tuple(candidates),
        clip_ids=clip_ids,
        classes=dataset.classes,
        labels=labels,
        probabilities=np.stack(scores),
        parts=len({cell.fold for cell in probes}),
        all_verified=verified_only or all(clip.verified for clip in dataset.clips),
    )


def measured(folder: Path, probes: Sequence[Cell], probed: Probed, seconds: float) -> Probed:
    """Return what was read with the cost of each candidate, by a trained model of it.

    Args:
        seconds: of a clip.
    """
    cells = {cell.branches[0]: cell for cell in reversed(probes)}

    def cost(branch: BranchSpec) -> Cost:
        cell = cells[branch]
        return measure([folder / "cells" / cell.key / "branches" / cell.names[0]], seconds)

    left_out = probed.left_out and measured(folder, probes, probed.left_out, seconds)
    return replace(probed, costs=tuple(map(cost, probed.candidates)), left_out=left_out)


@dataclass(frozen=True)
class Clock:
    """What the probes take, by `mrkd plan`'s measure of one probe of each network.

    It has the representation with the most bins: the other probes of its network take less.
    """

    opened: OpenGrid
    probed: Probe
    measured: dict[str, Cell]
    at_once: int

    @classmethod
    def measure(cls, opened: OpenGrid, left: Sequence[Cell]) -> Clock:
        """Run shortened probes, in a folder that is removed."""
        prepared, workers = opened.prepared, opened.workers
        largest = sorted(left, key=lambda c: prepared.stores[c.branches[0].representation].bins)
        measured = {cell.branches[0].network: cell for cell in largest}
        shown = list(measured.values())
        at_once = workers.cells_at_once(1, shown[0].branch_cpus)
        ticks = prepared.ticks
        jobs = missing(prepared.dataset, prepared.digests, prepared.stores)
        windows = window_memory_of(shown, prepared, workers, ticks)
        rooms = [at_once] * len(shown)
        probed = probe.run(replace(opened, cells=shown), rooms, jobs, windows, ticks)
        return cls(opened, probed, measured, at_once)

    def seconds(self, probes: Sequence[Cell]) -> float:
        """Return about how long these probes take at most, with the features that lack."""
        prepared, local = self.opened.prepared, self.opened.workers.local
        ticks = prepared.ticks
        (window,) = self.probed.sizes
        sizes = {split.fold: Sizes.of(split, (), ticks, window) for split in prepared.splits}
        of_cells = []
        for cell in probes:
            like = replace(cell, branches=self.measured[cell.branches[0].network].branches)
            cycles = cell.training.cycles
            cost = costs.cost(like, cycles, sizes[cell.fold], self.probed, local, profile=False)
            of_cells.append(replace(cost, branches=cell.branches))
        took: float = costs.duration(of_cells, [self.at_once] * len(of_cells))
        return self.probed.features + took + self.probed.end
