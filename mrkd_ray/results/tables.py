"""`results.csv` and `table.csv`, read again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from mrkd_ray.common import manifest
from mrkd_ray.common.reading import LARGEST, Damaged
from mrkd_ray.common.text import from_cell

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"grid": str, "dataset": str, "variant": str}  # chosen by users: they may look like numbers


def read_table(path: Path) -> pd.DataFrame | None:
    """Return a CSV; None where it is not there or has no rows. A class may be called `nan`.

    Raises:
        Damaged: it is not what was written.
    """
    import pandas as pd

    if not path.exists():
        return None
    content = io.BytesIO(manifest.content(path.parent, path.name, LARGEST))
    try:
        frame = pd.read_csv(content, keep_default_na=False, na_values=[""], dtype=NAMES)
    except pd.errors.EmptyDataError:
        return None
    except ValueError as error:
        raise Damaged(path, f"not a table ({error})") from None
    if "dataset" in frame:
        frame["dataset"] = frame["dataset"].map(from_cell, na_action="ignore")
    words = frame.select_dtypes(exclude="number").columns
    return frame.fillna(dict.fromkeys(words, "")) if len(frame) else None
