"""What is wrong with a data set's tables, all of it in one error."""

from __future__ import annotations

from collections import defaultdict

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import LISTED, few


class Faults:
    """Collects what is wrong, to raise all of it at once."""

    def __init__(self, heading: str) -> None:
        self._heading = heading
        self._found: dict[tuple[str, str], list[str]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, what: str, mend: str, where: str) -> None:
        """File one place under what is wrong with it and how to mend that."""
        self._found[what, mend].append(where)

    def raise_any(self) -> None:
        """Raise a UserError with all that was added, if anything was."""
        if self:
            lines = [
                f"\n  {what} ({len(where)}): {few(where, LISTED)}. {mend}"
                for (what, mend), where in self._found.items()
            ]
            raise UserError(self._heading + "".join(lines))
