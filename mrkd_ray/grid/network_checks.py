"""Networks are built, and their weights loaded, before any long work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.datasets.checking.scan import digest
from mrkd_ray.grid.workers import Map
from mrkd_ray.representations.catalogue import REPRESENTATIONS


@dataclass(frozen=True)
class Initial:
    """What a network starts from.

    Attributes:
        line: for people.
        digest: of the file, if any; else what it is.
        weights: `none`, `imagenet` or a path.
    """

    line: str
    digest: str
    weights: str = "none"


def check_networks(
    specs: Sequence[BranchSpec], weights: str | None, map_: Map
) -> dict[str, Initial]:
    """Refuse networks that cannot be built, and weights that are not there or do not fit.

    Returns:
        For each network, what it starts from.

    Raises:
        UserError: for the first that is refused.
    """
    wanted = {
        (spec.network, weights, REPRESENTATIONS[spec.representation].windows) for spec in specs
    }
    found: dict[str, Initial] = {}
    for name, error, initial in map_(_try_network, sorted(wanted, key=str)):
        if error:
            raise UserError(error)
        found[name] = initial
    return found


def _try_network(wanted: tuple[str, str | None, tuple[int, int]]) -> tuple[str, str, Initial]:
    """Return a network's name, what is wrong with it, and what it starts from."""
    from mrkd_ray.networks.catalogue import build, initial_weights

    name, asked, windows = wanted
    try:
        weights = initial_weights(name, asked)
        report = build(name, 2, weights, windows=windows)[1]
    except UserError as error:
        return name, str(error), Initial("", "")
    file = Path(report.source)
    return (
        name,
        "",
        Initial(
            line=f"{name}, {report.summary()}",
            digest=digest(file) if file.is_file() else report.source,
            weights=weights,
        ),
    )
