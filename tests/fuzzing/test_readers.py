"""Every reader, with files that chance made."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzzing.readers import READERS, read

MORE = int(os.environ.get("MRKD_FUZZ", 0))
EXAMPLES = MORE or 60
"""Of each kind and reader: seconds, in CI. The same ones in each run, so that CI is no lottery.

`MRKD_FUZZ=5000 python -m pytest tests/fuzzing` tries as many others.
"""

TOKENS = [
    *(b"\x00", b"\xff", b"\n", b"\r", b'"', b"'", b",", b";", b":", b"\\", b"{", b"}", b"[", b"]"),
    *(b"-1", b"1e999", b"NaN", b"Infinity", b"null", b"true", b"99999999999999999999", b"0x10"),
    *(b"\xef\xbb\xbf", "\u202e".encode(), "\ud7ff".encode(), b"..", b"/", b"../..", b"*a", b"&a "),
    *(b"!!python/object:os.system", b"<<: ", b"- " * 50, b"[" * 500, b"=", b"%", b"\x1b[2J"),
]


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file to which something happened."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        to = draw(st.integers(at, min(len(content), at + 20)))
        match draw(st.sampled_from(["bit", "cut", "insert", "replace", "repeat", "zeros"])):
            case "bit" if at < len(content):
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[at:]
            case "insert":
                content[at:at] = draw(st.sampled_from(TOKENS))
            case "replace":
                content[at:to] = draw(st.sampled_from(TOKENS) | st.binary(max_size=8))
            case "repeat":
                content[at:at] = content[at:to] * draw(st.integers(1, 40))
            case "zeros":
                content[at:to] = bytes(to - at)
    return bytes(content)


bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not MORE,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", READERS)
def test_a_good_file_is_read(name: str) -> None:
    read(name, READERS[name][1])


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused(name: str) -> None:
    @bounded
    @given(damaged(READERS[name][1]))
    def check(content: bytes) -> None:
        read(name, content)

    check()


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_or_refused(name: str) -> None:
    @bounded
    @given(st.binary(max_size=200) | st.text().map(str.encode))
    @example(b"")
    @example(b"\x00" * 1000)
    @example(b"[" * 100_000)
    @example(b'{"a":' * 100_000)
    @example(b"9" * 10_000)
    def check(content: bytes) -> None:
        read(name, content)

    check()
