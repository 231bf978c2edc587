"""Failures of the machine: one sentence each, that names the file; and what is a bug stays one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.failures import is_lasting, naming, sentence
from mrkd_ray.common.files import replacing, write_text


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UserError("data: none"), "data: none"),
        (OSError(errno.ENOSPC, "x", "/a/b"), "/a/b: no space left on device. Free some space"),
        (OSError(errno.EROFS, "x", "/a/b"), "/a/b: read-only file system. Give a folder"),
        (OSError(errno.ENAMETOOLONG, "x", "c"), "c: file name too long. Give a shorter path"),
        (OSError(errno.EACCES, "x", b"c"), "c: permission denied. Give a path"),
        (OSError(errno.EXDEV, "x", "a", None, "b"), "b: invalid cross-device link"),
        (OSError(errno.EMFILE, "x"), "too many open files. Raise the limit"),
        (MemoryError("Unable to allocate 7.45 TiB for"), "not enough memory (7.45 TiB were asked"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total"),
            "the GPU has too little memory (20.00 MiB were asked for). End other programs",
        ),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel"), "the GPU has too little memory. "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "not enough memory"),
        (
            UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "no"),
            "text that is not UTF-8 (byte ff",
        ),
        (UnicodeEncodeError("utf-8", "a\udce9", 1, 2, "no"), "'a\\udce9': its name is not valid"),
    ],
)
def test_a_failure_of_the_machine_is_one_sentence(error: Exception, told: str) -> None:
    found = sentence(error)
    assert found is not None
    assert found.startswith(told)
    assert "\n" not in found


@pytest.mark.parametrize("error", [TypeError("x"), RuntimeError("x"), OSError("x"), KeyError("x")])
def test_a_bug_has_no_sentence(error: Exception) -> None:
    assert sentence(error) is None
    assert not is_lasting(error)


def test_a_full_disk_lasts_and_a_network_that_hangs_may_not() -> None:
    assert is_lasting(UserError("diverged"))
    assert is_lasting(OSError(errno.ENOSPC, "x"))
    assert not is_lasting(OSError(errno.EIO, "x"))


class RustError(Exception):
    """What safetensors raises."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left"),
        RustError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(
    tmp_path: Path, error: Exception
) -> None:
    file = tmp_path / "a" / "result.json"
    write_text(file, "before")

    def write() -> None:
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(file))
    assert file.read_text() == "before"
    assert list(file.parent.iterdir()) == [file]


def test_an_error_that_names_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, naming(tmp_path / "a"):
        (tmp_path / "b").read_text()
    assert str(caught.value.filename) == str(tmp_path / "b")


def test_two_processes_of_one_number_have_other_temporary_names(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
        assert one != other
        one.write_text("x")
        other.write_text("x")
