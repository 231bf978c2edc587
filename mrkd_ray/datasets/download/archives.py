"""Zip archives that nobody vouches for: all is checked before anything is written."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mrkd_ray.common.errors import UserError


def unpack(archive: Path, to: Path, *, limit: int, strip: bool = False) -> dict[str, int]:
    """Unpack a zip archive into a folder.

    Args:
        limit: bytes that the files may have together.
        strip: leave out the first folder of every path.

    Returns:
        Size in bytes of every file, by its path relative to `to`.

    Raises:
        UserError: a path outside the folder, a link or another special file, more bytes than the
            limit (nothing is written then); or the archive is damaged, or the disk is full.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            files = _checked(archive, content.infolist(), limit, strip)
            for path, info in files.items():
                target = to / path
                target.parent.mkdir(parents=True, exist_ok=True)
                # zipfile ends with the declared size, so the limit holds whatever is packed.
                with content.open(info) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{archive}: these are the published bytes, but they cannot be unpacked ({error}). "
            "Try another program, or report it to those who publish it."
        ) from error
    return {path: info.file_size for path, info in files.items()}


def _checked(
    archive: Path, infos: list[zipfile.ZipInfo], limit: int, strip: bool
) -> dict[str, zipfile.ZipInfo]:
    """Return the files by the path to write them to."""
    files: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        path = PurePosixPath(info.filename)
        odd = any(character in info.filename for character in "\\:")
        if odd or path.is_absolute() or ".." in path.parts:
            raise _refused(archive, f"the path {info.filename!r} leads outside the folder")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, f"{info.filename!r} is a link or another special file")
        if info.is_dir():
            continue
        if len(path.parts) <= strip:
            raise _refused(archive, f"{info.filename!r} lies beside the one folder expected")
        files[PurePosixPath(*path.parts[int(strip) :]).as_posix()] = info
    size = sum(info.file_size for info in files.values())
    if size > limit:
        raise _refused(archive, f"its files have {size} bytes, and at most {limit} were expected")
    return files


def _refused(archive: Path, reason: str) -> UserError:
    return UserError(
        f"{archive.name}: not unpacked, since it is not what it should be: {reason}. Nothing of it "
        "was written; report it to those who publish it."
    )


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One zip file to fetch."""

    name: str
    url: str
    size: int
    """Bytes."""
    checksum: str
    """`md5:` or `sha256:` and hex digits."""
