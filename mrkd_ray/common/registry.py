"""Named things that can be extended by a decorator: representations, networks, averages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from mrkd_ray.common.errors import UserError

T = TypeVar("T")


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that nobody registered: nearest match first, then all of them."""
    names = sorted(known)
    longer = [known for known in names if name and known.startswith(f"{name}_")]
    near = longer or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


class Registry(Generic[T]):
    """Maps a name to an entry of one kind.

    Raises:
        ValueError: a name is registered twice (a programming error).
        UserError: an unknown name is looked up; lists the known ones and the nearest match.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """File `entry` under `name`."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise unknown(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def items(self) -> Iterable[tuple[str, T]]:
        """Return (name, entry) pairs in the order of registration."""
        return self._entries.items()
