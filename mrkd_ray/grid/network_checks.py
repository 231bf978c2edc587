"""Networks are built, and their weights loaded, before any long work.

With Ray this is done in a process of its own, while Ray starts: the driver never loads PyTorch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mrkd_ray.common.environment import local_device
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.datasets.checking.scan import digest
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.representations.timing import WINDOW_TICKS

Wanted = tuple[str, str | None, tuple[int, int]]
"""A network, the weights asked for, and the bins and frames of its windows."""


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


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
        networks: for each, what it starts from.
        device: of branches on this machine, as PyTorch finds it: `cpu` or `cuda`.
    """

    networks: dict[str, Initial]
    device: str


def check_networks(
    specs: Sequence[BranchSpec],
    weights: str | None,
    windows: Iterable[int] = (WINDOW_TICKS,),
    *,
    local: bool,
) -> Checked:
    """Refuse networks that cannot be built, and weights that are not there or do not fit.

    Args:
        specs: the branches.
        weights: as asked for.
        windows: their lengths in ticks.
        local: do it in this process.

    Raises:
        UserError: for the first that is refused.
        RuntimeError: the process of its own failed.
    """
    asked = {
        (spec.network, weights, REPRESENTATIONS[spec.representation].windows(ticks))
        for spec, ticks in product(specs, windows)
    }
    wanted = sorted(asked, key=str)
    found = _try(wanted) if local else _elsewhere(wanted)
    if found["error"]:
        raise UserError(found["error"])
    networks = {name: Initial(**initial) for name, initial in found["networks"].items()}
    return Checked(networks, found["device"])


def _elsewhere(wanted: Sequence[Wanted]) -> dict[str, Any]:
    """Do `_try` in a process of its own, with this one's modules."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
    )
    if done.returncode:
        raise RuntimeError(f"networks could not be checked ({done.returncode}):\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _try(wanted: Iterable[Wanted]) -> dict[str, Any]:
    """Build networks; return what they start from, or the first error, and the device."""
    networks = {}
    try:
        for name, asked, (bins, frames) in wanted:
            networks[name] = asdict(_build(name, asked, (bins, frames)))
    except UserError as error:
        return {"error": str(error)}
    return {"error": "", "networks": networks, "device": local_device()}


def _build(name: str, asked: str | None, windows: tuple[int, int]) -> Initial:
    from mrkd_ray.networks.catalogue import build, initial_weights

    weights = initial_weights(name, asked)
    report = build(name, 2, weights, windows=windows)[1]
    file = Path(report.source)
    return Initial(
        line=f"{name}, {report.summary()}",
        digest=digest(file) if file.is_file() else report.source,
        weights=weights,
    )


if __name__ == "__main__":
    print(json.dumps(_try(json.load(sys.stdin))))
