"""`results.csv` and `table.csv`, read again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"grid": str, "dataset": str, "variant": str}  # chosen by users: they may look like numbers


def read_table(path: Path) -> pd.DataFrame | None:
    """Return a CSV; None where it is not there or has no rows. A class may be called `nan`."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=NAMES)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return None
    words = frame.select_dtypes(exclude="number").columns
    return frame.fillna(dict.fromkeys(words, "")) if len(frame) else None
