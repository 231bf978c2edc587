"""From what a grid asks for to its cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

from mrkd_ray.cells.cell import Cell, branch_names, independent_cell
from mrkd_ray.cells.effective import Circumstances, effective, idle
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common import environment
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.hashing import hash_of
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import Training, default_lr
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid.network_checks import Initial
from mrkd_ray.method.averaging import AVERAGES
from mrkd_ray.representations.catalogue import REPRESENTATIONS

Gpus = Callable[[int], float]
"""GPUs of one branch actor in a cohort of so many branches."""


def check_names(config: GridConfig) -> None:
    """Refuse unknown representations and averages, and options that do not go together."""
    for spec in specs_of(config):
        REPRESENTATIONS[spec.representation]
    rules = {asked.average: AVERAGES[asked.average] for asked in config.by_variant().values()}
    weighted = [name for name, rule in rules.items() if rule.weighted]
    if weighted and config.held_out == 0:
        raise UserError(
            f"average {weighted[0]!r} weighs branches by their accuracy on held-out clips: "
            "set held_out, for example --held-out 0.1"
        )
    if config.held_out > 0 and not weighted:
        raise UserError(
            f"held_out {config.held_out:g} takes clips away from training, and only "
            "average: weighted looks at them: leave it out, or set --average weighted"
        )
    if "leave_one_out" in rules and any(len(cohort) == 1 for cohort in config.cohorts):
        raise UserError(
            "average 'leave_one_out' teaches a branch by the others, and a cohort has no other: "
            "add a branch to it, or take another average"
        )


def check_multi_label(trainings: Iterable[Training]) -> None:
    """Refuse options that have no meaning where a clip may have several labels."""
    if any(training.label_noise > 0 for training in trainings):
        raise UserError(
            "label_noise: for data with one label a clip. This data set is multi-label "
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
    distilled: dict[str, Cell] = {}
    variants = config.by_variant()
    unlabelled = {c.clip_id: prepared.digests[c.clip_id] for c in prepared.dataset.unlabelled}

    def content(branches: Sequence[BranchSpec], unlabelled: object) -> str:
        used = sorted({spec.representation for spec in branches})
        files = [networks[spec.network].digest for spec in branches]
        versions = [prepared.stores[name].version for name in used]
        return hash_of(prepared.content, versions, files, unlabelled)

    def device(branches: int) -> str:
        if config.runner == "local":
            return environment.local_device()
        return "cuda" if gpus(branches) > 0 else "cpu"

    for cohort in config.cohorts:
        where = device(len(cohort))
        runs = product(prepared.splits, config.seeds, variants.items())
        for split, seed, (variant, asked) in runs:
            for temperature in asked.temperatures:
                given = circumstances(cohort, temperature, where, prepared, networks)
                cell = Cell(
                    condition="distilled",
                    branches=cohort,
                    names=branch_names(cohort),
                    temperature=temperature,
                    fold=split.fold,
                    seed=seed,
                    training=effective(asked.training, given),
                    device=where,
                    cpus=config.cpus_per_branch,
                    overlap=config.overlap and where == "cpu" and len(cohort) > 1,
                    content=content(cohort, unlabelled),
                    window_memory=config.window_memory,
                    variant=variant,
                )
                other = distilled.setdefault(cell.key, cell).variant
                if other != variant:
                    raise UserError(
                        f"variants {other!r} and {variant!r} are the same at T = {temperature:g}: "
                        "what they differ in changes nothing here. Leave one of them out"
                    )
            for name, spec in zip(cell.names, cohort, strict=True) if config.independent else ():
                # Of the unlabelled clips only their number is in it: see `BranchTask`.
                own = content((spec,), len(unlabelled))
                alone = independent_cell(name, cell, device=device(1), content=own)
                independent[alone.key] = alone
    baselines = sorted(independent.values(), key=lambda cell: cell.names)
    return [*baselines, *distilled.values()]


def circumstances(
    cohort: Sequence[BranchSpec],
    temperature: float,
    device: str,
    prepared: Prepared,
    networks: Mapping[str, Initial],
) -> Circumstances:
    """Return what decides which options change nothing in a cohort's cells."""
    initial = [networks[spec.network] for spec in cohort]
    rates = {default_lr(each.weights) for each in initial}
    return Circumstances(
        temperature=temperature,
        device=device,
        all_verified=all(clip.verified for clip in prepared.dataset.clips),
        default_weights=all(each.default for each in initial),
        default_lr=rates.pop() if len(rates) == 1 else None,
    )


def idle_options(
    config: GridConfig, prepared: Prepared, networks: Mapping[str, Initial]
) -> list[str]:
    """Return a sentence for each option that was given and changes nothing in some of the cells."""
    found: dict[str, None] = {}
    for variant, asked in config.by_variant().items():
        for temperature in asked.temperatures:
            given = circumstances(config.cohorts[0], temperature, "cpu", prepared, networks)
            for name, why in idle(asked.training, given):
                place = f"{variant}: " if variant else ""
                value = getattr(asked.training, name)
                found[f"{place}{name}: {value} changes nothing: {why}"] = None
    return list(found)


def specs_of(config: GridConfig) -> list[BranchSpec]:
    """Return the branches of all cohorts."""
    return [spec for cohort in config.cohorts for spec in cohort]
