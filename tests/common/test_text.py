"""Names that come from data, on their way to people and spreadsheets."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrkd_ray.common.text import few, from_cell, is_printable, printable, printable_lines, to_cell

HIDDEN = {
    "\x1b[2J\x1b[H": r"\x1b[2J\x1b[H",
    "a\nerror: forged": r"a\nerror: forged",
    "a\x00b\r\x07\x7f\x9b": r"a\x00b\r\x07\x7f\x9b",
    "gpj.\u202egnp": r"gpj.\u202egnp",
    "\udcff.wav": r"\udcff.wav",
    "a\u2028b": r"a\u2028b",
}
SHOWN = ("plain", "Straße", "日本語", "שלום", "🎺 e\u0301", "a\u200db", "=1+1", "")


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_hidden_in_a_name_is_shown(name: str) -> None:
    assert not is_printable(name)
    assert printable(name) == HIDDEN[name]
    assert is_printable(printable(name))
    assert few([name]) == HIDDEN[name]
    assert HIDDEN[name] in printable_lines(f"first\n{printable(name)}\n{name}")


@pytest.mark.parametrize("name", SHOWN)
def test_other_names_stay_as_they_are(name: str) -> None:
    assert is_printable(name)
    assert printable(name) == name


@given(st.text())
def test_what_is_printed_is_one_line_without_control_characters(name: str) -> None:
    shown = printable(name)
    assert is_printable(shown)
    assert shown.splitlines() in ([], [shown])
    shown.encode()


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        *(("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"), ("@home", "'@home"), ("+", "'+")),
        *(("-dog", "'-dog"), ("'=a", "''=a"), ("-1", "-1"), ("+1.5", "+1.5"), ("a=b", "a=b")),
    ],
)
def test_no_name_is_a_formula(name: str, cell: str) -> None:
    assert to_cell(name) == cell
    assert from_cell(cell) == name


@given(st.text())
def test_every_name_comes_back_from_a_cell(name: str) -> None:
    assert from_cell(to_cell(name)) == name
    text = io.StringIO()
    csv.writer(text).writerow([to_cell(name)])
    if text.getvalue()[:1] in "=@":
        raise AssertionError(name)
