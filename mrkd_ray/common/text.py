"""Text for people: lists, times."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable


def few(items: Iterable[str], limit: int = 10) -> str:
    """Return the first items, `printable`, separated by commas, and how many more there are."""
    listed = [printable(item) for item in items]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


_HIDDEN = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, breaks of lines
_TURNED = re.compile("[\u202a-\u202e\u2066-\u2069]")  # what turns the direction of writing
_FORMULA = re.compile("'*[=+@-]")  # how what spreadsheets compute begins, escaped or not


def is_printable(text: str) -> bool:
    """Return whether a text is a line that shows what is in it.

    It has no line breaks, no other control characters, and none that turn the direction of
    writing, by which names can clear a screen or look like others.
    """
    if text.isascii() and text.isprintable():
        return True
    return not (any(unicodedata.category(x) in _HIDDEN for x in text) or _TURNED.search(text))


def printable(text: object) -> str:
    """Return a name from a file or a disk as a line for people: what is hidden is escaped.

    All that comes from data goes through it on its way to a terminal, a page or a log.
    """
    line = str(text)
    if line.isascii() and line.isprintable():
        return line
    return "".join(
        x if is_printable(x) else x.encode("unicode_escape").decode("ascii") for x in line
    )


def printable_lines(text: object) -> str:
    """Return a text of several lines, each as `printable` gives it."""
    return "\n".join(map(printable, str(text).split("\n")))


def to_cell(text: str) -> str:
    """Return a name as a CSV has it: a spreadsheet takes `=...` for a formula, and runs it."""
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def from_cell(text: str) -> str:
    """Return the name that `to_cell` wrote."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text) is not None


def folded(text: str) -> str:
    """Return a text without the differences of case and of Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def natural(text: str) -> list[tuple[int, int]]:
    """Return the key to sort texts by as people do: by their letters, and numbers by their value.

    Texts without two numbers of different length at the same place sort as they do without it.
    """
    parts = re.findall(r"[0-9]+|[^0-9]", text)
    return [(ord("0"), int(part)) if "0" <= part[0] <= "9" else (ord(part), 0) for part in parts]


LISTED = 100  # clips or labels that an error names of one kind


def time_text(seconds: float) -> str:
    """Two units at most: 42 s, 3 min 5 s, 2 h 10 min, 4 d 3 h."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def count_text(count: int) -> str:
    """Return `165 k` or `11.2 M`."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def megabytes_text(size: int) -> str:
    """Return bytes in units of 10^6: `0.66`, `44.7`, `110`."""
    return f"{size / 1e6:.3g}"


def milliseconds_text(milliseconds: float) -> str:
    """Return `8.4` or `120`."""
    return f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:.0f}"
