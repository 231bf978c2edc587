"""Grid files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import Damaged
from mrkd_ray.config.cpu_scale import to_cpu
from mrkd_ray.config.fields import current_names
from mrkd_ray.config.parsing import noted, parse
from mrkd_ray.config.run import Run
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.config.yaml_files import read_yaml

G = TypeVar("G", bound=GridConfig)

DEMONSTRATION = "synthetic"
"""The data of a grid file that is named after other data that it is run on."""

WHERE = {"name", "seeds", *Run.model_fields} - {
    *("data", "skip_bad", "split_seed", "group_by", "unlabelled", "folds")
}
"""Fields that leave a grid's conclusion what it is: where things lie and run, and more runs."""


def read_grid(
    path: Path,
    values: dict[str, Any],
    scale: str | None = None,
    model: type[G] = GridConfig,  # type: ignore[assignment]
) -> G:
    """Read a grid file.

    Its conclusion is of what the file says: other data or another method have none.

    Args:
        path: the file; its name is the grid's, unless it says another. A demonstration's that is
            run on other data gets that data's name.
        values: fields from the command line, which override the file's, scaled or not.
        scale: `cpu`, or None for the file as it is.
        model: what is read: a grid, or a kind of it that has more fields.

    Raises:
        UserError: the file, a value, or the scale is wrong.
    """
    asked = noted(read_yaml(path), str(path))
    name = path.stem
    if "data" in values:
        if asked.get("data") == DEMONSTRATION != values["data"]:
            name = _name_of(values["data"]) or name
        asked["data"] = values["data"]  # scaled grids need it as well
    asked = {"name": name} | asked
    if scale == "cpu":
        asked = to_cpu(asked, str(path))
    elif scale is not None:
        raise UserError(f"--scale {scale}: the only scale is cpu; without it the file's own")
    if scale or not values.keys() <= WHERE:
        values = values | {"conclusion": None}
    return parse(model, asked | values, f"{path} and command line" if values else str(path))


WRITTEN = ("name", "data", "cache", "cohorts", "folds", "seeds", "temperatures", "variants")
"""Fields that every `grid.yaml` of a results folder has."""


def read_written(path: Path, needed: Sequence[str] = WRITTEN) -> dict[str, Any]:
    """Read the `grid.yaml` that a run wrote, its fields under the names of today.

    Args:
        needed: fields that it must have.

    Raises:
        Damaged: it is gone or no such file, or its end is lost.
    """
    try:
        values = current_names(read_yaml(path))
    except ValueError as error:
        raise Damaged(path, str(error)) from None
    if lacking := [name for name in needed if name not in values]:
        raise Damaged(path, f"no {lacking[0]!r} in it")
    return values


def _name_of(data: str) -> str:
    """Return a name of results on this data: `esc10` of `data/esc50#esc10`, "" if it has none."""
    path = Path(data).absolute()
    name = path.stem if path.suffix.lower() == ".csv" else path.name.rpartition("#")[2]
    return re.sub(r"[^\w.-]+", "_", name).lstrip("_.-")
