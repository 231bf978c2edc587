"""The layouts that a data set can be read from, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mrkd_ray.common.registry import Registry
from mrkd_ray.datasets.base import Dataset, Side

SPLIT_WORDS: dict[str, Literal["train", "test", "validation"]] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluate": "test",
    "evaluation": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
}
"""The usual spellings of a split, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which a data set can lie on disk."""

    description: str
    """One line for `mrkd list` and for errors."""
    specificity: int
    """Asked first when higher: 0 a mere folder, 10 a known file in it, 20 a named data set."""
    matches: Callable[[Path], bool]
    """Whether what lies at this absolute path has the layout; cheap, raises nothing."""
    read: Callable[[Path], Dataset]
    """Reads it; raises one UserError that lists all that is wrong."""
    subsets: Mapping[str, Callable[[Path], Dataset]]
    """Reads a named part of it, which `PATH#NAME` asks for."""


LAYOUTS: Registry[Layout] = Registry("data set layout")


def layout(
    name: str,
    *,
    description: str,
    specificity: int,
    matches: Callable[[Path], bool],
    subsets: Mapping[str, Callable[[Path], Dataset]] | None = None,
) -> Callable[[Callable[[Path], Dataset]], Callable[[Path], Dataset]]:
    """Return the decorator that files a reader function as the layout `name`."""

    def decorate(read: Callable[[Path], Dataset]) -> Callable[[Path], Dataset]:
        LAYOUTS.add(
            name,
            Layout(
                description=description,
                specificity=specificity,
                matches=matches,
                read=read,
                subsets=subsets or {},
            ),
        )
        return read

    return decorate


def sides(words: Sequence[str]) -> list[Side | None]:
    """Turn the spellings in `SPLIT_WORDS` into sides.

    Validation counts as the test side only where there is no test; otherwise it is None: left out.

    Raises:
        KeyError: a word that is no such spelling.
    """
    parts = [SPLIT_WORDS[word.lower()] for word in words]
    validation: Side | None = None if "test" in parts else "test"
    return [validation if part == "validation" else part for part in parts]
