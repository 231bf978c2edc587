"""Grid files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.cpu_scale import to_cpu
from mrkd_ray.config.parsing import noted, parse, read_yaml
from mrkd_ray.config.run import Run
from mrkd_ray.config.schema import GridConfig

WHERE = {"name", "seeds", *Run.model_fields} - {
    *("data", "skip_bad", "split_seed", "unlabelled", "folds")
}
"""Fields that leave a grid's conclusion what it is: where things lie and run, and more runs."""


def read_grid(path: Path, values: dict[str, Any], scale: str | None = None) -> GridConfig:
    """Read a grid file.

    Its conclusion is of what the file says: other data or another method have none.

    Args:
        path: the file; its name is the grid's, unless it says another.
        values: fields from the command line, which override the file's, scaled or not.
        scale: `cpu`, or None for the file as it is.

    Raises:
        UserError: the file, a value, or the scale is wrong.
    """
    asked = {"name": path.stem, **noted(read_yaml(path), str(path))}
    if scale == "cpu":
        asked = to_cpu(asked, str(path))
    elif scale is not None:
        raise UserError(f"--scale {scale}: the only scale is cpu; without it the file's own")
    if scale or not values.keys() <= WHERE:
        values = values | {"conclusion": None}
    return parse(GridConfig, asked | values, f"{path} and command line" if values else str(path))
