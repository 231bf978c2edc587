"""From what a grid asks for to its cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import product

from mrkd_ray.cells.cell import Cell, branch_names, independent_cell
from mrkd_ray.cells.tasks import Prepared
from mrkd_ray.common import environment
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.hashing import hash_of
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import Training
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid.network_checks import Initial
from mrkd_ray.method.averaging import AVERAGES
from mrkd_ray.representations.catalogue import REPRESENTATIONS

Shares = Callable[[int], float]
"""GPUs of one branch actor in a cohort of so many branches."""


def check_names(config: GridConfig) -> None:
    """Refuse unknown representations and averages, and options that do not go together."""
    for spec in _specs(config):
        REPRESENTATIONS[spec.representation]
    for variant in config.by_variant().values():
        if AVERAGES[variant.average].weighted and config.held_out == 0:
            raise UserError(
                f"average {variant.average!r} weighs branches by their accuracy on held-out clips: "
                "set held_out, for example --held-out 0.1"
            )


def check_multi_label(trainings: Iterable[Training]) -> None:
    """Refuse options that have no meaning where a clip may have several labels."""
    if any(training.label_noise > 0 for training in trainings):
        raise UserError(
            "label_noise: for data with one label a clip. This data set is multi-label "
            "(its csv has a column labels): leave it out."
        )


def expand(
    config: GridConfig, prepared: Prepared, networks: dict[str, Initial], shares: Shares
) -> list[Cell]:
    """Return the grid's cells: baselines first, each once, then the cohorts.

    Cells of the same branches follow each other, so that they can share processes; among them all
    variants of a run, so that what is finished of a grid compares them.
    """
    independent: dict[str, Cell] = {}
    distilled: dict[str, Cell] = {}
    variants = config.by_variant()

    digests = next(iter(prepared.stores.values())).digests
    unlabelled = {clip.clip_id: digests[clip.clip_id] for clip in prepared.dataset.unlabelled}

    def content(branches: Sequence[BranchSpec], unlabelled: object) -> str:
        used = sorted({spec.representation for spec in branches})
        files = [networks[spec.network].digest for spec in branches]
        versions = [prepared.stores[name].version for name in used]
        return hash_of(prepared.content, versions, files, unlabelled)

    def device(branches: int) -> str:
        if config.runner == "local":
            return environment.local_device()
        return "cuda" if shares(branches) > 0 else "cpu"

    for pairing in config.pairings:
        where = device(len(pairing))
        overlap = config.overlap and where == "cpu"
        runs = product(prepared.splits, config.seeds, variants.items())
        for split, seed, (variant, asked) in runs:
            cell = Cell(
                condition="distilled",
                branches=pairing,
                names=branch_names(pairing),
                temperature=asked.temperatures[0],
                fold=split.fold,
                seed=seed,
                training=asked.training,
                device=where,
                threads=config.cpus_per_branch * (len(pairing) if overlap else 1),
                cpus=config.cpus_per_branch,
                content=content(pairing, unlabelled),
                windows=config.windows,
                variant=variant,
            )
            same = [replace(cell, temperature=temperature) for temperature in asked.temperatures]
            distilled |= {each.key: each for each in same}
            for name, spec in zip(cell.names, pairing, strict=True) if config.independent else ():
                # Of the unlabelled clips only their number is in it: see `BranchTask`.
                own = content((spec,), len(unlabelled))
                alone = independent_cell(name, cell, device=device(1), content=own)
                independent[alone.key] = alone
    baselines = sorted(independent.values(), key=lambda cell: cell.names)
    return [*baselines, *distilled.values()]


def _specs(config: GridConfig) -> list[BranchSpec]:
    return [spec for pairing in config.pairings for spec in pairing]
