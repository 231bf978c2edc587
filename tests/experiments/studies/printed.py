"""Tables as scripts print them, read back."""

from __future__ import annotations

import re
from collections.abc import Sequence


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of each row behind its first one, which names it."""
    found = [line.split("│")[1:-1] for line in text.splitlines() if "│" in line]
    return {name.strip(): values for name, *values in found}


def figures(values: Sequence[str]) -> list[float]:
    """Return the numbers with one decimal in a row's cells."""
    return [float(x) for x in re.findall(r"[-+]?\d+\.\d", " ".join(values))]
