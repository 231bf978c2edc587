"""Several labels in one cell of a table: lists, separators, quotes."""

from __future__ import annotations

import ast
import csv
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from mrkd_ray.common.text import few
from mrkd_ray.datasets.layouts.faults import Faults

SEPARATORS = ",;|"
"""The first is the usual one; another is taken where no cell has a comma."""

_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_BARE = r"[^\s,'\"\[\](){}]+"
_ITEM = re.compile(rf"\s*({_QUOTED}|{_BARE})\s*")
_LIST = re.compile(rf"[\[({{](?:{_ITEM.pattern}(?:,{_ITEM.pattern})*,?)?\s*[\])}}]")
_OTHER = re.compile(r"[/+&]|\s")  # what also stands between labels


class LabelError(ValueError):
    """A cell that is only half understood; the message says why, without the cell."""


def labels_of(
    rows: Sequence[Mapping[str, str]], faults: Faults, notes: list[str]
) -> list[tuple[str, ...]]:
    """Return the labels of each row, of its column `label` or `labels`: sorted, none twice.

    What is half understood goes to `faults`, and what may surprise to `notes`.
    """
    return _one_each(rows, faults, notes) if "label" in rows[0] else _several(rows, faults, notes)


def _one_each(
    rows: Sequence[Mapping[str, str]], faults: Faults, notes: list[str]
) -> list[tuple[str, ...]]:
    for row in rows:
        if _is_clear(row["label"]):
            mend = "Call the column labels: a clip with several labels has a list there."
            faults.add("lists in the column label", mend, f"{row['label']!r} of {row['filename']}")
    labels = {row["label"] for row in rows}
    for label in joined(labels):
        mend = "Call the column labels if they are several labels; else rename them."
        faults.add("labels that are made of other labels", mend, repr(label))
    if together := joined_otherwise(labels):
        notes.append(
            f"labels that are made of other labels ({len(together)}): {few(map(repr, together))}: "
            "classes of their own here; several labels a clip stand in a column labels, with "
            "commas."
        )
    if marked := sorted(x for x in labels if any(mark in x for mark in SEPARATORS)):
        notes.append(
            f"labels with , ; or | in them ({len(marked)}): {few(map(repr, marked), 3)}: a class "
            "each; if they are several labels, call the column labels."
        )
    return [(row["label"],) if row["label"] else () for row in rows]


def _several(
    rows: Sequence[Mapping[str, str]], faults: Faults, notes: list[str]
) -> list[tuple[str, ...]]:
    cells = [row["labels"] for row in rows]
    is_list = _in_brackets if any(map(_is_clear, cells)) else _is_clear
    plain = [cell for cell in cells if not is_list(cell)]
    as_list = 'Write such cells as lists: ["a, b", "c"].'
    try:
        mark = separator(plain)
    except LabelError as error:
        faults.add(f"labels: {error}", as_list, "column labels")
        return [("",)] * len(rows)
    found: list[tuple[str, ...]] = []
    for row in rows:
        try:
            cell = row["labels"]
            own = split_list(cell) if is_list(cell) else split_cell(cell, mark)
            found.append(tuple(sorted(set(own))))
        except LabelError as error:
            faults.add(f"labels: {error}", as_list, f"{row['labels']!r} of {row['filename']}")
            found.append(("",))
    every = {label for labels in found for label in labels}
    for label in sorted({*joined(every), *joined_otherwise(every)}):
        mend = f"Put {mark!r} between them; if it is a class of its own, rename it."
        faults.add("labels that are made of other labels", mend, repr(label))
    several = any(len(labels) > 1 for labels in found)
    if not several and (held := sorted(label for label in every if _OTHER.search(label))):
        notes.append(
            f"no clip has several labels, but labels hold blanks, /, + or & ({len(held)}): "
            f"{few(map(repr, held), 3)}: a class each; put commas between several labels."
        )
    if pairs := maybe_one(plain, found):
        notes.append(
            f"labels that never occur without each other ({len(pairs)} pairs): "
            f"{few(map(repr, pairs))}. If the comma belongs to a class: {as_list}"
        )
    return found


def _in_brackets(cell: str) -> bool:
    return (cell[:1], cell[-1:]) in (("[", "]"), ("(", ")"), ("{", "}"))


def _is_clear(cell: str) -> bool:
    """Return whether a cell can only be a list: `['a']`, `[a, b]`, `[]`, but not `(other)`."""
    return _in_brackets(cell) and (not cell[1:-1].strip() or any(c in cell for c in ",'\""))


def separator(cells: Collection[str]) -> str:
    """Return what stands between the labels of a column's cells that are no lists.

    Raises:
        LabelError: the cells have more than one separator.
    """
    plain = [re.sub(r'"[^"]*"', "", cell) for cell in cells]
    found = [mark for mark in SEPARATORS if any(mark in cell for cell in plain)]
    if len(found) > 1:
        raise LabelError(f"both {' and '.join(found)} stand between labels or in them")
    return found[0] if found else SEPARATORS[0]


def split_list(cell: str) -> list[str]:
    """Return the labels of a list as Python or JSON writes it, in order, also without quotes.

    Raises:
        LabelError: it is half a list.
    """
    if not _LIST.fullmatch(cell):
        raise LabelError("a list without commas or quotes between its labels")
    items = [match[1] for match in _ITEM.finditer(cell[1:-1])]
    try:
        parts = [ast.literal_eval(item) if item[0] in "'\"" else item for item in items]
    except (SyntaxError, ValueError) as error:
        raise LabelError("a list that neither Python nor JSON reads") from error
    return [part.strip() for part in parts if part.strip()]


def split_cell(cell: str, mark: str) -> list[str]:
    """Return the labels of a cell, in order, without blanks around them.

    A label that holds the separator stands in double quotes.

    Raises:
        LabelError: quotes that do not close.
    """
    parts = cell.split(mark)
    if '"' in cell:
        try:
            parts = next(csv.reader([cell], delimiter=mark, skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise LabelError("quotes that do not close around a label") from error
    return [part.strip() for part in parts if part.strip()]


def joined(labels: Collection[str], marks: str = SEPARATORS) -> list[str]:
    """Return the labels that are other labels with one of the marks between them, sorted."""
    return [
        label
        for label in sorted(labels)
        if any(_made_of(label.split(mark), labels) for mark in marks)
    ]


def joined_otherwise(labels: Collection[str]) -> list[str]:
    """Return the labels that are other labels with `/`, `+`, `&` or blanks between them."""
    return [label for label in sorted(labels) if _made_of(_OTHER.split(label), labels)]


def _made_of(parts: Sequence[str], labels: Collection[str]) -> bool:
    named = [part.strip() for part in parts if part.strip()]
    return len(named) > 1 and all(part in labels for part in named)


def maybe_one(cells: Collection[str], labels_of: Collection[Sequence[str]]) -> list[str]:
    """Return pairs of labels, `a, b`, that never occur without each other: maybe one class.

    Only where a blank follows the comma each time, as in AudioSet's "Child speech, kid speaking".

    Args:
        cells: as written; no lists.
        labels_of: the labels of each clip.
    """
    count = Counter(label for labels in labels_of for label in set(labels))
    together = Counter(
        (a.strip(), b.strip())
        for cell in cells
        if '"' not in cell
        for a, b in pairwise(cell.split(","))
        if b[:1].isspace()
    )
    return [
        f"{a}, {b}"
        for (a, b), n in sorted(together.items())
        if n > 1 and n == count[a] == count[b] and a != b
    ]
