"""Rows of a csv file, read strictly, so that no quote swallows a row."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator


def delimiter_of(header: str) -> str:
    """Return what stands between the columns that a first line names."""
    return max(",;\t|", key=header.count)


def records(
    lines: Iterable[str], delimiter: str, *, width: int | None = None, first_line: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """Yield of each row the line where it begins, and its values; blank lines are left out.

    Args:
        width: number of columns; by default that of the first row.
        first_line: number of the first of `lines`.

    Raises:
        csv.Error: names the line of a quote that is not closed, that stands within a value, or that
            swallows what looks like a row.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begins = first_line
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise csv.Error(f"line {begins}: {error}; mend its quotes") from error
        width = width or len(values)
        if any(_holds_rows(value, delimiter, width) for value in values):
            until = first_line + reader.line_num - 1
            raise csv.Error(f"line {begins}: a quote is not closed before line {until}; mend it")
        if any(value.strip() for value in values):
            yield begins, values
        begins = first_line + reader.line_num


def _holds_rows(value: str, delimiter: str, width: int) -> bool:
    return any(line.count(delimiter) >= max(1, width - 1) for line in value.splitlines()[1:])
