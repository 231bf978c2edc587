"""Who is trained on and who is tested: given folds, a given split, or stratified folds."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import few
from mrkd_ray.datasets.base import Clip, Dataset

N_FOLDS = 5
ATTEMPTS = 10
"""Shuffles tried per number of folds until every class is in every fold; groups may need it."""

Sides = Mapping[int, frozenset[str]]  # fold -> clip_ids of its test side


@dataclass(frozen=True)
class Split:
    """One division of a data set; the three parts are disjoint and in the data set's order."""

    fold: int
    train: tuple[str, ...]
    """clip_ids that the networks are fitted to."""
    held_out: tuple[str, ...]
    """clip_ids taken away from the training side to choose by; may be empty."""
    test: tuple[str, ...]
    """clip_ids that are only ever evaluated."""


def make_splits(
    dataset: Dataset,
    folds: Literal["all"] | list[int] | None,
    seed: int,
    held_out: float = 0.0,
    verified_only: bool = False,
) -> list[Split]:
    """Divide a data set, once for each fold asked for.

    Given folds: fold k is the test side of split k. A given split: a single fold, 1. Otherwise up
    to 5 stratified folds, numbered from 1 and shuffled with the seed; fewer where the rarest class
    has fewer clips (groups). A clip with several labels is stratified by the rarest of them. A
    group never stands on both sides. The result does not depend on the order of the clips in the
    data set.

    Args:
        folds: numbers of the folds wanted, in that order; "all" or None for each there is.
        seed: at least 0.
        held_out: fraction of the training clips of each class to hold out, 0 <= held_out < 0.5;
            every class keeps a training clip.
        verified_only: leave clips whose label is not verified out of training and holding out.

    Raises:
        UserError: an unknown fold, a group on both sides, a side without clips, or a held-out
            fraction out of range or so small that it takes no clip.
    """
    if not 0 <= held_out < 0.5:
        raise UserError(f"held_out: {held_out} is not at least 0 and below 0.5.")
    if len(dataset.clips) < 2:
        raise UserError(f"{dataset.root}: {len(dataset.clips)} clips cannot be split.")
    sides = _test_sides(dataset, seed)
    if folds is None or folds == "all":
        wanted = sorted(sides)
    else:
        wanted = list(dict.fromkeys(folds))
        if not wanted or (unknown := [fold for fold in wanted if fold not in sides]):
            asked = few(map(str, unknown)) if wanted else "none"
            raise UserError(f"folds: {asked} asked for, but {dataset.name} has {_numbers(sides)}.")
    kept = {clip.clip_id for clip in dataset.clips if clip.verified or not verified_only}
    return [_split(dataset, fold, sides[fold], kept, seed, held_out) for fold in wanted]


@dataclass(frozen=True, kw_only=True)
class Splitter:
    """How a data set is divided; the fields are the arguments of `make_splits`."""

    folds: Literal["all"] | tuple[int, ...] = "all"
    seed: int = 0
    held_out: float = 0.0
    verified_only: bool = False

    def wanted(self, dataset: Dataset) -> list[Split]:
        """Return the splits of the folds that were asked for; raises as `make_splits`."""
        folds: Literal["all"] | list[int] = "all" if self.folds == "all" else list(self.folds)
        return make_splits(dataset, folds, self.seed, self.held_out, self.verified_only)

    def all(self, dataset: Dataset) -> list[Split]:
        """Return the splits of all folds; raises as `make_splits`."""
        return replace(self, folds="all").wanted(dataset)

    def seed_that_matters(self, dataset: Dataset) -> int:
        """Return the seed; 0 where nothing is drawn: the data set gives folds or a split."""
        return 0 if dataset.gives_sides and not self.held_out else self.seed


def without_part(dataset: Dataset, split: Split, part: str) -> Split:
    """Return a split without one part of its training clips.

    Parts are stratified, keep groups together, and are the same whatever the seed: models without
    each of them have together heard every clip, and each clip has one model that has not.

    Args:
        part: `config.method.Learning.cross_fit`, as `2/4`.

    Raises:
        UserError: the training clips do not make so many parts.
    """
    number, parts = map(int, part.split("/"))
    clips = sorted((dataset.by_id[clip_id] for clip_id in split.train), key=lambda c: c.clip_id)
    labels = rarest(clips)
    units = {_unit(clip) for clip in clips}
    most = min(len(units), max(Counter(labels).values()))
    if parts > most:
        raise UserError(
            f"cross_fit: {part}: the training clips of fold {split.fold} make at most {most} parts"
        )
    left_out = _k_fold(clips, labels, parts, seed=0)[number]
    train = tuple(clip_id for clip_id in split.train if clip_id not in left_out)
    if not left_out or not train:
        raise UserError(
            f"cross_fit: {part}: a group of clips is larger than a part of fold {split.fold}: give "
            "fewer parts"
        )
    return replace(split, train=train)


def _numbers(sides: Sides) -> str:
    return f"the folds {few(map(str, sorted(sides)), limit=50)}" if len(sides) > 1 else "only 1"


def _test_sides(dataset: Dataset, seed: int) -> Sides:
    clips = dataset.clips
    if clips[0].fold is not None:
        _refuse_shared_groups(dataset, "fold")
        sides: dict[int, set[str]] = defaultdict(set)
        for clip in clips:
            assert clip.fold is not None  # Dataset: all clips or none
            sides[clip.fold].add(clip.clip_id)
        if len(sides) < 2:
            raise UserError(
                f"{dataset.root}: all clips have the fold {clips[0].fold}, which leaves none to "
                "train on. Give at least two folds or leave the column out."
            )
        return {fold: frozenset(ids) for fold, ids in sides.items()}
    if clips[0].split is not None:
        _refuse_shared_groups(dataset, "split")
        test = frozenset(clip.clip_id for clip in clips if clip.split == "test")
        if len(test) in (0, len(clips)):
            raise UserError(
                f"{dataset.root}: all clips have the split {clips[0].split!r}. Give both train "
                "and test clips or no split."
            )
        return {1: test}
    return _stratified(dataset, seed)


def _refuse_shared_groups(dataset: Dataset, field: Literal["fold", "split"]) -> None:
    values: dict[str, set[object]] = defaultdict(set)
    for clip in dataset.clips:
        if clip.group is not None:
            values[clip.group].add(getattr(clip, field))
    if shared := sorted(group for group, found in values.items() if len(found) > 1):
        raise UserError(
            f"{dataset.root}: {len(shared)} groups stand in more than one {field}, so the same "
            f"source would be trained on and tested: {few(shared)}. Give all clips of a group the "
            f"same {field}, or leave the {field} column out."
        )


def _unit(clip: Clip) -> tuple[str, str]:
    """Return what stays together: the group, or the clip itself."""
    return ("clip", clip.clip_id) if clip.group is None else ("group", clip.group)


def _stratified(dataset: Dataset, seed: int) -> Sides:
    """Return stratified folds with every class in each of them where that can be found."""
    clips = sorted(dataset.clips, key=lambda clip: clip.clip_id)
    units: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for clip in clips:
        for label in clip.labels:
            units[label].add(_unit(clip))
    # A class of a single clip or group cannot stand on both sides: the data set's check says so.
    divisible = {label for label, own in units.items() if len(own) > 1}
    if not divisible:
        raise UserError(
            f"{dataset.root}: no class has clips of more than one source, so none can be both "
            "trained on and tested. Add clips, or give fewer of them the same group."
        )
    labels = rarest(clips)
    most = min(*(len(units[label]) for label in divisible), max(Counter(labels).values()))
    best: tuple[int, Sides] | None = None
    for n_folds in range(min(N_FOLDS, most), 1, -1):
        for attempt in range(ATTEMPTS):
            sides = _k_fold(clips, labels, n_folds, seed + attempt)
            lacking = sum(
                len(divisible.difference(*(c.labels for c in clips if c.clip_id in test)))
                for test in sides.values()
            )
            if all(sides.values()) and (best is None or lacking < best[0]):
                best = lacking, sides
            if best is not None and best[0] == 0:
                return best[1]
    if best is None:
        raise UserError(
            f"{dataset.root}: no folds found that keep each group together. Give more groups, or a "
            "column fold or split."
        )
    return best[1]


def rarest(clips: Sequence[Clip]) -> list[str]:
    """Return each clip's label that the fewest clips have."""
    count = Counter(label for clip in clips for label in clip.labels)
    return [min(clip.labels, key=lambda label: (count[label], label)) for clip in clips]


def why_fewer_folds(dataset: Dataset, splits: Sequence[Split]) -> str | None:
    """Say which class keeps the folds that are made below 5; None where nothing does.

    Args:
        splits: of all folds.
    """
    made = dataset.clips[0].fold is None and dataset.clips[0].split is None
    if not made or not 1 < len(splits) < N_FOLDS:
        return None
    units: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for clip in dataset.clips:
        for label in clip.labels:
            units[label].add(_unit(clip))
    label = min((label for label in units if len(units[label]) > 1), key=lambda x: len(units[x]))
    of = "clips" if all(clip.group is None for clip in dataset.clips) else "groups"
    held = f"the class {label} has {len(units[label])} {of}"
    return f"{len(splits)} folds in place of {N_FOLDS}: {held}."


def _k_fold(clips: Sequence[Clip], labels: Sequence[str], n_folds: int, seed: int) -> Sides:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    numbers: dict[tuple[str, str], int] = {}
    units = [numbers.setdefault(_unit(clip), len(numbers)) for clip in clips]
    settings = {"n_splits": n_folds, "shuffle": True, "random_state": seed}
    if len(numbers) == len(clips):
        folds = StratifiedKFold(**settings).split(units, labels)
    else:
        folds = StratifiedGroupKFold(**settings).split(units, labels, units)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes with fewer clips than folds: checked elsewhere
        return {
            fold: frozenset(clips[i].clip_id for i in test)
            for fold, (_, test) in enumerate(folds, start=1)
        }


def _split(
    dataset: Dataset, fold: int, test: frozenset[str], kept: set[str], seed: int, held_out: float
) -> Split:
    trainable = kept - test
    training = [clip for clip in dataset.clips if clip.clip_id in trainable]
    held = _hold_out(training, held_out, np.random.default_rng([seed, fold]))
    if held_out and not held:
        raise UserError(
            f"held_out: {held_out} of the {len(training)} training clips of fold {fold} takes no "
            "clip. Choose a larger fraction or 0."
        )
    return Split(
        fold=fold,
        train=tuple(clip.clip_id for clip in training if clip.clip_id not in held),
        held_out=tuple(clip.clip_id for clip in training if clip.clip_id in held),
        test=tuple(clip.clip_id for clip in dataset.clips if clip.clip_id in test),
    )


def _hold_out(training: Sequence[Clip], fraction: float, rng: np.random.Generator) -> set[str]:
    """Return whole units, in shuffled order, while each brings its classes nearer to the goal."""
    if not fraction:
        return set()
    units: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in sorted(training, key=lambda clip: clip.clip_id):
        units[_unit(clip)].append(clip)
    total = Counter(label for clip in training for label in clip.labels)
    goal = {label: int(fraction * n + 0.5) for label, n in total.items()}
    taken: Counter[str] = Counter()
    held: set[str] = set()
    keys = list(units)
    for i in rng.permutation(len(keys)):
        own = Counter(label for clip in units[keys[i]] for label in clip.labels)
        if all(
            taken[label] + n / 2 <= goal[label] and taken[label] + n < total[label]
            for label, n in own.items()
        ):
            taken.update(own)
            held.update(clip.clip_id for clip in units[keys[i]])
    return held
