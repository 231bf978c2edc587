"""Grid files, at the size that they ask for or with small networks for CPUs (`--scale cpu`)."""

from __future__ import annotations

from typing import Any

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import GPU_CYCLES
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig

STANDS_FOR = {"resnet_small": "resnet101", "vgg_small": "vgg19"}
"""The small networks, and those of the paper that they take the place of."""

CPU_EPOCHS = 30  # small networks from random weights need no more (docs/explanation/method.md)
_SMALL = {large: small for small, large in STANDS_FOR.items()}


def to_cpu(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Return a grid's fields with the same rows, small networks and few epochs.

    Learning rate and weights are left to their defaults, since the small networks start from
    random weights; the name gets `-cpu`. A variant with cycles of its own keeps its part of the
    grid's.

    Args:
        values: fields as in a grid file.
        source: the file, named in errors.

    Raises:
        UserError: the fields are not a grid's, no small network stands for one of theirs, or a
            variant has a learning rate of its own.
    """
    grid = parse(GridConfig, values, source)
    kept = {name: value for name, value in values.items() if name not in ("lr", "weights")}
    cohorts = [[str(_small(branch, source)) for branch in cohort] for cohort in grid.cohorts]
    cycles, whole_cycles = max(1, CPU_EPOCHS // (grid.b + grid.d)), grid.cycles or GPU_CYCLES
    small = {"name": f"{grid.name}-cpu", "cohorts": cohorts, "cycles": cycles}
    if grid.variants:
        variants = {name: dict(given) for name, given in values["variants"].items()}
        for name, whole in grid.by_variant().items():
            if "lr" in variants[name]:
                raise UserError(
                    f"{source}: variants.{name}.lr: --scale cpu has small networks from random "
                    "weights, with a learning rate of their own. Delete it, or give no --scale"
                )
            if whole.cycles not in (None, whole_cycles):
                part = whole.cycles / whole_cycles
                variants[name]["cycles"] = max(1, round(cycles * part))
        small["variants"] = variants
    return kept | small


def _small(branch: BranchSpec, source: str) -> BranchSpec:
    if branch.network in STANDS_FOR:
        return branch
    if branch.network not in _SMALL:
        known = ", ".join(f"{small} for {large}" for large, small in _SMALL.items())
        raise UserError(f"{source}: --scale cpu has no small network for {branch}; only {known}")
    return BranchSpec(representation=branch.representation, network=_SMALL[branch.network])
