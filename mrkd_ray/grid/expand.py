"""From what a grid asks for to its cells."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

from mrkd_ray.cells.cell import (
    Cell,
    branch_names,
    independent_cell,
    with_baselines,
    without_teacher,
)
from mrkd_ray.cells.effective import Circumstances, effective, idle
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common import environment
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.hashing import hash_of
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import PAPER, Training, default_lr
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.datasets.splits import Split, rarest
from mrkd_ray.grid.network_checks import Initial
from mrkd_ray.inference.starting_point import starting_points
from mrkd_ray.method.averaging import AVERAGES
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.training.branch_task import FrozenTeacher

Gpus = Callable[[int], float]
"""GPUs of one branch actor in a cohort of so many branches."""


def check_names(config: GridConfig) -> None:
    """Refuse unknown representations and averages, and options that do not go together."""
    for spec in specs_of(config):
        REPRESENTATIONS[spec.representation].check()
    rules = {asked.average: AVERAGES[asked.average] for asked in config.by_variant().values()}
    weighted = [name for name, rule in rules.items() if rule.weighted]
    if weighted and config.held_out == 0:
        raise UserError(
            f"average {weighted[0]!r} weighs branches by their accuracy on held-out clips: "
            "set held_out, for example --held-out 0.1"
        )
    stopped = any(asked.early_stop is not None for asked in config.by_variant().values())
    if stopped and config.held_out == 0:
        raise UserError(
            "early_stop stops by the loss on held-out clips: set held_out, for example "
            "--held-out 0.1"
        )
    if config.held_out > 0 and not weighted and not stopped:
        raise UserError(
            f"held_out {config.held_out:g} takes clips away from training, and only early_stop and "
            "average: weighted look at them: leave it out, or set --early-stop 10, say"
        )
    if config.quorum and all(len(cohort) <= config.quorum for cohort in config.cohorts):
        raise UserError(
            f"quorum {config.quorum}: no cohort has more branches than that, so none could go on "
            "without one: lower it, or leave it out"
        )
    if "leave_one_out" in rules and any(len(cohort) == 1 for cohort in config.cohorts):
        raise UserError(
            "average 'leave_one_out' teaches a branch by the others, and a cohort has no other: "
            "add a branch to it, or take another average"
        )


def check_multi_label(trainings: Iterable[Training]) -> None:
    """Refuse options that have no meaning where a clip may have several labels."""
    for training in trainings:
        if training.neighbours > 0:
            raise UserError(
                "neighbours: for data with one label a clip. This data set is multi-label "
                "(its csv has a column labels): leave it out."
            )
        if training.label_noise == 0:
            continue
        raise UserError(
            "label_noise: for data with one label a clip. This data set is multi-label "
            "(its csv has a column labels): leave it out."
        )
    if any(training.class_weights != "none" for training in trainings):
        raise UserError(
            "class_weights: for data with one label a clip. This data set is multi-label "
            "(its csv has a column labels): leave it out."
        )


def expand(
    config: GridConfig, prepared: Prepared, networks: Mapping[str, Initial], gpus: Gpus
) -> list[Cell]:
    """Return the grid's cells: baselines first, each once, then the cohorts.

    Cells of the same branches follow each other, so that they can share processes; among them all
    variants of a run, so that what is finished of a grid compares them.

    Raises:
        UserError: two variants have the same cells.
    """
    independent: dict[str, Cell] = {}
    distilled: list[Cell] = []
    variants = config.by_variant()
    trainings = {variant: asked.training for variant, asked in variants.items()}
    of_split = {split.fold: _of_split(prepared, split) for split in prepared.splits}
    unlabelled = {c.clip_id: prepared.digests[c.clip_id] for c in prepared.dataset.unlabelled}

    starts = starting_points(
        config.init, specs_of(config), multi_label=prepared.dataset.multi_label
    )

    @functools.cache
    def content(branches: tuple[BranchSpec, ...], *, alone: bool) -> str:
        used = sorted({spec.representation for spec in branches})
        files = [networks[spec.network].digest for spec in branches]
        versions = [prepared.stores[name].version for name in used]
        # Of the unlabelled clips a baseline has their number only: see `BranchTask`.
        more = len(unlabelled) if alone else unlabelled
        models = [[starts[spec].digest for spec in branches]] if starts else []
        return hash_of(prepared.content, versions, files, more, *models)

    def device(branches: int) -> str:
        if config.runner == "local":
            return environment.local_device()
        return "cuda" if gpus(branches) > 0 else "cpu"

    def baseline(name: str, spec: BranchSpec, like: Cell) -> Cell:
        assert like.asked is not None
        where = _circumstances((spec,), None, device(1), of_split[like.fold], networks)
        return independent_cell(
            name,
            like,
            device=where.device,
            content=content((spec,), alone=True),
            training=effective(without_teacher(like.asked), where),
        )

    @functools.cache
    def teachers(fold: int) -> tuple[FrozenTeacher, ...]:
        return tuple(each for each in prepared.teachers if each.fold == fold)

    def distil(
        cohort: tuple[BranchSpec, ...], fold: int, seed: int, temperature: float, variant: str
    ) -> Cell:
        on = device(len(cohort))
        taught_by = teachers(fold)
        where = _circumstances(cohort, temperature, on, of_split[fold], networks, taught_by)
        given = content(cohort, alone=False)
        return Cell(
            condition="distilled",
            branches=cohort,
            names=branch_names(cohort),
            temperature=temperature,
            fold=fold,
            seed=seed,
            training=effective(trainings[variant], where),
            asked=trainings[variant],
            device=on,
            cpus=config.cpus_per_branch,
            ranks=config.ranks,
            overlap=config.overlap and on == "cpu" and len(cohort) > 1,
            content=hash_of(given, [t.digest for t in taught_by]) if taught_by else given,
            teachers=taught_by,
            window_memory=config.window_memory,
            quorum=config.quorum,
            variant=variant,
        )

    for cohort in config.cohorts:
        runs = product(prepared.splits, config.seeds, variants.items())
        for split, seed, (variant, asked) in runs:
            cells = [distil(cohort, split.fold, seed, t, variant) for t in asked.temperatures]
            named = zip(cells[0].names, cohort, strict=True) if config.independent else ()
            alone = [baseline(name, spec, cells[0]) for name, spec in named]
            independent |= {each.key: each for each in alone}
            distilled += [with_baselines(cell, alone) for cell in cells]
    _refuse_same_variants(distilled)
    return [*sorted(independent.values(), key=lambda cell: cell.names), *distilled]


def _refuse_same_variants(cells: Sequence[Cell]) -> None:
    """Refuse variants that have the same cells; at some temperatures, such as 1, they may."""
    keys: dict[str, set[str]] = {}
    for cell in cells:
        keys.setdefault(cell.variant, set()).add(cell.key)
    for one, other in combinations(keys, 2):
        if keys[one] == keys[other]:
            raise UserError(
                f"variants {one!r} and {other!r} are the same: what they differ in changes nothing "
                "here. Leave one of them out"
            )


def idle_options(
    config: GridConfig, prepared: Prepared, networks: Mapping[str, Initial]
) -> list[str]:
    """Return a sentence for each option that was given and changes nothing in some of the cells."""
    found: dict[str, None] = {}
    splits = [_of_split(prepared, split) for split in prepared.splits]
    for variant, asked in config.by_variant().items():
        temperatures = (None,) if config.alone else asked.temperatures
        for cohort, split, temperature in product(config.cohorts, splits, temperatures):
            taught_by = prepared.teachers
            where = _circumstances(cohort, temperature, "cpu", split, networks, taught_by)
            for name, why in idle(asked.training, where):
                place = f"{variant}: " if variant else ""
                value = getattr(asked.training, name)
                if asked.paper and value == PAPER.get(name):
                    continue  # it was not given
                found[f"{place}{name}: {value} changes nothing: {why}"] = None
    return list(found)


def _of_split(prepared: Prepared, split: Split) -> dict[str, Any]:
    """Return what `Circumstances` has of a split."""
    dataset = prepared.dataset
    tested = set(split.test)
    labels = Counter(rarest([dataset.by_id[clip_id] for clip_id in split.train]))
    return {
        "clips": len(split.train) + len(dataset.unlabelled),
        "labels": tuple(labels.values()),
        "held_out": len(split.held_out),
        "whole_window": prepared.whole_window,
        "all_verified": all(c.verified for c in dataset.clips if c.clip_id not in tested),
    }


def _circumstances(
    branches: Sequence[BranchSpec],
    temperature: float | None,
    device: str,
    split: Mapping[str, Any],
    networks: Mapping[str, Initial],
    teachers: Sequence[FrozenTeacher] = (),
) -> Circumstances:
    """Return what decides which options change nothing in a cell of these branches."""
    rates = {default_lr(networks[spec.network].weights) for spec in branches}
    entries = [REPRESENTATIONS[spec.representation] for spec in branches]
    return Circumstances(
        temperature=temperature,
        device=device,
        branches=len(branches),
        default_lr=rates.pop() if len(rates) == 1 else None,
        bins=max(0 if entry.linear else entry.bins for entry in entries),
        frozen=tuple(entry.embedding for entry in entries),
        teachers=tuple(REPRESENTATIONS[each.representation].embedding for each in teachers),
        **split,
    )


def specs_of(config: GridConfig) -> list[BranchSpec]:
    """Return the branches of all cohorts."""
    return [spec for cohort in config.cohorts for spec in cohort]
