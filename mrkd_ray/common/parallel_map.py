"""Work on many items, here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

X = TypeVar("X")
Y = TypeVar("Y")
MapFn: TypeAlias = Callable[[Callable[[X], Y], Sequence[X]], Iterator[Y]]
"""Applies a picklable function to items, maybe elsewhere; yields the results in any order."""


def serial_map(function: Callable[[X], Y], items: Sequence[X]) -> Iterator[Y]:
    """Map in this process, in order."""
    return map(function, items)
