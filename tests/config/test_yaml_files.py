"""YAML of a stranger: plain, bounded, and what people mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.config.yaml_files import DEEPEST, LARGEST, read_yaml, text_of

BOMB = "a: &a [x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)
)
GRID = {"data": "clips", "cohorts": ["logmel64:vgg_small+cqt:vgg_small"]}


def read(tmp_path: Path, content: str | bytes) -> dict[str, object]:
    file = tmp_path / "g.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_yaml(file)


REFUSED = {
    "aliases": ("a: &x 1\nb: *x\n", r"line 2: \*x: aliases are not taken"),
    "a bomb of aliases": (BOMB, "aliases are not taken"),
    "a merge": ("a: {b: 1}\n<<: {c: 2}\n", "line 2: a name is expected"),
    "a tag of Python": ("a: !!python/object/apply:os.system [ls]\n", "tags are not taken"),
    "a tag that makes an octal": ("a: !!int 010\n", "tags are not taken"),
    "a name twice": ("a: 1\nb: 2\na: 3\n", "line 3: a is there twice"),
    "a name twice, deeper": ("v:\n  x: {a: 1, a: 2}\n", "line 2: a is there twice"),
    "names that are lists": ("? [a]\n: 1\n", "line 1: a name is expected"),
    "levels without end": ("[" * 100_000, "levels in one another"),
    "many levels": ("a:\n" + "".join(" " * i + "- \n" for i in range(DEEPEST + 1)), "levels"),
    "a number of many digits": (f"a: {'9' * 5000}\n", "not valid YAML"),
    "two documents": ("a: 1\n---\nb: 2\n", "not valid YAML"),
    "too large": (b"a: 1\n" + b"#" * LARGEST, "more than 1048576 bytes"),
    "no UTF-8": (b"a: \xff\n", "cannot read"),
    "zeros": (bytes(10), "not valid YAML"),
    "a control character": ("a: \x1b[2J\n", "not valid YAML"),
    "a list": ('[1, "\\e[2J"]\n', r"expected fields .* got \[1, '\\x1b\[2J'\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_plain_is_refused(case: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, content)
    assert str(error.value).startswith(str(tmp_path / "g.yaml"))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("010", "010"), ("0o17", "0o17"), ("0x1F", "0x1F"), ("0b1", "0b1")),
        *(("1:30", "1:30"), ("1:30.5", "1:30.5"), ("190:20:30", "190:20:30")),
        *(("1_000", "1_000"), ("1_0.5", "1_0.5"), ("2024-01-01", "2024-01-01")),
        *(("0", 0), ("-12", -12), ("1.5", 1.5), ("-.5", -0.5), ("1.", 1.0), ("2.5e-3", 2.5e-3)),
        *(("true", True), ("null", None), (".inf", float("inf")), ("off", False)),
    ],
)
def test_numbers_are_decimal(text: str, value: object, tmp_path: Path) -> None:
    found = read(tmp_path, f"off: {text}\n")["off"]
    assert (found, type(found)) == (value, type(value))


def test_what_is_written_has_no_aliases(tmp_path: Path) -> None:
    shared = [1, 2]
    values = {"a": shared, "b": shared, "c": {"d": shared}}
    assert read(tmp_path, text_of(values)) == values


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seeds", "0..99999999999"),
        ("seeds", "0..9999,0..9999"),
        ("folds", f"1..{'9' * 30}"),
        ("temperatures", "1..100000"),
    ],
)
def test_ranges_are_bounded_before_they_are_expanded(field: str, value: str) -> None:
    with pytest.raises(UserError, match=f"{field}.*more than 10000 numbers"):
        parse(GridConfig, {**GRID, field: value}, "g.yaml")


def test_grids_are_bounded_before_they_are_expanded() -> None:
    asked = {**GRID, "seeds": "0..9999", "folds": "1..1000", "temperatures": "1..1000"}
    with pytest.raises(UserError, match="10000000000 cells of cohorts"):
        parse(GridConfig, asked, "g.yaml")
    assert len(parse(GridConfig, {**GRID, "seeds": "0..9999"}, "g.yaml").seeds) == 10_000


@pytest.mark.parametrize("kind", ["a pipe", "/dev/zero"])
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    if kind == "a pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(kind)
    with pytest.raises(UserError, match=r"g\.yaml: cannot read .*not a regular file"):
        read_yaml(file)
