"""What the machine can do to a run, each as one sentence: the file, the value and the mend.

A full disk, a folder that cannot be written to, a lack of memory, a file of other text: nobody's
bug, and no traceback helps.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mrkd_ray.common.errors import UserError

_SPACE = "Free some space, or give a folder on another disk"
_MENDS = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "Files may not be larger here (ulimit -f, or the file system's own limit)",
    errno.EROFS: "Give a folder that can be written to",
    errno.EACCES: "Give a path that you may use, or have its permissions changed",
    errno.EPERM: "Give a path that you may use, or have its permissions changed",
    errno.ENAMETOOLONG: "Give a shorter path",
    errno.ENOENT: "Mend the path, or make what is missing",
    errno.ENOTDIR: "A part of the path is a file: give another",
    errno.EISDIR: "It is a folder: give a file",
    errno.EMFILE: "Raise the limit of open files: ulimit -n 4096",
    errno.ENFILE: "The machine has too many files open: end other programs",
    errno.ENOMEM: "End other programs, or take a machine with more memory",
    errno.EIO: "The disk or the network behind it fails: look at the system's log",
    errno.ESTALE: "The network's file system was mounted anew: try again",
}
_LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_LASTING |= {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as libraries in Rust write it
_NO_DEVICE_MEMORY = re.compile(  # as PyTorch writes it, whatever raised it
    r"(?:CUDA|HIP|XPU|MPS\S*) (?:error: )?out of memory(?:. Tried to allocate ([\d.]+ \w+))?"
)
_NO_MEMORY = re.compile(r"not enough memory|can't allocate memory|[Uu]nable to allocate")


def is_of_the_machine(told: str) -> bool:
    """Whether `sentence` said this of the machine: a full disk, a folder that is read-only, ..."""
    return told.endswith(tuple(_MENDS.values()))


def sentence(error: BaseException) -> str | None:
    """Return what to tell people of an error, None where it is a bug and its traceback is needed.

    Ray's own errors are explained by `distributed.failures`.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno:
        mend = _MENDS.get(error.errno)
        return reason(error) + (f". {mend}" if mend else "")
    if asked := _NO_DEVICE_MEMORY.search(str(error)):
        what = f" ({asked[1]} were asked for)" if asked[1] else ""
        return (
            f"the GPU has too little memory{what}. End other programs on it, put fewer branches on "
            "a card (--gpus-per-branch), keep windows off it (--window-memory streamed), or hide "
            "it (CUDA_VISIBLE_DEVICES=) to compute on CPUs"
        )
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        asked = re.search(r"allocate ([\d.]+ \w+)", str(error))
        what = f" ({asked[1]} were asked for)" if asked else ""
        return (
            f"not enough memory{what}. End other programs, run fewer branches at once "
            "(--cpus-per-branch), or take a machine with more"
        )
    if isinstance(error, UnicodeDecodeError):
        found = error.object[error.start : error.start + 1].hex()
        return f"text that is not UTF-8 (byte {found} at {error.start}): save the file as UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[:80]!a}: its name is not valid UTF-8: rename it"
    return None


def is_lasting(error: BaseException) -> bool:
    """Return whether trying again would end in the same error."""
    return isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in _LASTING)


@contextmanager
def naming(path: Path, written: Path | None = None) -> Iterator[None]:
    """Have errors of the system, and of libraries that meet them, name a file.

    Args:
        path: what people know it as.
        written: a temporary file in its place; an error that names this names `path` instead.
    """
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, written and str(written)):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    except Exception as error:
        if code := _OS_ERROR.search(str(error)):  # such as SafetensorError's
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
        raise


def reason(error: OSError) -> str:
    """Return the file and what the system says, without what to do."""
    named = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = f"{os.fsdecode(named[-1])}: " if named else ""
    said = os.strerror(error.errno or 0)
    return f"{where}{said[:1].lower()}{said[1:]}"
